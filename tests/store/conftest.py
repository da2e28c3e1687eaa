"""Fixtures of the statements' tests.

door                  one connection of the database under test; its jobs are consistent at the end
store, fleet, reader  on that connection
crowd                 four more
client                on a pool of its own, with no handlers
held                  a second connection, inside a transaction that stays open until told
ear                   a third one, that listens
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import asyncpg
import pytest

from jobd.client import Client
from jobd.door import Database, Link, Record
from jobd.events import Events
from jobd.fleet import Fleet
from jobd.pool import Pool
from jobd.reader import Reader
from jobd.registry import Registry
from jobd.sql import Block
from jobd.store import Store
from tests.factories import assert_consistent
from tests.signals import eventually

T = TypeVar("T")


@pytest.fixture
async def door(database_url: str) -> AsyncIterator[Link]:
    link = Link(Database(database_url))
    yield link
    await assert_consistent(link)
    await link.close()


@pytest.fixture
def store(door: Link) -> Store:
    return Store(door)


@pytest.fixture
def fleet(door: Link) -> Fleet:
    return Fleet(door)


@pytest.fixture
def reader(door: Link) -> Reader:
    return Reader(door)


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Client]:
    pool = Pool(Database(database_url), size=4, call_timeout=5)
    yield Client(pool, registry=Registry(), events=Events())
    await pool.close()


@pytest.fixture
async def crowd(database_url: str) -> AsyncIterator[list[Link]]:
    links = [Link(Database(database_url)) for _ in range(4)]
    yield links
    for link in links:
        await link.close()


class Held:
    """A session whose transaction stays open: what it did is locked, and nobody sees it yet.

    It executes blocks, so `Store(held)` and `Fleet(held)` work.
    """

    def __init__(self, session: asyncpg.Connection[Record], observer: asyncpg.Connection[Record]) -> None:
        self._session = session
        self._observer = observer

    async def fetch(self, block: Block, *args: Any) -> list[Record]:
        if not self._session.is_in_transaction():
            await self._session.execute("begin")
        return await self._session.fetch(block.text, *args)

    async def commit(self) -> None:
        await self._session.execute("commit")

    async def rollback(self) -> None:
        await self._session.execute("rollback")

    async def until_it_blocks(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin `call` and return once it waits for a lock of this transaction."""
        task = asyncio.create_task(call)
        waiting = "select count(*) from pg_stat_activity where $1 = any (pg_blocking_pids(pid))"
        pid = self._session.get_server_pid()
        await eventually(
            lambda: self._observer.fetchval(waiting, pid), until=lambda count: count or task.done()
        )
        assert not task.done(), f"did not wait for the lock: {task}"
        return task

    async def commit_under(self, call: Coroutine[Any, Any, T]) -> T:
        """What `call` returns when this transaction commits while the call waits for its lock."""
        task = await self.until_it_blocks(call)
        await self.commit()
        return await task


@pytest.fixture
async def held(direct_database_url: str) -> AsyncIterator[Held]:
    session = await asyncpg.connect(direct_database_url)
    observer = await asyncpg.connect(direct_database_url)
    yield Held(session, observer)
    await session.close()
    await observer.close()


class Ear:
    """Hears what is notified on jobd's channels."""

    def __init__(self, session: asyncpg.Connection[Record]) -> None:
        self._session = session
        self._heard: list[tuple[str, str]] = []
        self._end = asyncio.Event()

    def _hear(self, _session: object, _pid: int, channel: str, payload: object) -> None:
        if payload == "the end":
            self._end.set()
        else:
            self._heard.append((channel, str(payload)))

    async def listen(self) -> None:
        for channel in ("jobd_wake", "jobd_cancel"):
            await self._session.add_listener(channel, self._hear)

    async def heard(self) -> list[tuple[str, str]]:
        """Channel and payload of all that was committed up to now: notifications keep that order."""
        await self._session.execute("select pg_notify('jobd_wake', 'the end')")
        async with asyncio.timeout(10):
            await self._end.wait()
        return self._heard


@pytest.fixture
async def ear(direct_database_url: str) -> AsyncIterator[Ear]:
    session = await asyncpg.connect(direct_database_url)
    ear = Ear(session)
    await ear.listen()
    yield ear
    await session.reset()
    await session.close()
