"""The pool: connections kept at hand between calls, which nobody waits for, misses, or finds changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from jobd import pool as jobd_pool
from jobd.door import Database, Link
from jobd.errors import DatabaseUnavailable, Refused
from jobd.pool import Pool
from jobd.sql import Block
from tests.factories import query
from tests.signals import eventually

WHO = Block("test", (), "select pg_backend_pid() as pid, current_setting('work_mem') as memory")
LOCK = Block("test", (), "select pg_advisory_lock(1)")
STANDBY = Block("test", (), "do $$ begin raise sqlstate '25006'; end $$")
OTHERS = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where datname = current_database() and application_name = 'pooled' and pid <> pg_backend_pid()"
)


@pytest.fixture
async def pool(direct_database_url: str) -> AsyncIterator[Pool]:
    pool = Pool(Database(direct_database_url, application="pooled"), size=2, call_timeout=10)
    yield pool
    await pool.close()


@pytest.fixture
async def link(direct_database_url: str) -> AsyncIterator[Link]:
    link = Link(Database(direct_database_url))
    yield link
    await link.close()


def idle(pool: Pool) -> int:
    """How many connections are not at hand, though open."""
    assert pool._pool is not None
    return pool._pool.get_idle_size()


async def test_calls_one_after_the_other_use_one_connection(pool: Pool):
    assert len({(await pool.fetch(WHO))[0]["pid"] for _ in range(10)}) == 1


async def test_what_a_borrower_set_is_undone_though_calls_had_the_connection_before(pool: Pool):
    ((pid, memory),) = await pool.fetch(WHO)
    async with pool.connection() as connection:
        assert connection.get_server_pid() == pid
        await connection.execute("set work_mem = '77MB'")
    ((_, after),) = await pool.fetch(WHO)
    assert after == memory != "77MB"


async def test_borrowers_and_calls_take_turns(pool: Pool):
    async def borrow() -> None:
        async with pool.connection() as connection:
            await connection.fetchval("select 1")

    async def call() -> None:
        await pool.fetch(WHO)

    await asyncio.gather(*(work() for _ in range(50) for work in (borrow, call)))


async def test_a_borrower_that_waits_gets_the_next_connection(pool: Pool):
    async with pool.connection(), pool.connection():
        calls = [asyncio.create_task(pool.fetch(WHO)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(call.done() for call in calls)
    await asyncio.gather(*calls)


async def test_connections_that_were_cut_while_at_hand_are_missed_by_nobody(pool: Pool, link: Link):
    def known() -> bool:
        return idle(pool) == 0 and all(jobd_pool._is_lost(lease) for lease in pool._kept)

    for _ in range(5):
        await asyncio.gather(pool.fetch(WHO), pool.fetch(WHO))
        await query(link, OTHERS)
        await eventually(known)
    async with pool.connection() as one, pool.connection() as other:
        assert await one.fetchval("select 1") == await other.fetchval("select 1") == 1


async def test_a_call_that_fails_costs_no_connection(pool: Pool):
    for _ in range(pool.size):
        with pytest.raises(Refused):
            await pool.fetch(Block("test", (), "select 1 / 0"))
    await pool.fetch(WHO)


@pytest.mark.parametrize("own", [True, False])
async def test_who_meets_a_standby_uses_no_connection_of_before(pool: Pool, own: bool):
    async def pids() -> set[int]:
        return {rows[0]["pid"] for rows in await asyncio.gather(pool.fetch(WHO), pool.fetch(WHO))}

    before = await pids()
    assert len(before) == 2
    with pytest.raises((DatabaseUnavailable, asyncpg.ReadOnlySQLTransactionError)):
        if own:
            async with pool.connection() as connection:
                await connection.execute(STANDBY.text)
        else:
            await pool.fetch(STANDBY)
    assert not await pids() & before


async def test_what_is_not_needed_goes_back(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobd_pool, "KEPT_SECONDS", 0.05)
    for _ in range(2):
        await asyncio.gather(pool.fetch(WHO), pool.fetch(WHO))
        assert await eventually(lambda: idle(pool), until=lambda count: count == 2) == 2


async def test_what_was_needed_since_the_last_look_stays_at_hand(pool: Pool):
    async with pool.connection(), pool.connection():
        pass
    await asyncio.gather(pool.fetch(WHO), pool.fetch(WHO))
    pool._look_later()
    assert len({(await pool.fetch(WHO))[0]["pid"] for _ in range(10)}) == 1
    # One of the two was used all the time, the other never.
    pool._look_at_kept()
    assert await eventually(lambda: idle(pool)) == 1
    await pool.fetch(WHO)
    pool._look_at_kept()
    await asyncio.gather(*pool._returning)
    assert (idle(pool), len(pool._kept)) == (1, 1)


async def test_a_closed_pool_leaves_nothing_behind(pool: Pool, link: Link):
    await asyncio.gather(pool.fetch(WHO), pool.fetch(WHO))
    await pool.close()
    assert pool._kept == []

    async def left() -> int:
        return len(await query(link, "select 1 from pg_stat_activity where application_name = 'pooled'"))

    assert await eventually(left, until=lambda count: count == 0) == 0


async def test_a_call_that_ends_while_the_pool_is_closed_keeps_no_connection(pool: Pool, link: Link):
    await query(link, "select pg_advisory_lock(1)")
    call = asyncio.create_task(pool.fetch(LOCK))
    await eventually(lambda: query(link, "select 1 from pg_locks where not granted"))
    closing = asyncio.create_task(pool.close())
    await eventually(lambda: pool._pool is None)
    await query(link, "select pg_advisory_unlock(1)")
    await asyncio.gather(call, closing)
    assert pool._kept == []
