"""stage: scheduled -> ready for what is due, by any number of daemons; and when the next is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobd.door import Link
from jobd.job import JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_jobs, make_worker
from tests.store.conftest import Ear, Held

NOW = datetime.now(UTC)


async def test_a_job_becomes_ready_when_its_time_has_come_and_not_before(
    door: Link, store: Store, reader: Reader
):
    id = await make_job(door, state="scheduled", run_at=NOW, claim_no=2, attempt=1)
    assert await store.stage(batch=10, now=NOW - timedelta(milliseconds=1)) == 0
    assert (await reader.get(id)).state is JobState.SCHEDULED
    assert await store.stage(batch=10, now=NOW) == 1
    job = await reader.get(id)
    assert (job.state, job.run_at, job.claim_no, job.attempt) == (JobState.READY, NOW, 2, 1)


async def test_the_clock_of_the_database_counts_in_production(door: Link, store: Store):
    await make_job(door, state="scheduled", run_at=NOW - SECOND)
    await make_job(door, state="scheduled", run_at=NOW + 3600 * SECOND)
    assert await store.stage(batch=10) == 1


async def test_the_longest_due_is_staged_first_and_no_more_than_a_batch(
    door: Link, store: Store, reader: Reader
):
    jobs = [await make_job(door, state="scheduled", run_at=NOW - n * SECOND) for n in range(5)]
    assert await store.stage(batch=2, now=NOW) == 2
    ready = {job.id for job in await reader.list(state="ready")}
    assert ready == {jobs[4], jobs[3]}
    assert [await store.stage(batch=2, now=NOW) for _ in range(3)] == [2, 1, 0]


async def test_two_stagers_share_the_work(door: Link, store: Store, held: Held, reader: Reader):
    await make_jobs(door, 6, state="scheduled", run_at=NOW - SECOND)
    assert await Store(held).stage(batch=4) == 4
    assert await store.stage(batch=10) == 2
    await held.commit()
    assert len(await reader.list(state="ready")) == 6


async def test_a_staged_job_is_staged_once(door: Link, store: Store, held: Held):
    await make_job(door, state="scheduled", run_at=NOW - SECOND)
    await Store(held).stage(batch=1)
    await held.commit()
    assert await store.stage(batch=1) == 0


async def test_a_job_that_is_being_rescheduled_is_passed_over(door: Link, store: Store, held: Held):
    id = await make_job(door, state="scheduled", run_at=NOW - SECOND)
    await Store(held).reschedule(id, run_at=NOW + 3600 * SECOND)
    assert await store.stage(batch=1) == 0
    await held.commit()
    assert await store.stage(batch=1) == 0


async def test_staging_wakes_each_queue_once(door: Link, store: Store, ear: Ear):
    await make_worker(door, queues=["a", "b", "c"], sleeping_until=NOW + 3600 * SECOND)
    for queue in ("a", "a", "b", "unserved"):
        await make_job(door, state="scheduled", queue=queue, run_at=NOW - SECOND)
    assert await store.stage(batch=10) == 4
    assert sorted(await ear.heard()) == [("jobd_wake", "a"), ("jobd_wake", "b")]


async def test_staged_jobs_keep_their_priority_and_their_deadline(door: Link, store: Store):
    worker = await make_worker(door)
    later = await make_job(door, state="scheduled", run_at=NOW - SECOND)
    sooner = await make_job(door, state="scheduled", run_at=NOW - 2 * SECOND)
    urgent = await make_job(door, state="scheduled", run_at=NOW - SECOND, priority=1)
    await store.stage(batch=10)
    claims = await store.claim(worker, rooms={"default": 10})
    assert [claim.id for claim in claims] == [urgent, sooner, later]


async def test_next_due_is_the_time_until_the_earliest_scheduled_job(door: Link, store: Store):
    assert await store.next_due() is None
    await make_job(door, state="ready", run_at=NOW - 60 * SECOND)
    assert await store.next_due() is None
    await make_job(door, state="scheduled", run_at=NOW + 90 * SECOND)
    await make_job(door, state="scheduled", run_at=NOW + 30 * SECOND)
    assert await store.next_due(now=NOW) == pytest.approx(30)
    assert await store.next_due(now=NOW + 31 * SECOND) == pytest.approx(-1)
