"""What people and tools read: single jobs, lists, queues, workers."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from jobd.door import Link
from jobd.errors import JobNotFound
from jobd.ids import uuid7
from jobd.job import JobState
from jobd.migrate import needed_version
from jobd.reader import Reader
from tests.factories import LEASE, SECOND, make_job, make_jobs, make_worker, scalar
from tests.store.conftest import Held

NOW = datetime.now(UTC)


@pytest.mark.parametrize("state", list(JobState))
async def test_a_job_is_found_wherever_it_is(door: Link, reader: Reader, state: JobState):
    id = await make_job(door, state=state.value, payload=[1], headers={"tags": ["a", "b"], "meta": {}})
    job = await reader.get(id)
    assert (job.id, job.state, job.payload, job.tags) == (id, state, [1], ["a", "b"])
    assert (job.finished_at is not None) == state.finished
    assert await reader.state_of(id) is state


async def test_a_job_without_headers_has_no_tags(door: Link, reader: Reader):
    job = await reader.get(await make_job(door))
    assert (job.headers, job.tags) == ({}, [])


async def test_an_unknown_job_is_not_found(reader: Reader):
    for question in (reader.get, reader.state_of):
        with pytest.raises(JobNotFound):
            await question(uuid7())


async def test_a_list_shows_the_newest_first_in_pages(door: Link, reader: Reader):
    jobs = [
        await make_job(door, state=state) for state in ("dead", "ready", "running", "succeeded", "scheduled")
    ]
    newest = list(reversed(jobs))
    assert [job.id for job in await reader.list()] == newest
    first = await reader.list(count=2)
    assert [job.id for job in first] == newest[:2]
    assert [job.id for job in await reader.list(count=9, before=first[-1].id)] == newest[2:]


@pytest.mark.parametrize("by", ["state", "queue", "kind", "tenant_id"])
async def test_a_list_can_be_narrowed(door: Link, reader: Reader, by: str):
    wanted = {"state": "dead", "queue": "mail", "kind": "send", "tenant_id": "t"}
    match = [await make_job(door, **{by: wanted[by]}) for _ in range(2)]
    await make_job(door)
    await make_job(door, state="succeeded")
    assert [job.id for job in await reader.list(**{by: wanted[by]})] == match[::-1]  # type: ignore[arg-type]


async def test_depths_count_live_jobs_by_queue(door: Link, reader: Reader):
    await make_jobs(door, 2, queue="a", run_at=NOW - 60 * SECOND, created_at=NOW - 30 * SECOND)
    await make_jobs(door, 3, queue="a", state="scheduled")
    await make_job(door, queue="b", state="running")
    await make_job(door, queue="c", state="dead")
    found = {depth.queue: (depth.ready, depth.scheduled, depth.running) for depth in await reader.depths()}
    assert found == {"a": (2, 3, 0), "b": (0, 0, 1)}
    ages = {depth.queue: depth.oldest_ready_seconds for depth in await reader.depths(now=NOW)}
    assert ages == {"a": pytest.approx(30), "b": None}


async def test_workers_are_listed_with_what_they_run(door: Link, reader: Reader):
    alive = await make_worker(door, started_at=NOW - SECOND)
    lapsed = await make_worker(door, lease=-LEASE)
    await make_jobs(door, 2, state="running", worker_id=alive)
    await make_job(door, state="running")
    found = [(worker.id, worker.alive, worker.running) for worker in await reader.workers()]
    assert found == [(alive, True, 2), (lapsed, False, 0)]


async def test_the_end_of_a_transaction_can_be_asked_for(door: Link, reader: Reader, held: Held):
    for end in (held.commit, held.rollback):
        xid = await scalar(held, "select pg_current_xact_id()::text")
        assert await reader.transaction_status(xid) == "in progress"
        await end()
        expected = "committed" if end == held.commit else "aborted"
        assert await reader.transaction_status(xid) == expected


async def test_the_version_of_the_schema_is_told(reader: Reader):
    assert await reader.schema_version() == needed_version()


async def test_a_worker_of_a_job_that_is_gone_is_no_error(door: Link, reader: Reader):
    job = await reader.get(await make_job(door, state="succeeded", worker_id=uuid4()))
    assert job.worker_id is not None
