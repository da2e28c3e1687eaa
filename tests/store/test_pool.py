"""The pool: connections kept at hand between calls, which nobody waits for, misses, or finds changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from jobd import pool as jobd_pool
from jobd.door import Database, Link
from jobd.pool import Pool
from jobd.sql import Block
from tests.factories import query
from tests.signals import eventually

WHO = Block("test", (), "select pg_backend_pid() as pid, current_setting('work_mem') as memory")
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


async def test_connections_that_were_cut_while_at_hand_leave_no_gap(pool: Pool, link: Link):
    for _ in range(5):
        # A call may meet a connection of which its loop has not learned yet that it was cut.
        await asyncio.gather(pool.fetch(WHO), pool.fetch(WHO), return_exceptions=True)
        await query(link, OTHERS)

        async def gone() -> bool:
            held = await query(link, "select 1 from pg_stat_activity where application_name = 'pooled'")
            return not held

        await eventually(gone)
    async with pool.connection(), pool.connection():
        pass


async def test_what_is_not_needed_goes_back(pool: Pool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobd_pool, "KEPT_SECONDS", 0.05)
    await asyncio.gather(pool.fetch(WHO), pool.fetch(WHO))
    inner = pool._pool
    assert inner is not None

    async def idle() -> int:
        return inner.get_idle_size()

    assert await eventually(idle, until=lambda count: count == 2) == 2


async def test_a_closed_pool_leaves_nothing_behind(pool: Pool, link: Link):
    await asyncio.gather(pool.fetch(WHO), pool.fetch(WHO))
    await pool.close()

    async def left() -> int:
        return len(await query(link, "select 1 from pg_stat_activity where application_name = 'pooled'"))

    assert await eventually(left, until=lambda count: count == 0) == 0
