"""Concurrency keys that handlers give their jobs: by every way into the queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from jobd import Jobs
from jobd.door import Link
from jobd.errors import Refused
from jobd.served import file_schedules
from jobd.settings import load_settings
from jobd.timetable import Timetable
from tests.factories import query, scalar


@pytest.fixture
async def jobs(database_url: str) -> AsyncIterator[Jobs]:
    jobs = Jobs(database_url)

    @jobs.handler("sync", queue="syncs", concurrency_key="user:{user_id}")
    async def sync(user_id: int, note: str = "") -> None: ...

    @jobs.handler("owned", concurrency_key="{queue}/{tenant_id}")
    async def owned() -> None: ...

    async with jobs:
        yield jobs


async def keys(door: Link) -> list[Any]:
    return [
        row["key"] for row in await query(door, "select concurrency_key as key from jobd.jobs order by id")
    ]


async def test_an_enqueue_gets_the_key_that_its_payload_makes(door: Link, jobs: Jobs):
    await jobs.enqueue("sync", {"user_id": 7})
    await jobs.enqueue("sync", {"user_id": 7}, unique_key="once")
    await jobs.enqueue("sync", {"user_id": 7}, concurrency_key="mine")
    await jobs.enqueue("owned", tenant_id="t1", queue="mail")
    assert await keys(door) == ["user:7", "user:7", "mine", "mail/t1"]


@pytest.mark.parametrize("count", [3, 1_500, 2_500])
async def test_of_many_each_gets_its_own(door: Link, jobs: Jobs, count: int):
    payloads = [{"user_id": n, "note": "\N{SNOWMAN}"} for n in range(count)]
    await jobs.enqueue_many("sync", payloads)
    assert await keys(door) == [f"user:{n}" for n in range(count)]
    assert (
        await scalar(
            door, "select count(*) from jobd.jobs where concurrency_key = 'user:' || (payload ->> 'user_id')"
        )
        == count
    )


async def test_of_many_out_of_an_asynchronous_source(door: Link, jobs: Jobs):
    async def payloads() -> AsyncIterator[dict[str, int]]:
        for n in range(2_500):
            yield {"user_id": n}

    await jobs.enqueue_many("sync", payloads())
    assert await keys(door) == [f"user:{n}" for n in range(2_500)]


@pytest.mark.parametrize("count", [2, 2_500])
async def test_a_key_that_is_given_with_many_is_the_key_of_all(door: Link, jobs: Jobs, count: int):
    await jobs.enqueue_many("sync", ({"user_id": n} for n in range(count)), concurrency_key="mine")
    await jobs.enqueue_many("other", ({"n": n} for n in range(count)), concurrency_key="theirs")
    assert await keys(door) == ["mine"] * count + ["theirs"] * count


def test_code_without_a_loop_gets_the_same(database_url: str):
    jobs = Jobs(database_url)

    @jobs.handler("sync", concurrency_key="user:{user_id}")
    def sync(user_id: int) -> None: ...

    def payloads() -> Iterator[dict[str, int]]:
        yield from ({"user_id": n} for n in range(2_500))

    try:
        one = jobs.sync.enqueue("sync", {"user_id": 7})
        many = jobs.sync.enqueue_many("sync", payloads())
        assert jobs.sync.get(one.id).concurrency_key == "user:7"
        assert jobs.sync.get(many[2_499]).concurrency_key == "user:2499"
    finally:
        jobs.sync.close()


async def test_a_schedules_jobs_have_the_key_of_its_payload(door: Link, jobs: Jobs):
    await jobs.schedules.add("hourly", "every 1h", "sync", {"user_id": 7})
    await jobs.schedules.add("mine", "every 1h", "sync", {"user_id": 7}, concurrency_key="mine")
    await jobs.schedules.trigger("hourly")
    await jobs.schedules.trigger("mine")
    assert await keys(door) == ["user:7", "mine"]
    assert (await jobs.schedules.get("hourly")).concurrency_key == "user:7"


async def test_schedules_of_code_and_file_have_it_too(door: Link, monkeypatch: pytest.MonkeyPatch):
    jobs = Jobs()

    @jobs.every("1h", payload={"user_id": 7})
    @jobs.handler("sync", concurrency_key="user:{user_id}@{queue}")
    async def sync(user_id: int) -> None: ...

    monkeypatch.setenv(
        "JOBD_SCHEDULES", '[{"id": "f", "when": "every 1h", "kind": "sync", "payload": {"user_id": 8}}]'
    )
    terms = [*jobs.declared_schedules, *file_schedules(jobs, load_settings())]
    assert [each.concurrency_key for each in terms] == ["user:7@default", "user:8@default"]
    await Timetable(door).put(terms, replace=True)
    for each in terms:
        await query(door, "select jobd.trigger_schedule($1)", each.id)
    assert await keys(door) == ["user:7@default", "user:8@default"]


async def test_in_sql_keys_come_as_an_array_and_a_schedule_has_one(door: Link):
    await query(
        door,
        "select jobd.enqueue_many('sync', array['{}', '{}']::jsonb[], concurrency_keys => array['a', null])",
    )
    await query(door, "select jobd.add_schedule('s', 'every 1h', 'sync', concurrency_key => 'b')")
    await query(door, "select jobd.trigger_schedule('s')")
    assert sorted(await keys(door), key=str) == [None, "a", "b"]
    with pytest.raises(
        Refused, match="enqueue_many got 1 concurrency_keys for 2 payloads: give as many, or none"
    ):
        await query(
            door,
            "select jobd.enqueue_many('sync', array['{}', '{}']::jsonb[], concurrency_keys => array['a'])",
        )


async def test_a_job_that_ends_and_is_retried_keeps_its_key(door: Link, jobs: Jobs):
    enqueued = await jobs.enqueue("sync", {"user_id": 7}, delay=timedelta(hours=1))
    await jobs.cancel(enqueued.id)
    await jobs.retry(enqueued.id)
    assert await keys(door) == ["user:7"]
