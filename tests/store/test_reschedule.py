"""reschedule: a waiting job gets another time, another priority, or both."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobd.door import Link
from jobd.errors import JobNotFound, WrongState
from jobd.ids import uuid7
from jobd.job import JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_worker
from tests.store.conftest import Ear, Held

NOW = datetime.now(UTC)


@pytest.mark.parametrize("state", ["scheduled", "ready"])
@pytest.mark.parametrize(
    ("shift", "expected"),
    [(60 * SECOND, JobState.SCHEDULED), (0 * SECOND, JobState.READY), (-SECOND, JobState.READY)],
)
async def test_the_time_decides_whether_the_job_is_ready(
    door: Link, store: Store, reader: Reader, state: str, shift: object, expected: JobState
):
    id = await make_job(door, state=state, priority=4, claim_no=2, attempt=1, delay_tolerance=5 * SECOND)
    run_at = NOW + shift  # type: ignore[operator]
    assert await store.reschedule(id, run_at=run_at, now=NOW) is expected
    job = await reader.get(id)
    assert (job.state, job.run_at, job.deadline_at) == (expected, run_at, run_at + 5 * SECOND)
    assert (job.priority, job.claim_no, job.attempt) == (4, 2, 1)


@pytest.mark.parametrize(
    ("state", "run_at"),
    [
        ("scheduled", NOW + 60 * SECOND),
        ("ready", NOW - SECOND),
        ("ready", NOW + SECOND),
        ("scheduled", NOW - SECOND),
    ],
)
async def test_another_priority_leaves_time_and_state_alone(
    door: Link, store: Store, reader: Reader, state: str, run_at: datetime
):
    """Also where clocks disagree: a job that was made ready stays ready."""
    id = await make_job(door, state=state, run_at=run_at)
    before = await reader.get(id)
    assert await store.reschedule(id, priority=9, now=NOW) is JobState(state)
    job = await reader.get(id)
    assert (job.priority, job.state) == (9, JobState(state))
    assert (job.run_at, job.deadline_at) == (before.run_at, before.deadline_at)


@pytest.mark.parametrize("state", ["running", "succeeded", "cancelled", "dead"])
async def test_a_job_that_does_not_wait_is_refused(door: Link, store: Store, reader: Reader, state: str):
    id = await make_job(door, state=state)
    before = await reader.get(id)
    with pytest.raises(WrongState, match=f"it is {state}"):
        await store.reschedule(id, run_at=NOW)
    assert await reader.get(id) == before


async def test_an_unknown_job_is_not_found(store: Store):
    with pytest.raises(JobNotFound):
        await store.reschedule(uuid7(), priority=1)


async def test_a_reschedule_that_loses_to_a_claim_is_refused(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door)
    await Store(held).claim(await make_worker(door), rooms={"default": 1})
    with pytest.raises(WrongState, match="it is running"):
        await held.commit_under(store.reschedule(id, run_at=NOW + 60 * SECOND))
    assert (await reader.get(id)).state is JobState.RUNNING


async def test_a_reschedule_that_waits_for_staging_still_counts(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="scheduled", run_at=NOW - SECOND)
    await Store(held).stage(batch=1)
    later = NOW + 3600 * SECOND
    assert await held.commit_under(store.reschedule(id, run_at=later)) is JobState.SCHEDULED
    assert (await reader.get(id)).run_at == later


async def test_a_job_that_becomes_ready_wakes_a_worker_that_sleeps(door: Link, store: Store, ear: Ear):
    await make_worker(door, sleeping_until=NOW + 3600 * SECOND)
    await store.reschedule(await make_job(door, state="scheduled"), run_at=NOW, now=NOW)
    assert await ear.heard() == [("jobd_wake", "default")]
