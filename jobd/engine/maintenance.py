"""The chores that every worker and scheduler process does: stage, expire, rescue.

Any number of processes may do them at once; each skips rows that another has locked. They sleep until
the next delayed job is due or the poll interval, whichever is first, and at least once a second look at
the clock again, so that a host that slept or a clock that stepped costs a second at most.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

from jobd.engine.lease import Lease
from jobd.engine.recovery import Recovery
from jobd.errors import JobdError, PartitionMissing
from jobd.events import Events, JobsExpired, JobsRescued, JobsStaged
from jobd.fleet import Fleet
from jobd.job import JobState
from jobd.store import Store

BATCH = 1000
LONGEST_SLEEP = 1.0
SHORTEST_SLEEP = 0.01


class Maintenance:
    """Lives on the control thread."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        *,
        lease: Lease,
        crash_limit: int,
        poll_interval: timedelta,
        events: Events,
        rng: random.Random,
        on_staged: Callable[[], None],
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._lease = lease
        self._crash_limit = crash_limit
        self._poll = min(poll_interval.total_seconds(), LONGEST_SLEEP)
        self._events = events
        self._rng = rng
        self._on_staged = on_staged
        self._recovery = Recovery("maintenance", events=events, rng=rng)

    async def run(self) -> None:
        """Do the chores until cancelled."""
        while True:
            try:
                pause = await self.once()
                self._recovery.succeeded()
            except PartitionMissing:
                pause = 0.05
                await self._make_partitions()
            except JobdError as outage:
                pause = self._recovery.failed(outage)
            await asyncio.sleep(pause)

    async def once(self) -> float:
        """All chores once; return for how many seconds there is nothing to do."""
        staged = await self._store.stage(batch=BATCH)
        if staged:
            self._events.emit(JobsStaged(staged))
            self._on_staged()
        expired = await self._store.expire(batch=BATCH)
        for (queue, kind), count in expired.items():
            self._events.emit(JobsExpired(queue, kind, count))
        rescued = await self._rescue()
        if BATCH in (staged, expired.total(), rescued):
            return 0.0
        pause = self._poll * self._rng.uniform(0.75, 1.0)
        for seconds in (await self._store.next_due(), await self._fleet.next_lapse(self._lease.worker_id)):
            if seconds is not None:
                pause = min(pause, max(seconds, SHORTEST_SLEEP) if seconds > -1 else pause)
        return pause

    async def _rescue(self) -> int:
        if self._lease.valid:
            await self._fleet.retire(self._lease.worker_id, lease=self._lease.period)
        rescued = await self._store.rescue(batch=BATCH, crash_limit=self._crash_limit)
        if rescued:
            dead = sum(state is JobState.DEAD for state in rescued.values())
            self._events.emit(JobsRescued(len(rescued), dead))
            self._on_staged()
        return len(rescued)

    async def _make_partitions(self) -> None:
        try:
            await self._fleet.ensure_partitions()
        except JobdError as outage:
            await asyncio.sleep(self._recovery.failed(outage))
