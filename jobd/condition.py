"""How a daemon is: what `/livez`, `/readyz` and the gauges of `/metrics` tell.

Asked on the control thread, so that it can answer while a handler blocks the work loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from jobd import __version__
from jobd.control import Pulse
from jobd.engine.executor import Executor
from jobd.engine.leader import Leader
from jobd.engine.lease import Lease
from jobd.engine.notifier import Notifier
from jobd.engine.producer import Producer
from jobd.engine.scheduler import Scheduler
from jobd.errors import JobdError
from jobd.fleet import Fleet
from jobd.migrate import needed_version
from jobd.reader import Reader, Stock
from jobd.schedule_rows import Outlook
from jobd.timetable import Timetable

# A work loop that has not turned for this long is taken for dead, not for busy.
STALLED_SECONDS = 120.0
# A scheduler looks once a second; one that has not for this long does not run.
STUCK_SECONDS = 10.0
# Schedules that have a series of their own.
NEAREST = 20
STOPPING = "shutting down"


class DaemonCondition:
    """Knows the roles of one daemon; those it does not have are None."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        reader: Reader,
        counter: Reader,
        lease: Lease,
        pulse: Pulse,
        poll_interval: timedelta,
        roles: Sequence[str],
        queues: Sequence[str],
        stopping: Callable[[], bool],
    ) -> None:
        self._fleet = fleet
        self._reader = reader
        self._counter = counter
        self._timetable, self._counting = Timetable(reader.door), Timetable(counter.door)
        self._counted = Stock()
        self._count_again_at = 0.0
        self._lease = lease
        self._pulse = pulse
        self._stale_claim = max(10.0, 5 * poll_interval.total_seconds())
        self._roles = list(roles)
        self._queues = list(queues)
        self._stopping = stopping
        self._started = time.monotonic()
        self._database_up = True
        self.executor: Executor | None = None
        self.producer: Producer | None = None
        self.notifier: Notifier | None = None
        self.leader: Leader | None = None
        self.scheduler: Scheduler | None = None
        self._schedules: int | None = None
        self.slots = 0

    def show(self, executor: Executor, producer: Producer | None, *, slots: int) -> None:
        """This process is a worker: tell about its parts too."""
        self.executor, self.producer, self.slots = executor, producer, slots

    def stalled(self) -> str | None:
        """Why a restart is due."""
        if self._pulse.lag > STALLED_SECONDS:
            return f"the work loop has been blocked for {self._pulse.lag:.0f} s by a handler"
        return None

    async def unready(self) -> list[str]:
        """Why a job could not run to its end now."""
        if self._stopping():
            return [STOPPING]
        reasons = [self._without_lease()] if not self._lease.valid else []
        if self.producer is not None and self._lease.valid:
            idle = time.monotonic() - self.producer.turned_at
            if idle > self._stale_claim:
                reasons.append(
                    f"the claim loop has not turned for {idle:.0f} s (loop lag {self._pulse.lag:.1f} s)"
                )
        try:
            if not await self._fleet.probe(self._lease.worker_id) and self._lease.valid:
                reasons.append("this worker has no row in jobd.workers")
            version = await self._reader.schema_version()
            if version < needed_version():
                reasons.append(f"the schema is at version {version}, {needed_version()} is needed")
            else:
                self._schedules = sum((await self._timetable.tally()).values())
            self._database_up = True
        except JobdError as error:
            self._database_up = False
            reasons.append(f"the database does not answer ({type(error).__name__})")
        return reasons

    async def depths(self) -> Stock | None:
        """How full the queues are, and what schedules there are; None when the database does not answer.

        Counting may cost the database a tenth of its time at most: after a count that took a second,
        the next is made ten seconds later.
        """
        started = time.monotonic()
        if started < self._count_again_at:
            return self._counted
        try:
            self._counted = Stock(
                await self._counter.depths(),
                Outlook(await self._counting.tally(), await self._counting.nearest(count=NEAREST)),
            )
            self._database_up = True
        except JobdError:
            self._database_up = False
            return None
        self._count_again_at = started + 11 * (time.monotonic() - started)
        return self._counted

    def gauges(self) -> dict[str, float]:
        """Numbers about this process."""
        gauges = {"loop_lag_seconds": self._pulse.lag, "database_up": float(self._database_up)}
        if self._lease.age is not None:
            gauges["lease_age_seconds"] = self._lease.age
        if self.executor is not None:
            gauges |= {"slots_total": float(self.slots), "slots_busy": float(self.executor.busy)}
        if self.notifier is not None:
            gauges["listener_up"] = float(self.notifier.up)
        if self.leader is not None:
            gauges["leader"] = float(self.leader.term is not None)
        return gauges

    def describe(self) -> dict[str, Any]:
        """What else a probe shows."""
        return {
            "worker": str(self._lease.worker_id),
            "version": __version__,
            "roles": self._roles,
            "queues": self._queues,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "scheduler": self._scheduling(),
        }

    def _without_lease(self) -> str:
        age = self._lease.age
        return f"no heartbeat was confirmed {'yet' if age is None else f'for {age:.0f} s'}"

    def _scheduling(self) -> dict[str, Any]:
        """Whether schedules fire from here, or would; how many there are is as `unready` found it."""
        reason: str | None = "this process has not the role scheduler"
        lead = None
        if self.scheduler is not None:
            idle = time.monotonic() - self.scheduler.turned_at
            stuck = f"it has not turned for {idle:.0f} s" if idle > STUCK_SECONDS else None
            # A follower never looks at the schedules: that it may come to lead is what it does for them.
            unelected = self.leader.problem if self.leader is not None else None
            powerless = None
            if not self._lease.valid:
                # Whatever failed last: until it has one no schedule fires from here.
                powerless = f"{self._without_lease()}, and without a lease it cannot lead"
            stopping = STOPPING if self._stopping() else None
            reason = stopping or powerless or self.scheduler.problem or unelected or stuck
            lead = "leader" if self.leader is not None and self.leader.term is not None else "follower"
        return {"running": reason is None, "lead": lead, "schedules": self._schedules, "reason": reason}
