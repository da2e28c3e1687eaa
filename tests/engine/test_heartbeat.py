"""The lease is kept, what runs is compared with what is held, and handlers stop when it cannot be kept."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from jobd.door import Database, Link
from jobd.engine.heartbeat import Heartbeat
from jobd.engine.holdings import Holdings, Run, Stop
from jobd.engine.lease import Lease
from jobd.events import Events, LeaseLost, LeaseRenewed
from jobd.fleet import Fleet, Registration
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import claimed, make_job, query, scalar
from tests.signals import eventually, expect


class Clock:
    """Seconds that pass when told; it counts who looks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now

    async def looked_at(self) -> None:
        """Wait until whoever looks again and again did so from now on."""
        before = self.looks
        await eventually(lambda: self.looks > before + 4)


class Body:
    """A heartbeat on a connection of its own, and what it asked for."""

    def __init__(
        self,
        database_url: str,
        *,
        period: float = 3.0,
        beat: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link = Link(Database(database_url))
        self.events = Events()
        self.holdings = Holdings()
        self.lease = Lease(period=timedelta(seconds=period), clock=clock)
        self.stopped: list[tuple[Run, Stop]] = []
        self.stopped_all: list[Stop] = []
        self.lapses: list[float] = []
        self.confirmed = 0
        self.declared = 0
        self.running = True
        self.heartbeat = Heartbeat(
            Store(self.link),
            Fleet(self.link),
            declare=self._on_declare,
            process=Registration(
                worker_id=self.lease.worker_id, host="here", pid=1, version="0", queues=("default",),
                kinds=("noop",), roles=("worker",), concurrency=5, keeps=("all",),
            ),
            lease=self.lease,
            beat=timedelta(seconds=beat),
            holdings=self.holdings,
            events=self.events,
            rng=random.Random(5),
            stop_run=lambda run, why: self.stopped.append((run, why)),
            stop_all=self.stopped_all.append,
            handlers_running=lambda: self.running,
            on_confirmed=self._on_confirmed,
            on_lapse=lambda: self.lapses.append(time.monotonic()),
        )  # fmt: skip

    async def _on_declare(self) -> None:
        self.declared += 1

    def _on_confirmed(self) -> None:
        self.confirmed += 1

    def hold(self, id, claim_no: int = 1) -> Run:
        run = Run(claimed(id=id, claim_no=claim_no))
        self.holdings.add(run)
        return run

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        async with expect(self.events, LeaseRenewed):
            tasks = {
                asyncio.ensure_future(self.heartbeat.run()),
                asyncio.ensure_future(self.heartbeat.watch()),
            }
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.fixture
async def body(database_url: str) -> AsyncIterator[Body]:
    body = Body(database_url)
    yield body
    await body.link.close()


async def test_it_registers_beats_and_resigns(body: Body, link: Link):
    async with body.beating():
        assert body.lease.valid
        assert body.confirmed == 1
        before = await scalar(link, "select lease_until from jobd.workers")
        # The first may tell of a beat that was seen already.
        async with expect(body.events, LeaseRenewed, count=2):
            pass
        assert await scalar(link, "select lease_until from jobd.workers") > before
    await body.heartbeat.resign()
    assert await scalar(link, "select count(*) from jobd.workers") == 0


async def test_resigning_gives_back_what_still_runs(body: Body, link: Link):
    async with body.beating():
        id = await make_job(link, state="running", worker_id=body.lease.worker_id)
        body.hold(id)
    await body.heartbeat.resign()
    row = await Reader(link).get(id)
    assert (row.state, row.attempt, row.claim_no) == ("ready", 0, 2)


async def test_taken_for_dead_it_stops_everything_and_begins_again_as_somebody_else(body: Body, link: Link):
    async with body.beating():
        before = body.lease.worker_id
        async with expect(body.events, LeaseLost):
            await query(link, "delete from jobd.workers")
        async with expect(body.events, LeaseRenewed, count=2):
            pass
        assert body.stopped_all == [Stop.LOST]
        assert body.lease.worker_id != before
        assert await scalar(link, "select id from jobd.workers") == body.lease.worker_id
        assert body.lease.valid


async def test_a_claim_that_nobody_holds_goes_back_unburned(body: Body, link: Link):
    async with body.beating():
        id = await make_job(link, state="running", worker_id=body.lease.worker_id)
        held = await make_job(link, state="running", worker_id=body.lease.worker_id)
        body.hold(held)
        await eventually(lambda: query(link, "select from jobd.jobs where state = 'ready'"))
        row = await Reader(link).get(id)
        assert (row.state, row.attempt, row.crashes, row.claim_no) == ("ready", 0, 0, 2)
        assert (await Reader(link).get(held)).state == "running"


async def test_beats_in_a_hurry_give_no_claim_back_whose_answer_may_be_on_its_way(
    database_url: str, link: Link
):
    body = Body(database_url, period=60.0, beat=20.0)
    async with body.beating():
        id = await make_job(link, state="running", worker_id=body.lease.worker_id)
        for _ in range(4):
            async with expect(body.events, LeaseRenewed):
                body.heartbeat.hurry()
        assert await scalar(link, "select state from jobd.jobs where id = $1", id) == "running"
    await body.link.close()


async def test_a_run_whose_claim_is_gone_is_stopped(body: Body, link: Link):
    async with body.beating():
        id = await make_job(link, state="running", worker_id=body.lease.worker_id, claim_no=3)
        stale = body.hold(id, claim_no=1)
        fine_id = await make_job(link, state="running", worker_id=body.lease.worker_id)
        body.hold(fine_id)

        async def stopped() -> bool:
            return bool(body.stopped)

        await eventually(stopped)
        assert {(run, why) for run, why in body.stopped} == {(stale, Stop.LOST)}


async def test_a_run_that_waits_for_its_end_to_be_written_is_not_stopped(body: Body, link: Link):
    async with body.beating():
        run = body.hold(await make_job(link, state="succeeded"))
        run.closed = True
        recorded = body.hold(await make_job(link, state="succeeded"))
        recorded.recorded = True
        async with expect(body.events, LeaseRenewed, count=4):
            pass
        assert body.stopped == []


async def test_a_cancel_request_is_seen_at_the_next_beat(body: Body, link: Link):
    async with body.beating():
        id = await make_job(link, state="running", worker_id=body.lease.worker_id)
        run = body.hold(id)
        await Store(link).cancel(id, reason="")

        async def stopped() -> bool:
            return bool(body.stopped)

        await eventually(stopped)
        assert body.stopped[0] == (run, Stop.CANCEL)


async def test_without_a_confirmed_beat_handlers_are_stopped_before_the_lapse(database_url: str):
    clock = Clock()
    body = Body(database_url, period=1.0, clock=clock)
    body.heartbeat._registered = body.lease.worker_id
    body.lease.confirm(clock())
    clock.now = 0.79
    watching = asyncio.ensure_future(body.heartbeat.watch())
    await clock.looked_at()
    assert body.stopped_all == []
    async with expect(body.events, LeaseLost):
        clock.now = 0.81
    assert body.stopped_all == [Stop.FENCE]
    for clock.now in (0.99, 1.0):
        await clock.looked_at()
        assert body.lapses == []
    clock.now = 1.02
    await eventually(lambda: body.lapses)
    watching.cancel()


async def test_a_process_that_slept_through_its_lapse_first_stops_its_handlers(database_url: str):
    clock = Clock()
    body = Body(database_url, period=5.0, clock=clock)
    body.heartbeat._registered = body.lease.worker_id
    body.lease.confirm(clock() - 100)
    async with expect(body.events, LeaseLost):
        watching = asyncio.ensure_future(body.heartbeat.watch())
    clock.now = body.lease.safety - 0.01
    await clock.looked_at()
    assert (body.stopped_all, body.lapses) == ([Stop.FENCE], [])
    clock.now = body.lease.safety
    await eventually(lambda: body.lapses)
    watching.cancel()


async def test_without_running_handlers_a_lapse_is_no_reason_to_end(database_url: str):
    clock = Clock()
    body = Body(database_url, period=1.0, clock=clock)
    body.running = False
    body.heartbeat._registered = body.lease.worker_id
    body.lease.confirm(clock() - 100)
    async with expect(body.events, LeaseLost):
        watching = asyncio.ensure_future(body.heartbeat.watch())
    body.lease.confirm(clock())
    await clock.looked_at()
    async with expect(body.events, LeaseLost):  # it watches on, for the next lapse
        clock.now += 100
    assert body.lapses == []
    watching.cancel()
