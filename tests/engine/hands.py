"""An executor with all that it works with, on a database, without the daemon around it.

The test claims, starts, and decides when each handler ends, so that nothing depends on how quick a
machine is: `quick(kind)` teaches what a daemon would have measured.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from jobd.door import Database, Link
from jobd.engine.calling import Caller
from jobd.engine.executor import Executor
from jobd.engine.finisher import Finisher
from jobd.engine.governing import Governing
from jobd.engine.holdings import Holdings, Run, Stop
from jobd.engine.judging import Judge
from jobd.engine.lease import Lease
from jobd.engine.prefetch import Prefetch
from jobd.engine.producer import Producer
from jobd.engine.slots import Slots
from jobd.engine.slumber import Slumber
from jobd.events import Events, JobFinished, JobStarted
from jobd.fleet import Fleet
from jobd.job import Claimed
from jobd.registry import Registry
from jobd.store import Store
from tests.factories import claim_all, make_job, make_worker, query

SUSPECT_FROM = 2


class Hands:
    """`hands.slots` and `hands.executor` are the real ones; `waits`, their handler, ends when told."""

    def __init__(
        self,
        link: Link,
        worker_id: UUID,
        *,
        total: int,
        queue_limits: Mapping[str, int],
        kind_limit: int | None,
    ) -> None:
        self.store = Store(link)
        self.worker_id = worker_id
        self.events = Events()
        self.holdings = Holdings()
        self.began: list[str] = []
        self.told: list[tuple[str, UUID]] = []
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.events.subscribe(JobStarted, lambda event: self.told.append(("started", event.id)))
        self.events.subscribe(JobFinished, lambda event: self.told.append((event.outcome, event.id)))
        rng = random.Random(1)
        self.finisher = Finisher(self.store, holdings=self.holdings, events=self.events, rng=rng)
        self.slots = Slots(
            total=total, queue_limits=queue_limits, suspect_from=SUSPECT_FROM, prefetch=Prefetch()
        )
        self.registry = Registry()
        self.registry.handler("waits", concurrency=kind_limit)(self._waits)
        self.executor = Executor(
            registry=self.registry,
            caller=Caller(
                make_context=self._no_context, resources={}, middlewares=(), threads=total, processes=1
            ),
            finisher=self.finisher,
            holdings=self.holdings,
            slots=self.slots,
            judge=Judge(
                events=self.events,
                default_timeout=timedelta(minutes=10),
                default_max_attempts=3,
                max_result=1000,
                rng=rng,
            ),
            events=self.events,
            freed=lambda: None,
        )

    def quick(self, kind: str = "waits") -> None:
        """Let this kind have run for a tenth of a millisecond of late, whatever it did before."""
        for _ in range(500):
            self.slots.prefetch.learn(kind, 0.0001)

    async def make(self, *names: str, **columns: Any) -> list[UUID]:
        """One ready job for each name, in the order in which they are claimed."""
        door = self.store.door
        columns = {"kind": "waits"} | columns
        return [await make_job(door, **columns | {"payload": {"name": name}}) for name in names]

    async def claim(self, count: int = 100) -> list[Claimed]:
        """Claim what is ready."""
        return await claim_all(
            self.store, self.worker_id, rooms={"default": count}, suspect_from=SUSPECT_FROM
        )

    async def start(self, *names: str, **columns: Any) -> list[Run]:
        """Make, claim and start these; return their runs."""
        await self.make(*names, **columns)
        claims = await self.claim()
        assert len(claims) == len(names)
        self.executor.start(claims)
        runs = [self.holdings.get(claim.id) for claim in claims]
        await turn()
        return [run for run in runs if run is not None]

    def end(self, *names: str) -> None:
        """Let these handlers end, now or when they begin."""
        for name in names:
            self._gates[name].set()

    async def rows(self) -> dict[str, Any]:
        """All jobs, by name."""
        found = await query(self.store.door, "select *, payload ->> 'name' as name from jobd.all_jobs")
        return {row["name"]: row for row in found}

    async def _waits(self, name: str) -> None:
        self.began.append(name)
        await self._gates[name].wait()

    @staticmethod
    def _no_context(*_: object) -> Any:
        raise AssertionError("no handler here asks for its context")


async def turn() -> None:
    """Let what was begun run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def hands_on(
    database_url: str,
    *,
    total: int = 2,
    queue_limits: Mapping[str, int] | None = None,
    kind_limit: int | None = None,
) -> AsyncIterator[Hands]:
    """Hands whose finisher writes; what still runs at the end is cancelled."""
    link = Link(Database(database_url))
    worker_id = await make_worker(link)
    hands = Hands(link, worker_id, total=total, queue_limits=queue_limits or {}, kind_limit=kind_limit)
    writing = asyncio.ensure_future(hands.finisher.run())
    try:
        yield hands
    finally:
        hands.executor.stop_all(Stop.SHUTDOWN)
        await turn()
        assert await hands.finisher.drained(10)
        writing.cancel()
        await asyncio.wait({writing})
        await link.close()
    assert (hands.slots.busy, hands.slots.held, hands.slots.suspects) == (0, 0, 0)
    assert len(hands.holdings) == 0


def producer_on(link: Link, hands: Hands, *, queues: Sequence[str] = ("default",)) -> Producer:
    """One that claims over this link for these hands, woken by nobody."""
    lease = Lease(period=timedelta(minutes=5))
    lease.worker_id = hands.worker_id
    lease.confirm(time.monotonic())
    rng = random.Random(1)
    return Producer(
        Store(link),
        slumber=Slumber(
            Fleet(link), lease=lease, poll_interval=timedelta(hours=1), notified=lambda: False, rng=rng
        ),
        governing=Governing(Fleet(link), queues=queues),
        executor=hands.executor,
        registry=hands.registry,
        lease=lease,
        queues=queues,
        beat=timedelta(minutes=1),
        events=hands.events,
        rng=rng,
    )
