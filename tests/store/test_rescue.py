"""rescue: running -> ready | cancelled | dead, for jobs whose worker has no row."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from jobd.door import Link
from jobd.fleet import Fleet
from jobd.job import JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import LEASE, SECOND, claim_all, make_job, make_jobs, make_worker, query, scalar
from tests.store.conftest import Ear, Held


async def test_an_orphan_is_ready_again_with_a_crash_and_without_an_attempt_burned(
    door: Link, store: Store, reader: Reader
):
    worker = uuid4()
    id = await make_job(
        door, state="running", worker_id=worker, attempt=3, claim_no=5, progress={"fraction": 0.1}
    )
    assert await store.rescue(batch=10, crash_limit=3) == {id: JobState.READY}
    job = await reader.get(id)
    assert (job.state, job.claim_no, job.attempt, job.crashes) == (JobState.READY, 6, 2, 1)
    assert (job.worker_id, job.claimed_at, job.progress) == (None, None, None)
    (error,) = job.errors
    assert (error["type"], error["attempt"]) == ("WorkerLost", 3)
    assert str(worker) in error["message"]


async def test_jobs_of_workers_that_have_a_row_are_left_alone(door: Link, store: Store, reader: Reader):
    """Also of one whose lease lapsed: it may be renewed as long as nobody took the row."""
    for lease in (LEASE, -LEASE):
        await make_job(door, state="running", worker_id=await make_worker(door, lease=lease))
    assert await store.rescue(batch=10, crash_limit=3) == {}


async def test_a_job_whose_worker_died_too_often_is_dead(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running", crashes=2, attempt=1, claim_no=5)
    assert await store.rescue(batch=10, crash_limit=3) == {id: JobState.DEAD}
    job = await reader.get(id)
    assert (job.state, job.claim_no, job.result) == (JobState.DEAD, 6, None)
    assert job.reason is not None
    assert job.reason.startswith("crashed")
    assert "3 times" in job.reason
    assert [error["type"] for error in job.errors] == ["WorkerLost"]


async def test_the_history_counts_the_last_crash_too(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running", crashes=2)
    await store.rescue(batch=10, crash_limit=3)
    assert (await reader.get(id)).crashes == 3


async def test_without_a_crash_limit_no_job_dies_of_its_workers(door: Link, store: Store):
    id = await make_job(door, state="running", crashes=1000)
    assert await store.rescue(batch=10, crash_limit=0) == {id: JobState.READY}


async def test_with_a_crash_limit_of_one_the_first_crash_is_the_last(door: Link, store: Store):
    id = await make_job(door, state="running")
    assert await store.rescue(batch=10, crash_limit=1) == {id: JobState.DEAD}


async def test_a_rescued_job_ends_cancelled_when_that_was_asked(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running", cancel_requested_at=datetime.now(UTC))
    poison = await make_job(door, state="running", crashes=2, cancel_requested_at=datetime.now(UTC))
    rescued = await store.rescue(batch=10, crash_limit=3)
    assert rescued == {id: JobState.CANCELLED, poison: JobState.CANCELLED}
    assert (await reader.get(id)).reason == "cancelled on request"


async def test_at_most_a_batch_is_rescued_at_a_time(door: Link, store: Store):
    jobs = set(await make_jobs(door, 5, state="running"))
    rescued: set[object] = set()
    for expected in (2, 2, 1, 0):
        batch = await store.rescue(batch=2, crash_limit=3)
        assert len(batch) == expected
        rescued |= set(batch)
    assert rescued == jobs


async def test_two_daemons_rescue_different_jobs_at_the_same_time(door: Link, store: Store, held: Held):
    jobs = await make_jobs(door, 4, state="running")
    first = await Store(held).rescue(batch=2, crash_limit=3)
    second = await store.rescue(batch=10, crash_limit=3)
    await held.commit()
    assert (list(first), set(second)) == (jobs[:2], set(jobs[2:]))
    assert await scalar(door, "select sum(crashes)::int from jobd.jobs") == 4


async def test_a_rescue_passes_over_a_job_that_is_being_finished(door: Link, store: Store, held: Held):
    """The writer holds the row; if it commits the job has ended, if not the next rescue finds it."""
    id = await make_job(door, state="running")
    assert await Store(held).progress(id, 1, "{}")
    assert await store.rescue(batch=10, crash_limit=3) == {}
    await held.commit()
    assert await store.rescue(batch=10, crash_limit=3) == {id: JobState.READY}


async def test_a_cancel_that_waits_for_a_rescue_ends_the_job(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running")
    await Store(held).rescue(batch=1, crash_limit=3)
    assert await held.commit_under(store.cancel(id, reason="stop")) is JobState.CANCELLED
    job = await reader.get(id)
    assert (job.state, job.reason, job.claim_no) == (JobState.CANCELLED, "stop", 2)


async def test_a_rescued_job_wakes_a_worker_that_sleeps(door: Link, store: Store, ear: Ear):
    await make_worker(door, sleeping_until=datetime.now(UTC) + 60 * SECOND)
    await make_job(door, state="running")
    await store.rescue(batch=10, crash_limit=3)
    assert await ear.heard() == [("jobd_wake", "default")]


@pytest.mark.parametrize("room", [1, 5])
async def test_a_job_that_crashed_its_worker_runs_without_neighbours_until_it_ends(
    door: Link, store: Store, room: int
):
    """Poison among innocents: after the crash they are claimed one at a time."""
    worker = await make_worker(door)
    jobs = set(await make_jobs(door, 4, state="running"))
    await store.rescue(batch=10, crash_limit=3)
    seen = set()
    for _ in jobs:
        (claim,) = await claim_all(store, worker, rooms={"default": room}, suspects=1)
        assert await claim_all(store, worker, rooms={"default": room}, suspects=0) == []
        seen.add(claim.id)
    assert seen == jobs


async def test_a_worker_that_was_reaped_and_begins_anew_does_not_get_its_old_jobs_back(
    door: Link, store: Store, fleet: Fleet
):
    worker = await make_worker(door)
    id = await make_job(door, state="running", worker_id=worker)
    await query(door, "delete from jobd.workers where id = $1", worker)
    assert await fleet.beat(worker, lease=LEASE) is None
    assert await store.rescue(batch=10, crash_limit=3) == {id: JobState.READY}


async def test_rescuers_at_the_same_time_never_take_a_job_from_the_worker_that_claimed_it_meanwhile(
    door: Link, reader: Reader
):
    """A puts a job back, a live worker claims it, and B still sees it running under the dead one."""
    links = [Link(door.database) for _ in range(4)]
    live = await make_worker(door)

    async def rescue(link: Link) -> None:
        while await Store(link).rescue(batch=20, crash_limit=0):
            pass

    async def claim(link: Link, wanted: int) -> None:
        while wanted:
            wanted -= len(await claim_all(Store(link), live, rooms={"default": 50}, suspects=50))

    try:
        for _ in range(15):
            await make_jobs(door, 60, state="running")
            rescues = [rescue(link) for link in links[1:]]
            await asyncio.gather(*rescues, claim(links[0], 60))
            wrong = "select count(*) from jobd.jobs where crashes <> 1 or state <> 'running'"
            taken = await scalar(door, wrong)
            assert taken == 0
            await query(door, "delete from jobd.jobs")
    finally:
        for link in links:
            await link.close()
