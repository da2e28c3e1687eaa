"""finish: running -> succeeded | cancelled | dead | scheduled | ready, for claims that are still ours."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.errors import PartitionMissing, Refused
from jobd.job import FINISHED, FinishedRun, JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, claim_all, end_runs, make_job, make_jobs, make_worker, scalar
from tests.store.conftest import Ear, Held

ERROR = (
    '{"type": "ValueError", "message": "no", "attempt": 1, "at": "2025-01-01T00:00:00Z", "traceback": null}'
)


def run(id: UUID, state: JobState = JobState.SUCCEEDED, claim_no: int = 1, **rest: Any) -> FinishedRun:
    return FinishedRun(id=id, claim_no=claim_no, state=state, **rest)


@pytest.mark.parametrize("state", sorted(FINISHED))
async def test_a_finished_job_leaves_for_the_history_with_everything(
    door: Link, store: Store, reader: Reader, state: JobState
):
    id = await make_job(
        door,
        state="running",
        claim_no=3,
        attempt=2,
        payload={"a": [1]},
        tenant_id="t",
        unique_key="k",
        priority=4,
        headers={"tags": ["x"]},
        errors=[{"type": "E"}],
        progress={"fraction": 0.5},
        timeout=5 * SECOND,
        delay_tolerance=60 * SECOND,
        crashes=1,
        generation=1,
        max_attempts=9,
        backoff={"kind": "linear"},
    )
    before = await reader.get(id)
    answer = await end_runs(store, [run(id, state, claim_no=3, reason="why", result='{"r": 1}', error=ERROR)])
    assert answer == {id: state}
    after = await reader.get(id)
    # A success has no reason and no error, and nothing else has a result.
    told = (None, {"r": 1}) if state is JobState.SUCCEEDED else ("why", None)
    assert (after.state, after.reason, after.result, after.claim_no) == (state, *told, 4)
    assert after.errors == [{"type": "E"}, *([] if state is JobState.SUCCEEDED else [json.loads(ERROR)])]
    assert after.finished_at is not None
    changed = {"state", "reason", "result", "claim_no", "errors", "finished_at"}
    for name in before.__slots__:
        assert name in changed or getattr(after, name) == getattr(before, name), name
    assert await scalar(door, "select count(*) from jobd.jobs") == 0


async def test_a_retry_goes_back_as_scheduled_with_its_error(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running", attempt=2, progress={"fraction": 1})
    before = await reader.get(id)
    now = datetime.now(UTC)
    runs = [run(id, JobState.SCHEDULED, delay=90 * SECOND, error=ERROR)]
    assert await end_runs(store, runs, now=now) == {id: JobState.SCHEDULED}
    job = await reader.get(id)
    assert (job.state, job.attempt, job.claim_no, job.run_at) == (JobState.SCHEDULED, 2, 2, now + 90 * SECOND)
    assert (job.worker_id, job.claimed_at, job.progress) == (None, None, None)
    assert job.errors == [json.loads(ERROR)]
    assert job.deadline_at == before.deadline_at, "a retry must not lose its place in the order"


async def test_an_unburned_run_gives_its_attempt_back(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running", attempt=2)
    runs = [run(id, JobState.READY, unburned=True)]
    assert await end_runs(store, runs) == {id: JobState.READY}
    job = await reader.get(id)
    assert (job.state, job.attempt, job.claim_no, job.errors) == (JobState.READY, 1, 2, [])


async def test_finish_by_a_rescued_worker_changes_nothing(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running")
    await store.rescue(batch=1, crash_limit=3)
    for state in JobState:
        if state is not JobState.RUNNING:
            assert await end_runs(store, [run(id, state, result="1", error=ERROR, delay=SECOND)]) == {}
    job = await reader.get(id)
    assert (job.state, job.claim_no, len(job.errors)) == (JobState.READY, 2, 1)


async def test_finish_by_a_worker_that_was_overtaken_changes_nothing(
    door: Link, store: Store, reader: Reader
):
    id = await make_job(door, state="running")
    worker = await make_worker(door)
    await store.rescue(batch=1, crash_limit=3)
    (claim,) = await claim_all(store, worker, rooms={"default": 1})
    before = await reader.get(id)
    assert await end_runs(store, [run(id, claim_no=1, result="1")]) == {}
    assert await end_runs(store, [run(id, JobState.READY, claim_no=1)]) == {}
    assert await reader.get(id) == before
    assert await end_runs(store, [run(id, claim_no=claim.claim_no)]) == {id: JobState.SUCCEEDED}


async def test_finish_twice_is_finish_once(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running")
    await end_runs(store, [run(id, result="1")])
    before = await reader.get(id)
    assert await end_runs(store, [run(id, JobState.DEAD, result="2")]) == {}
    assert await reader.get(id) == before


async def test_a_repeated_finish_of_an_old_claim_leaves_a_retried_job_alone(
    door: Link, store: Store, reader: Reader
):
    id = await make_job(door, state="running", claim_no=3)
    await end_runs(store, [run(id, claim_no=3)])
    await store.retry(id)
    before = await reader.get(id)
    for claim_no in (2, 3):
        assert await end_runs(store, [run(id, claim_no=claim_no)]) == {}
    assert await reader.get(id) == before


async def test_the_same_run_twice_in_one_batch_ends_once(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running")
    assert await end_runs(store, [run(id), run(id)]) == {id: JobState.SUCCEEDED}
    assert (await reader.get(id)).claim_no == 2


async def test_a_batch_of_every_outcome_is_one_call(door: Link, store: Store):
    ids = await make_jobs(door, 6, state="running")
    stale = uuid4()
    states = [JobState.SUCCEEDED, JobState.CANCELLED, JobState.DEAD, JobState.SCHEDULED, JobState.READY]
    runs = [run(id, state) for id, state in zip(ids, states, strict=False)]
    answer = await end_runs(store, [*runs, run(ids[5], claim_no=7), run(stale)])
    assert answer == dict(zip(ids, states, strict=False))


async def test_nothing_to_finish_is_nothing_done(store: Store):
    assert await end_runs(store, []) == {}


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.READY])
async def test_a_run_that_would_go_back_ends_cancelled_when_that_was_asked(
    door: Link, store: Store, reader: Reader, state: JobState
):
    id = await make_job(door, state="running", cancel_requested_at=datetime.now(UTC))
    runs = [run(id, state, delay=SECOND, error=ERROR, unburned=True)]
    assert await end_runs(store, runs) == {id: JobState.CANCELLED}
    job = await reader.get(id)
    assert (job.state, job.reason, job.claim_no) == (JobState.CANCELLED, "cancelled on request", 2)
    assert job.errors == [json.loads(ERROR)]


async def test_a_success_stays_one_although_a_cancel_was_asked(door: Link, store: Store):
    id = await make_job(door, state="running", cancel_requested_at=datetime.now(UTC))
    assert await end_runs(store, [run(id, JobState.SUCCEEDED)]) == {id: JobState.SUCCEEDED}


@pytest.mark.parametrize("state", [JobState.DEAD, JobState.CANCELLED])
async def test_any_other_end_is_cancelled_with_the_reason_that_was_given(
    door: Link, store: Store, reader: Reader, state: JobState
):
    id = await make_job(door, state="running")
    assert await store.cancel(id, reason="wrong address") is JobState.RUNNING
    assert await end_runs(store, [run(id, state, reason="gave up", error=ERROR)]) == {id: JobState.CANCELLED}
    job = await reader.get(id)
    assert (job.reason, job.errors) == ("wrong address", [json.loads(ERROR)])


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.READY])
async def test_a_cancel_that_commits_while_a_retry_waits_for_it_wins(
    door: Link, store: Store, held: Held, reader: Reader, state: JobState
):
    id = await make_job(door, state="running")
    assert await Store(held).cancel(id, reason="stop") is JobState.RUNNING
    answer = await held.commit_under(end_runs(store, [run(id, state, delay=SECOND)]))
    assert answer == {id: JobState.CANCELLED}
    assert (await reader.get(id)).state is JobState.CANCELLED


async def test_a_success_that_waits_for_a_cancel_stays_a_success(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running")
    await Store(held).cancel(id, reason="stop")
    answer = await held.commit_under(end_runs(store, [run(id, result="7")]))
    assert answer == {id: JobState.SUCCEEDED}
    job = await reader.get(id)
    assert (job.result, job.cancel_requested_at is not None) == (7, True)


async def test_progress_that_commits_while_a_finish_waits_is_kept(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running")
    assert await Store(held).progress(id, 1, '{"fraction": 0.9}')
    assert await held.commit_under(end_runs(store, [run(id)])) == {id: JobState.SUCCEEDED}
    assert (await reader.get(id)).progress == {"fraction": 0.9}


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.SCHEDULED])
async def test_a_finish_that_waits_for_a_rescue_is_stale(
    door: Link, store: Store, held: Held, reader: Reader, state: JobState
):
    id = await make_job(door, state="running")
    assert await Store(held).rescue(batch=1, crash_limit=3) == {id: JobState.READY}
    assert await held.commit_under(end_runs(store, [run(id, state, delay=SECOND)])) == {}
    job = await reader.get(id)
    assert (job.state, job.claim_no, job.crashes) == (JobState.READY, 2, 1)


@pytest.mark.parametrize("first", [JobState.SUCCEEDED, JobState.SCHEDULED])
@pytest.mark.parametrize("second", [JobState.SUCCEEDED, JobState.SCHEDULED])
async def test_of_two_finishes_at_the_same_time_one_counts(
    door: Link, store: Store, held: Held, reader: Reader, first: JobState, second: JobState
):
    """The repeat of a flush whose answer was lost may run beside the first."""
    id = await make_job(door, state="running")
    assert await end_runs(Store(held), [run(id, first, result="1")]) == {id: first}
    assert await held.commit_under(end_runs(store, [run(id, second, result="2")])) == {}
    assert (await reader.get(id)).state is first


async def test_of_many_errors_the_first_and_the_latest_are_kept(door: Link, store: Store, reader: Reader):
    errors = [{"attempt": n} for n in range(1, 21)]
    retried = await make_job(door, state="running", errors=errors)
    dead = await make_job(door, state="running", errors=errors)
    runs = [
        run(retried, JobState.SCHEDULED, error='{"attempt": 21}'),
        run(dead, JobState.DEAD, error='{"attempt": 21}'),
    ]
    await end_runs(store, runs)
    for id in (retried, dead):
        kept = [error["attempt"] for error in (await reader.get(id)).errors]
        assert kept == [1, *range(3, 22)]


async def test_finish_without_a_partition_for_today_says_so_and_changes_nothing(
    door: Link, store: Store, reader: Reader
):
    id = await make_job(door, state="running")
    with pytest.raises(PartitionMissing):
        await end_runs(store, [run(id)], now=datetime.now(UTC) + timedelta(days=40))
    assert (await reader.get(id)).state is JobState.RUNNING


async def test_a_result_that_cannot_be_stored_is_refused_and_changes_nothing(
    door: Link, store: Store, reader: Reader
):
    good, bad = await make_jobs(door, 2, state="running")
    with pytest.raises(Refused):
        await end_runs(store, [run(good), run(bad, result='"\\u0000"')])
    assert (await reader.get(good)).state is JobState.RUNNING
    assert await end_runs(store, [run(good)]) == {good: JobState.SUCCEEDED}


async def test_a_job_that_goes_back_to_ready_wakes_a_worker_that_sleeps(door: Link, store: Store, ear: Ear):
    await make_worker(door, sleeping_until=datetime.now(UTC) + 60 * SECOND)
    ready, later = await make_jobs(door, 2, state="running")
    await end_runs(
        store, [run(ready, JobState.READY, unburned=True), run(later, JobState.SCHEDULED, delay=SECOND)]
    )
    assert await ear.heard() == [("jobd_wake", "default")]


async def test_still_ours_tells_running_claims_from_ended_ones(door: Link, store: Store):
    running = await make_job(door, state="running", claim_no=5)
    ended = await make_job(door, state="succeeded", claim_no=6)
    ready = await make_job(door, state="ready", claim_no=6)
    asked = [(running, 5), (running, 3), (ended, 5), (ready, 5), (uuid4(), 1)]
    assert await store.still_ours(asked) == {running}
