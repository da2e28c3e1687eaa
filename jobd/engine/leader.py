"""The duties that one process does for all: partitions ahead, and pruning of old jobs and old occurrences.

        elect --- lease 5 s, beaten each second --- term proven before each write --- abdicate

A change of hands raises the term. A process that stalls past its lease finds another term when it comes
back, and writes nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from jobd.engine.lease import Lease
from jobd.engine.recovery import Recovery
from jobd.errors import DatabaseUnavailable, JobdError
from jobd.events import DutyFailed, Events, LeaderChanged
from jobd.fleet import Fleet
from jobd.store import Store
from jobd.timetable import Timetable

NAME = "jobd"
LEASE = timedelta(seconds=5)
BEAT = 1.0
DUTY_INTERVAL = 600.0
# Rows of the schedules' history, unique keys, and spent rates, that are forgotten in one go.
BATCH = 5000


class Leader:
    """Lives on the control thread."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        timetable: Timetable,
        *,
        lease: Lease,
        history_retention: timedelta,
        schedule_history: timedelta,
        drop_partition: Callable[[str, bool | None], Awaitable[None]],
        events: Events,
        rng: random.Random,
    ) -> None:
        """`drop_partition(name, detached)` removes one partition of the history. What became of schedules'
        occurrences is forgotten after `schedule_history`."""
        self._store = store
        self._fleet = fleet
        self._timetable = timetable
        self._lease = lease
        self._retention = history_retention
        self._schedule_history = schedule_history
        self._drop_partition = drop_partition
        self._events = events
        self._recovery = Recovery("leader", events=events, rng=rng)
        self.term: int | None = None
        # For probes: why it could not stand for election last.
        self.problem: str | None = None
        self._duties_at = 0.0

    async def run(self) -> None:
        """Stand for election each second, and do the duties while leading, until cancelled."""
        while True:
            pause = BEAT
            try:
                if await self._stand():
                    self._recovery.succeeded()
                    self.problem = None
                if self.term is not None and time.monotonic() >= self._duties_at:
                    self._duties_at = time.monotonic() + DUTY_INTERVAL
                    await self._try_duties(self.term)
            except JobdError as outage:
                self._follow()
                self.problem = f"it could not stand for election ({type(outage).__name__})"
                pause = self._recovery.failed(outage)
            await asyncio.sleep(pause)

    async def abdicate(self) -> None:
        """Let the next one lead at once."""
        if self.term is not None:
            await self._fleet.abdicate(NAME, self._lease.worker_id)
            self._follow()

    async def _stand(self) -> bool:
        """Stand for election; False without a lease, when the database was not asked."""
        stands = self._lease.valid
        term = await self._fleet.elect(NAME, self._lease.worker_id, lease=LEASE) if stands else None
        if term is None:
            self._follow()
        elif term != self.term:
            self.term = term
            self._duties_at = 0.0
            self._events.emit(LeaderChanged(True, term))
        return stands

    def _follow(self) -> None:
        if self.term is not None:
            self._events.emit(LeaderChanged(False, self.term))
            self.term = None

    async def _try_duties(self, term: int) -> None:
        """A duty that fails, for want of a right, say, is told and waits for its turn; the lead stays."""
        try:
            await self._duties(term)
        except DatabaseUnavailable as outage:
            if not outage.permanent:
                self._duties_at = 0.0
                raise
            self._events.emit(DutyFailed(str(outage)))
        except Exception as failure:
            # Two leaders of different terms may meet over one partition; the later one finds it gone.
            self._events.emit(DutyFailed(str(failure)))

    async def _duties(self, term: int) -> None:
        await self._fleet.ensure_partitions()
        for name, detached in await self._store.prune(retention=self._retention):
            # DETACH CONCURRENTLY runs in no transaction, so the proof can only stand right before it.
            if not await self._fleet.proves_lead(NAME, self._lease.worker_id, term=term):
                return
            await self._drop_partition(name, detached)
        if (
            await self._fleet.proves_lead(NAME, self._lease.worker_id, term=term)
            and await self._timetable.forget(self._schedule_history, batch=BATCH) == BATCH
        ):
            # There is more: after the next beat, so that a long backlog does not cost the lead.
            self._duties_at = 0.0
        if await self._store.prune_keys(batch=BATCH) == BATCH:
            self._duties_at = 0.0
        if await self._store.prune_rates(batch=BATCH) == BATCH:
            self._duties_at = 0.0
