"""Waiting for jobs, and changing their course: the calls about a job that exists already."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from jobd.client import Client
from jobd.door import Database, Link
from jobd.errors import ConfigError, DatabaseUnavailable, JobNotFound, UniqueKeyTaken, WaitTimeout, WrongState
from jobd.events import Events
from jobd.job import FinishedRun, JobState
from jobd.pool import Pool
from jobd.registry import Registry
from jobd.store import Store
from tests.factories import make_job, make_jobs
from tests.postgres import PostgresServer


async def test_waiting_ends_with_the_job(client: Client, door: Link):
    id = await make_job(door, state="running", claim_no=1)
    waiting = asyncio.create_task(client.wait(str(id)))
    done = FinishedRun(id=id, claim_no=1, state=JobState.SUCCEEDED, result='{"ok": true}')
    await Store(door).succeed([done])
    job = await waiting
    assert (job.id, job.state, job.result) == (id, JobState.SUCCEEDED, {"ok": True})


async def test_waiting_ends_with_its_time(client: Client, door: Link):
    id = await make_job(door)
    with pytest.raises(WaitTimeout, match=r"is still ready after 0\.05 s") as caught:
        await client.wait(id, timeout="50ms")
    assert isinstance(caught.value, TimeoutError)
    finished = await make_job(door, state="dead")
    assert (await client.wait(finished, timeout=0)).state == JobState.DEAD


class Watched:
    """The pool's door with its pauses noted, and none of them waited for."""

    def __init__(self, client: Client) -> None:
        self._door = client._door
        self.all_or_nothing = self._door.all_or_nothing
        self.fetch = self._door.fetch
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self._door.sleep(0)


async def test_waiting_looks_often_at_first_and_seldom_later(client: Client, door: Link):
    watched = Watched(client)
    id = await make_job(door)
    seconds = iter(range(40))
    watching = Client(
        client.pool, registry=Registry(), events=Events(), clock=lambda: next(seconds), rng=random.Random(7)
    ).through(watched)
    with pytest.raises(WaitTimeout):
        await watching.wait(id, timeout=30)
    assert 0.01 <= watched.pauses[0] <= 0.02
    assert all(0.25 <= pause <= 0.5 for pause in watched.pauses[10:])
    assert len(set(watched.pauses)) == len(watched.pauses)


async def test_waiting_outlives_an_outage(own_postgres: PostgresServer):
    own_postgres.execute("create database jobs")
    await asyncio.to_thread(own_postgres.migrate, "jobs")
    pool = Pool(Database(own_postgres.dsn("jobs")), size=1, call_timeout=10)
    client = Client(pool, registry=Registry(), events=Events())
    enqueued = await client.enqueue("noop")
    await asyncio.to_thread(own_postgres.stop, "immediate")
    waiting = asyncio.create_task(client.wait(enqueued.id, timeout=30))
    with pytest.raises(WaitTimeout, match="is still in an unknown state"):
        await client.wait(enqueued.id, timeout=0.05)
    with pytest.raises(DatabaseUnavailable):
        await client.get(enqueued.id)
    await asyncio.to_thread(own_postgres.start)
    await client.cancel(enqueued.id)
    assert (await waiting).state == JobState.CANCELLED
    await pool.close()


async def test_what_does_not_exist_is_not_found(client: Client):
    nobody = uuid4()
    for call in (client.get, client.wait, client.cancel, client.retry, client.run_now, client.delete):
        with pytest.raises(JobNotFound, match=str(nobody)):
            await call(nobody)
        with pytest.raises(ConfigError, match="id = 'x': is no UUID"):
            await call("x")


async def test_a_waiting_job_is_cancelled_and_a_running_one_asked(client: Client, door: Link):
    waiting = await make_job(door)
    assert await client.cancel(waiting, "not \0 wanted") == JobState.CANCELLED
    assert (await client.get(waiting)).reason == "not ␀ wanted"
    assert await client.cancel(await make_job(door, state="scheduled")) == JobState.CANCELLED
    running = await make_job(door, state="running")
    assert await client.cancel(running) == JobState.RUNNING
    assert (await client.get(running)).cancel_requested_at is not None
    with pytest.raises(WrongState, match="it is cancelled"):
        await client.cancel(waiting)


async def test_a_finished_job_is_retried_unless_its_key_is_taken(client: Client, door: Link):
    id = await make_job(door, state="dead", unique_key="k", attempt=10)
    assert await client.retry(id) == JobState.READY
    job = await client.get(id)
    assert (job.generation, job.attempt, job.state) == (1, 0, JobState.READY)
    with pytest.raises(WrongState, match="it is ready"):
        await client.retry(id)
    late = await make_job(door, state="cancelled", unique_key="k")
    with pytest.raises(UniqueKeyTaken) as caught:
        await client.retry(late)
    assert caught.value.holder == id


async def test_a_waiting_job_gets_another_time_and_priority(client: Client, door: Link):
    id = await make_job(door)
    at = datetime.now(UTC) + timedelta(days=2)
    assert await client.reschedule(id, run_at=at, priority=9) == JobState.SCHEDULED
    job = await client.get(id)
    assert (job.run_at, job.priority) == (at, 9)
    assert await client.reschedule(id, priority=-1) == JobState.SCHEDULED
    assert await client.run_now(id) == JobState.READY
    assert (await client.get(id)).priority == -1
    with pytest.raises(ConfigError, match="run_at, priority, or both"):
        await client.reschedule(id)
    with pytest.raises(ConfigError, match="time zone"):
        await client.reschedule(id, run_at=datetime(2031, 1, 1))


async def test_a_deleted_job_leaves_no_trace(client: Client, door: Link):
    ids = [await make_job(door), await make_job(door, state="succeeded")]
    for id in ids:
        await client.delete(id)
        with pytest.raises(JobNotFound):
            await client.get(id)
    with pytest.raises(WrongState, match="cancel it first"):
        await client.delete(await make_job(door, state="running"))


async def test_jobs_are_listed_by_what_they_are_page_by_page(client: Client, door: Link):
    ids = await make_jobs(door, 5, queue="a", tenant_id="t")
    await make_job(door, state="dead", queue="b")
    first = await client.list(queue="a", tenant_id="t", count=3)
    rest = await client.list(queue="a", tenant_id="t", count=3, before=str(first[-1].id))
    assert [job.id for job in first + rest] == ids[::-1]
    assert [job.queue for job in await client.list(state=JobState.DEAD)] == ["b"]
    assert [job.queue for job in await client.list(state="dead", kind="noop")] == ["b"]
    with pytest.raises(ConfigError, match="must be one of scheduled, ready"):
        await client.list(state="pending")
