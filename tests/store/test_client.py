"""Enqueueing on the client's own pool: what is filled in and refused, repeats, and many jobs as a unit."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from jobd.bulk import CHUNK_CHARACTERS, CHUNK_JOBS
from jobd.client import Client
from jobd.door import Database, Link
from jobd.errors import (
    CallTimeout,
    ConfigError,
    HandlerError,
    IdTaken,
    PayloadError,
)
from jobd.events import Events, JobEnqueued
from jobd.ids import IdSequence, uuid7
from jobd.job import JobState
from jobd.pool import Pool
from jobd.registry import Registry
from tests.factories import SECOND, query, scalar
from tests.store.conftest import Held


class Picture(BaseModel):
    key: str
    size: int = 100


@dataclass
class Jobs:
    """A client and what it was made of."""

    client: Client
    registry: Registry
    events: list[JobEnqueued]


@pytest.fixture
async def jobs(database_url: str) -> AsyncIterator[Jobs]:
    pool = Pool(Database(database_url), size=4, call_timeout=5)
    registry, events, told = Registry(), Events(), list[JobEnqueued]()
    events.subscribe(JobEnqueued, told.append)
    client = Client(pool, registry=registry, events=events, max_payload=1_000_000, rng=random.Random(1))
    yield Jobs(client, registry, told)
    await pool.close()


@pytest.fixture
def client(jobs: Jobs) -> Client:
    return jobs.client


async def count(door: Link) -> int:
    return int(await scalar(door, "select count(*) from jobd.jobs"))


async def test_a_kind_without_a_handler_here_is_enqueued_all_the_same(jobs: Jobs):
    enqueued = await jobs.client.enqueue("elsewhere", {"a": [1]})
    job = await jobs.client.get(enqueued.id)
    assert (job.kind, job.queue, job.payload, job.state) == (
        "elsewhere",
        "default",
        {"a": [1]},
        JobState.READY,
    )
    assert jobs.events == [JobEnqueued("elsewhere", "default", 1)]


async def test_a_handler_names_the_queue_and_may_be_given_as_its_function(jobs: Jobs):
    @jobs.registry.handler("resize", queue="images")
    async def resize(payload: Picture) -> None: ...

    for kind in (resize, "resize", jobs.registry.get("resize")):
        assert kind is not None
        enqueued = await jobs.client.enqueue(kind, Picture(key="a.png"))
        job = await jobs.client.get(enqueued.id)
        assert (job.kind, job.queue, job.payload) == ("resize", "images", {"key": "a.png", "size": 100})
    enqueued = await jobs.client.enqueue(resize, {"key": "b.png"}, queue="slow")
    assert (await jobs.client.get(enqueued.id)).queue == "slow"


async def test_a_payload_that_the_handler_cannot_take_is_refused(jobs: Jobs, door: Link):
    @jobs.registry.handler("resize")
    async def resize(payload: Picture) -> None: ...

    with pytest.raises(PayloadError, match="key") as caught:
        await jobs.client.enqueue(resize, {"kee": "a.png"})
    assert caught.value.path.startswith("$")
    with pytest.raises(PayloadError, match=r"payload \$\[1\]\.size"):
        await jobs.client.enqueue_many(resize, [{"key": "a"}, {"key": "b", "size": "large"}])
    assert await count(door) == 0
    assert jobs.events == []


async def test_a_function_that_is_no_handler_is_refused(client: Client):
    async def stranger() -> None: ...

    with pytest.raises(HandlerError, match="stranger is no handler of these jobs"):
        await client.enqueue(stranger)
    with pytest.raises(HandlerError, match="'no such name!' is no valid name"):
        await client.enqueue("no such name!")


async def test_options_are_checked_before_anything_is_sent(client: Client, door: Link):
    with pytest.raises(ConfigError, match=r"run_at = .* time zone"):
        await client.enqueue("noop", run_at=datetime(2031, 1, 1))
    with pytest.raises(TypeError, match=r"enqueue\(\) got an unexpected keyword argument 'quue'"):
        await client.enqueue("noop", quue="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'id' \(it belongs to one job: use enqueue\)"):
        await client.enqueue_many("noop", [{}], id=uuid7())  # type: ignore[call-arg]
    assert await count(door) == 0


async def test_a_delay_counts_from_the_databases_clock(client: Client, door: Link):
    enqueued = await client.enqueue("noop", delay="1h30m", delay_tolerance=60)
    job = await client.get(enqueued.id)
    assert job.run_at == job.created_at + timedelta(hours=1, minutes=30)
    assert job.deadline_at == job.run_at + 60 * SECOND
    assert job.state == JobState.SCHEDULED


async def test_an_enqueue_may_be_repeated_with_its_id(client: Client, door: Link):
    id = uuid7()
    first = await client.enqueue("noop", id=id)
    again = await client.enqueue("noop", id=str(id))
    assert (first.id, first.created) == (again.id, again.duplicate) == (id, True)
    with pytest.raises(IdTaken):
        await client.enqueue("other", id=id)


async def test_a_unique_key_names_the_job_that_stands_for_the_new_one(jobs: Jobs):
    first = await jobs.client.enqueue("noop", {"n": 1}, unique_key="k", tenant_id="a")
    second = await jobs.client.enqueue("noop", {"n": 2}, unique_key="k", tenant_id="a")
    other = await jobs.client.enqueue("noop", {"n": 3}, unique_key="k", tenant_id="b")
    assert (second.id, second.duplicate, other.duplicate) == (first.id, True, False)
    assert len(jobs.events) == 2, "a duplicate is no new job"


async def test_many_jobs_keep_the_order_of_their_payloads(jobs: Jobs, door: Link):
    many = 3 * CHUNK_JOBS + 7
    ids = await jobs.client.enqueue_many(
        "noop", ({"n": n} for n in range(many)), tenant_id="t1", queue="bulk"
    )
    assert isinstance(ids, IdSequence)
    rows = await query(door, "select id from jobd.jobs order by (payload->>'n')::int")
    assert [row["id"] for row in rows] == list(ids) == sorted(ids)
    assert jobs.events == [JobEnqueued("noop", "bulk", many)]


async def test_many_jobs_are_all_or_nothing(jobs: Jobs, door: Link):
    def payloads() -> Iterator[Any]:
        yield from ({} for _ in range(2 * CHUNK_JOBS))
        raise OSError("the file of payloads is gone")

    with pytest.raises(OSError, match="the file of payloads is gone"):
        await jobs.client.enqueue_many("noop", payloads())
    with pytest.raises(PayloadError, match=r"\$\[1000\]"):
        await jobs.client.enqueue_many("noop", [*({} for _ in range(CHUNK_JOBS)), {"x": float("nan")}])
    assert await count(door) == 0
    assert jobs.events == []
    await jobs.client.enqueue("noop")


@pytest.mark.parametrize("payload", [{"n": 1}, "n", b"n"])
async def test_one_payload_is_not_taken_for_many(client: Client, payload: Any):
    with pytest.raises(PayloadError, match="give a list of payloads, or use enqueue"):
        await client.enqueue_many("noop", payload)


async def test_many_jobs_may_be_none(jobs: Jobs):
    assert len(await jobs.client.enqueue_many("noop", [])) == 0
    assert jobs.events == []


async def test_large_payloads_are_sent_in_small_portions(client: Client, door: Link):
    await client.enqueue_many("noop", ("x" * (CHUNK_CHARACTERS // 8) for _ in range(24)))
    assert await count(door) == 24


async def test_a_call_that_has_to_wait_ends_within_its_limit(database_url: str, held: Held):
    pool = Pool(Database(database_url), size=1, call_timeout=10)
    client = Client(pool, registry=Registry(), events=Events())
    await client.enqueue("noop", unique_key="a")
    await query(held, "select jobd.enqueue('noop', unique_key => 'b')")
    pool.call_timeout = 2
    with pytest.raises(CallTimeout, match=r"enqueue did not end within 2 s"):
        await client.enqueue("noop", unique_key="b")
    await query(held, "lock table jobd.jobs in share row exclusive mode")
    with pytest.raises(CallTimeout, match="enqueue_many did not end"):
        await client.enqueue_many("noop", ({} for _ in range(2 * CHUNK_JOBS)))
    async with pool.connection():
        with pytest.raises(CallTimeout, match="connect did not end"):
            await client.enqueue_many("noop", ({} for _ in range(2 * CHUNK_JOBS)))
    await held.rollback()
    pool.call_timeout = 10
    assert len(await client.list()) == 1
    await pool.close()
