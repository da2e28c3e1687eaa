"""How a producer that found nothing waits: asleep, when enqueues notify it, or awake, when they need not.

    asleep   `sleeping_until` is committed, then it looks once more, so that an enqueue either is seen
             by that look or sees the sleeper. Woken now and then, it stays asleep: each enqueue notifies.
    awake    woken again and again at once, it takes its notice back and looks every few milliseconds
             instead, until nothing came for a while: NOTIFY serialises the commits of all producers.
             The more comes, the longer it waits between looks, each of which costs as much as many jobs.

Notifications are hints. What is missed all the same, the next poll finds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import timedelta

from jobd.engine.lease import Lease
from jobd.fleet import Fleet

# How many poll intervals one notice of sleep lasts.
DOZE_POLLS = 4
# So many sleeps cut short in a row mean load.
SHORT_SLEEPS = 4
SHORT = 0.02
# Awake: how often it looks, and how long nothing may come until it sleeps again.
LOOK = 0.004
LINGER = 0.05
# Where that many jobs come in a second, it looks less often.
MANY = 2_000.0
LONG_LOOK = 0.012


class Slumber:
    """Belongs to one producer. Lives on the work loop."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        lease: Lease,
        poll_interval: timedelta,
        notified: Callable[[], bool],
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`notified` says whether notifications are wanted and arrive now."""
        self._fleet = fleet
        self._lease = lease
        self._poll = poll_interval.total_seconds()
        self._notified = notified
        self._rng = rng
        self._clock = clock
        # The notice of sleep that is committed: as which worker, and until when it holds.
        self._noticed_as = lease.worker_id
        self._noticed_until = 0.0
        self._short_sleeps = 0
        self._awake = False
        # Awake: in how many seconds it looks again, and when it looked last.
        self._looks_in: float | None = None
        self._looked_at = 0.0
        self._found_at = 0.0

    async def nod(self, *, found: int) -> bool:
        """Before sleeping, when the last claim found so many: ask for notifications.

        True when it is time to look once more because of it.
        """
        now = self._clock()
        if not self._notified():
            self._awake = False
            return False
        if self._awake:
            if found:
                self._found_at = now
            many = found > MANY * (now - self._looked_at)
            self._looked_at = now
            if now - self._found_at < LINGER:
                self._looks_in = LONG_LOOK if many else LOOK
                return False
            self._awake = False
        elif self._short_sleeps >= SHORT_SLEEPS:
            self._awake, self._found_at, self._looked_at, self._short_sleeps = True, now, now, 0
            self._noticed_until = 0.0
            await self._fleet.doze(self._lease.worker_id, period=timedelta(0))
            self._looks_in = LOOK
            return False
        worker_id = self._lease.worker_id
        if worker_id == self._noticed_as and now + self._poll < self._noticed_until:
            return False
        period = self._poll * DOZE_POLLS
        await self._fleet.doze(worker_id, period=timedelta(seconds=period))
        self._noticed_as, self._noticed_until = worker_id, now + period
        return True

    async def sleep(self, woken: asyncio.Event, *, at_most: float) -> None:
        """Until it is time to look again, or `woken`."""
        if self._looks_in is not None:
            seconds, self._looks_in = self._looks_in, None
            await self.rest(seconds, woken)
            return
        fell_asleep = self._clock()
        await self.rest(min(self._poll * self._rng.uniform(0.75, 1.0), at_most), woken)
        if woken.is_set() and self._clock() - fell_asleep < SHORT:
            self._short_sleeps += 1
        else:
            self._short_sleeps = 0

    async def rest(self, seconds: float, woken: asyncio.Event) -> None:
        """So long, unless `woken`."""
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            pass
