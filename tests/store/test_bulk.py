"""Many jobs by COPY: the same rows as by the function, any number of payloads, and what ends it midway."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import psycopg
import pytest
from hypothesis import given, settings

from jobd.bulk import CHUNK_JOBS, PART_JOBS, SIGNATURE, TRAILER, WHOLE_JOBS, Copying
from jobd.client import Client
from jobd.door import Database, Link
from jobd.doors import PoolDoor
from jobd.errors import CallTimeout, HandlerError, PayloadError, Refused
from jobd.events import Events
from jobd.ids import uuid7
from jobd.pool import Pool
from jobd.registry import Registry
from jobd.sync import SyncClient
from tests.factories import SECOND, make_job, make_worker, query, scalar
from tests.postgres import PostgresServer
from tests.store.conftest import Ear, Held
from tests.store.lending import psycopg_async, psycopg_blocking
from tests.store.test_payload_jsonb import same
from tests.unit.json_values import STORABLE, nested

MANY = CHUNK_JOBS + 2

OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "everything": {
        "queue": "mail", "run_at": datetime(2099, 2, 3, 4, 5, 6, 789, tzinfo=UTC), "priority": -7,
        "tenant_id": "täntchen\t\\N 🎁", "use_case": "imp\\ort\n", "delay_tolerance": "1d2h3.5s",
        "deadline_policy": "drop", "max_attempts": 3, "backoff": {"kind": "linear", "base": "90s"},
        "timeout": "1h", "tags": ["ä", 'b"\\'], "meta": {"trace": [1, None, "\\u0041"]},
    },
}  # fmt: skip


@pytest.fixture
async def lone(database_url: str) -> AsyncIterator[Client]:
    """A client with a single connection, which every call after a failure has to take again."""
    pool = Pool(Database(database_url), size=1, call_timeout=5)
    yield Client(pool, registry=Registry(), events=Events())
    await pool.close()


async def count(door: Link) -> int:
    return int(await scalar(door, "select count(*) from jobd.jobs"))


def some(many: int) -> Iterator[dict[str, int]]:
    return ({"n": n} for n in range(many))


async def waiting(many: int) -> AsyncIterator[dict[str, int]]:
    for n in range(many):
        if n % 700 == 0:
            await asyncio.sleep(0)
        yield {"n": n}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("way", ["pool", "threads", "psycopg", "asyncio psycopg", "LATIN1"])
async def test_a_copied_row_is_the_row_that_the_function_makes(
    client: Client, direct_database_url: str, door: Link, way: str, options: str
):
    given = OPTIONS[options]
    match way:
        case "pool":
            await client.enqueue_many("noop", some(MANY), **given)
        case "threads":
            sync = SyncClient(client)
            sync.enqueue_many("noop", some(MANY), **given)
            sync.close()
        case "asyncio psycopg":
            async with psycopg_async(direct_database_url) as loan:
                await loan.enqueue_many(client, "noop", some(MANY), **given)
                await loan.commit()
        case _:
            async with psycopg_blocking(direct_database_url) as loan:
                if way == "LATIN1":
                    loan.run("set client_encoding = 'LATIN1'")
                    given = {**given, "tenant_id": "täntchen", "use_case": None}
                await loan.enqueue_many(client, "noop", some(MANY), **given)
                loan.commit()
    # The first came by the function, all others by COPY.
    rows = await query(
        door,
        "select (to_jsonb(j) - 'id' - 'payload')::text as rest, count(*) as jobs,"
        " array_agg((payload->>'n')::int order by id) as payloads from jobd.jobs j group by 1",
    )
    assert len(rows) == 1, [sorted(json.loads(row["rest"]).items()) for row in rows]
    assert rows[0]["payloads"] == list(range(MANY))
    row = json.loads(rows[0]["rest"])
    assert row["queue"] == given.get("queue", "default")
    assert row["tenant_id"] == given.get("tenant_id")


async def test_every_payload_is_copied_as_it_is(client: Client, door: Link):
    values: list[Any] = [{}] * MANY
    values += [
        nested(64),
        1e308,
        5e-324,
        -0.0,
        2**63 - 1,
        "\u2028\x7f\N{GRINNING FACE}",
        "\\N",
        "\\.",
        "\t\n\\",
    ]

    @settings(max_examples=300, deadline=None, database=None)
    @given(STORABLE)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    await client.enqueue_many("noop", values)
    stored = [
        json.loads(row["payload"]) for row in await query(door, "select payload from jobd.jobs order by id")
    ]
    assert all(
        same(found, {} if value is None else value) for found, value in zip(stored, values, strict=True)
    )


async def test_payloads_may_come_asynchronously(client: Client, door: Link):
    many = WHOLE_JOBS + CHUNK_JOBS + 7
    for number in (0, 1, many):
        ids = await client.enqueue_many("noop", waiting(number))
        rows = await query(door, "delete from jobd.jobs returning id, (payload->>'n')::int as n")
        assert [row["id"] for row in sorted(rows, key=lambda row: int(row["n"]))] == list(ids)
        assert len(ids) == number


async def test_payloads_may_be_read_from_the_connection_that_takes_the_jobs(
    client: Client, direct_database_url: str, door: Link
):
    many = WHOLE_JOBS + 2 * CHUNK_JOBS
    numbers = f"select generate_series(1, {many}) as n"
    connection = await asyncpg.connect(direct_database_url)
    async with connection.transaction():
        rows = (dict(row) async for row in connection.cursor(numbers, prefetch=50))
        await client.enqueue_many("noop", rows, connection=connection)
    await connection.close()
    with psycopg.connect(direct_database_url) as blocking, blocking.cursor("rows") as cursor:
        cursor.execute(numbers)
        SyncClient(client).enqueue_many("noop", ({"n": n} for (n,) in cursor), connection=blocking)
    assert await count(door) == 2 * many


async def test_a_blocking_call_takes_no_asynchronous_payloads(client: Client):
    enqueue_many: Any = SyncClient(client).enqueue_many
    with pytest.raises(PayloadError, match="is an async iterable; use `await jobs"):
        enqueue_many("noop", waiting(3))
    with pytest.raises(PayloadError, match="is one int; give a list"):
        enqueue_many("noop", 3)


@pytest.fixture
async def obstacle(door: Link, held: Held) -> Held:
    """A job with n = 5000 that is not yet committed, where no two jobs may have the same n."""
    await query(door, "create unique index one_n on jobd.jobs ((payload->>'n'))")
    await query(held, """select jobd.enqueue('noop', '{"n": 5000}')""")
    return held


def endless(taken: list[int]) -> Iterator[dict[str, Any]]:
    for n in itertools.count():
        taken[0] = n
        yield {"n": n, "text": "x" * 1_000}


async def test_payloads_are_taken_as_they_are_sent_and_a_standstill_has_its_limit(
    database_url: str, obstacle: Held, door: Link
):
    pool = Pool(Database(database_url), size=1, call_timeout=2)
    client = Client(pool, registry=Registry(), events=Events())
    taken = [0]
    with pytest.raises(CallTimeout, match=r"copy did not end within 2 s"):
        await client.enqueue_many("noop", endless(taken))
    assert 5_000 <= taken[0] < 10_000, "the socket has no room for more"
    await obstacle.rollback()
    pool.call_timeout = 10
    await client.enqueue("noop")
    assert await count(door) == 1
    await pool.close()


async def test_a_cancelled_call_leaves_nothing_and_its_connection_usable(
    lone: Client, obstacle: Held, door: Link
):
    call = await obstacle.until_it_blocks(lone.enqueue_many("noop", endless([0])))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await obstacle.rollback()
    await lone.enqueue("noop")
    assert await count(door) == 1


async def test_a_cancelled_call_leaves_the_callers_transaction_as_it_was(
    client: Client, direct_database_url: str, obstacle: Held, door: Link
):
    connection = await asyncpg.connect(direct_database_url)
    async with connection.transaction():
        await client.enqueue("before", connection=connection)
        call = await obstacle.until_it_blocks(
            client.enqueue_many("noop", endless([0]), connection=connection)
        )
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.enqueue("after", connection=connection)
    await obstacle.rollback()
    await connection.close()
    assert await scalar(door, "select array_agg(kind order by id) from jobd.jobs") == ["before", "after"]


async def test_what_the_database_refuses_midway_ends_an_endless_stream(
    lone: Client, obstacle: Held, door: Link
):
    await obstacle.commit()
    with pytest.raises(Refused, match="duplicate key value") as caught:
        await lone.enqueue_many("noop", endless([0]))
    assert "xxx" not in str(caught.value)
    assert await count(door) == 1
    await lone.enqueue("noop")


@pytest.mark.parametrize("error", [LookupError, OSError, ValueError, TimeoutError, asyncio.CancelledError])
@pytest.mark.parametrize("at", [0, CHUNK_JOBS + 1, 3 * CHUNK_JOBS + 1])
async def test_a_failure_of_the_payloads_passes_as_it_is(
    lone: Client, door: Link, at: int, error: type[BaseException]
):
    def payloads() -> Iterator[dict[str, int]]:
        yield from some(at)
        raise error("the caller's own trouble")

    async def awaited() -> AsyncIterator[dict[str, int]]:
        for payload in payloads():
            yield payload

    for trouble in (payloads(), awaited()):
        with pytest.raises(error, match="the caller's own trouble"):
            await lone.enqueue_many("noop", trouble)
    assert await count(door) == 0
    await lone.enqueue("noop")


async def test_what_the_payloads_fail_with_is_not_shown_to_the_server(
    client: Client, direct_database_url: str, postgres: PostgresServer
):
    def payloads() -> Iterator[dict[str, int]]:
        yield from some(3 * CHUNK_JOBS)
        raise LookupError("no address for the secret guest")

    async with psycopg_async(direct_database_url) as loan:
        with pytest.raises(LookupError, match="secret guest"):
            await loan.enqueue_many(client, "noop", payloads())
        await loan.rollback()
    with pytest.raises(LookupError, match="secret guest"):
        await client.enqueue_many("noop", payloads())
    assert "the caller's iterator failed" in postgres.log()
    assert "secret guest" not in postgres.log()


@pytest.mark.parametrize("at", [0, 1, CHUNK_JOBS, 2 * CHUNK_JOBS + PART_JOBS, 30_000])
async def test_a_bad_payload_is_named_and_leaves_nothing(lone: Client, door: Link, at: int):
    payloads = [*some(at), {"n": "\0"}, {}]
    for bad in (payloads, iter(payloads)):
        with pytest.raises(PayloadError, match=rf"payload \$\[{at}\]\.n: has a NUL"):
            await lone.enqueue_many("noop", bad)
    assert await count(door) == 0


async def test_the_payloads_may_take_longer_than_a_call(database_url: str, door: Link):
    pool = Pool(Database(database_url), size=1, call_timeout=1.5)
    client = Client(pool, registry=Registry(), events=Events())

    def payloads() -> Iterator[dict[str, int]]:
        yield from some(3 * CHUNK_JOBS)
        end = time.monotonic() + 1.6
        while time.monotonic() < end:
            pass
        yield {}

    async def awaited() -> AsyncIterator[dict[str, int]]:
        for n in range(CHUNK_JOBS + 2):
            if n == CHUNK_JOBS + 1:
                await asyncio.sleep(1.6)
            yield {"n": n}

    await client.enqueue_many("noop", payloads())
    await client.enqueue_many("noop", awaited())
    assert await count(door) == 4 * CHUNK_JOBS + 3
    await pool.close()


async def test_others_on_the_loop_have_their_turns(client: Client):
    turns, ended = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not ended.is_set():
            await asyncio.sleep(0)
            turns += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(others())
        await client.enqueue_many("noop", some(20_000))
        ended.set()
    assert turns >= 20_000 // PART_JOBS - 5


async def test_a_sleeping_worker_is_woken_once(client: Client, door: Link, ear: Ear):
    await make_worker(door, queues=["default"], sleeping_until=datetime.now(UTC) + 60 * SECOND)
    await client.enqueue_many("noop", some(MANY))
    await client.enqueue_many("noop", some(MANY), delay="1h")
    assert await ear.heard() == [("jobd_wake", "default")]


async def test_a_worker_that_falls_asleep_meanwhile_is_woken(client: Client, door: Link, ear: Ear):
    async def payloads() -> AsyncIterator[dict[str, int]]:
        for n in range(3 * CHUNK_JOBS):
            if n == 2 * CHUNK_JOBS + 1:
                await make_worker(door, queues=["default"], sleeping_until=datetime.now(UTC) + 60 * SECOND)
            yield {"n": n}

    await client.enqueue_many("noop", payloads())
    assert await ear.heard() == [("jobd_wake", "default")]


async def test_a_wrong_option_is_refused_before_the_first_payload_is_sent(
    direct_database_url: str, client: Client
):
    taken = [0]
    with pytest.raises(HandlerError, match="queue"):
        await client.enqueue_many("noop", endless(taken), queue="a b")
    assert taken == [0]


async def test_rows_that_the_server_cannot_read_are_refused_without_showing_them(
    database_url: str, door: Link
):
    pool = Pool(Database(database_url), size=1, call_timeout=5)
    id = await make_job(door)
    async with PoolDoor(pool).all_or_nothing() as unit:
        head = await Copying(unit).row_head(id, own=2)
    assert head is not None
    text = b'{"secret": }'
    row = head + uuid7().bytes + (len(text) + 1).to_bytes(4, "big") + b"\x01" + text
    with pytest.raises(Refused, match="invalid input syntax for type json") as caught:
        async with PoolDoor(pool).all_or_nothing() as unit:
            await Copying(unit).copy([SIGNATURE, row, TRAILER])
    assert "secret" not in str(caught.value)
    await pool.close()
