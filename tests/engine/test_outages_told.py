"""That the database is back is told when it is, and not by a role that had nothing to ask it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from jobd.door import Database, Link
from jobd.engine.leader import Leader
from jobd.engine.lease import Lease
from jobd.engine.scheduler import Scheduler
from jobd.events import DatabaseBack, DatabaseLost, Events
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.store import Store
from jobd.timetable import Timetable
from tests.daemon.outage import outage, prepare
from tests.postgres import PostgresServer
from tests.signals import eventually, expect


@pytest.fixture
async def away(own_postgres: PostgresServer) -> AsyncIterator[Link]:
    link = Link(Database(prepare(own_postgres)))
    yield link
    await link.close()


@asynccontextmanager
async def at_work(role: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    working = asyncio.ensure_future(role)
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait({working})


async def test_a_scheduler_that_follows_by_now_tells_it_when_it_is(own_postgres: PostgresServer, away: Link):
    term, asked = 1, 0

    def current() -> int | None:
        nonlocal asked
        asked += 1
        return term or None

    async def cancel(_: object) -> None: ...

    events, lost, back = Events(), list[DatabaseLost](), list[DatabaseBack]()
    events.subscribe(DatabaseLost, lost.append)
    events.subscribe(DatabaseBack, back.append)
    scheduler = Scheduler(
        Timetable(away),
        declared={},
        lead="jobd",
        worker_id=uuid7,
        term=current,
        cancel=cancel,
        events=events,
        rng=random.Random(1),
    )
    async with at_work(scheduler.run()):
        await eventually(lambda: asked > 0)
        async with outage(own_postgres, seconds=0):
            scheduler.wake()
            # Its first look may have met the end of the server before this.
            await eventually(lambda: lost)
            term, asked = 0, 0
            await eventually(lambda: asked > 2)
            assert (back, scheduler.problem is None) == ([], False)
        await eventually(lambda: back)
        await eventually(lambda: scheduler.problem is None)


async def test_a_leader_without_a_lease_leaves_it_to_the_first_election(
    own_postgres: PostgresServer, away: Link
):
    class Counted(Lease):
        asked = 0

        @property
        def valid(self) -> bool:
            self.asked += 1
            return super().valid

    lease, events, back = Counted(period=timedelta(seconds=30)), Events(), list[DatabaseBack]()
    events.subscribe(DatabaseBack, back.append)
    leader = Leader(
        Store(away),
        Fleet(away),
        Timetable(away),
        lease=lease,
        history_retention=timedelta(days=14),
        schedule_history=timedelta(days=90),
        drop_partition=None,  # type: ignore[arg-type]
        events=events,
        rng=random.Random(2),
    )
    lease.confirm(time.monotonic())
    async with AsyncExitStack() as stack:
        async with outage(own_postgres, seconds=0):
            async with expect(events, DatabaseLost):
                await stack.enter_async_context(at_work(leader.run()))
            lease.confirm(time.monotonic() - 60)
            lease.asked = 0
            await eventually(lambda: lease.asked > 2)
            assert (back, leader.problem is None) == ([], False)
        lease.confirm(time.monotonic())
        await eventually(lambda: back)
        await eventually(lambda: leader.problem is None)
