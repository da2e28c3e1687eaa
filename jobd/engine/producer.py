"""Takes ready jobs out of the queues, as many as there are free slots, in one round trip at a time.

    ask -> claim -> start -> (full, or slots came free: again at once)
                          -> doze -> look once more -> sleep until woken or the poll interval

Notifications are hints: a sleeper first commits that it sleeps, then looks once more, so that an
enqueue either is seen by that look or sees the sleeper. What is missed all the same, the next poll finds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from jobd.engine.executor import Executor
from jobd.engine.lease import Lease
from jobd.engine.recovery import Recovery
from jobd.errors import JobdError
from jobd.events import Events
from jobd.fleet import Fleet
from jobd.registry import Registry
from jobd.store import Store

UNKNOWN_KIND_REST = 60.0
# How many poll intervals one notice of sleep lasts.
DOZE_POLLS = 4


class Producer:
    """One for all queues of a process. Lives on the work loop."""

    def __init__(
        self,
        store: Store,
        *,
        fleet: Fleet,
        executor: Executor,
        registry: Registry,
        lease: Lease,
        queues: Sequence[str],
        poll_interval: timedelta,
        beat: timedelta,
        notified: Callable[[], bool],
        events: Events,
        rng: random.Random,
        on_idle: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`notified` says whether notifications arrive now. `on_idle` is asked when nothing was found;
        its True ends the producer."""
        self._store = store
        self._fleet = fleet
        self._executor = executor
        self._registry = registry
        self._lease = lease
        self._queues = list(queues)
        self._poll = poll_interval.total_seconds()
        self._beat = beat.total_seconds()
        self._notified = notified
        self._rng = rng
        self._on_idle = on_idle
        self._recovery = Recovery("producer", events=events, rng=rng)
        self._woken = asyncio.Event()
        self._stopping = False
        self._announced_until = 0.0
        self._hungry: set[str] = set(self._queues)
        # The last claim left something unasked, for want of a slot.
        self._starved = False
        self._rested: dict[str, float] = {}
        self.turned_at = time.monotonic()

    def wake(self) -> None:
        """There may be something to claim: a notification, a staged job, a confirmed lease."""
        self._woken.set()

    def slot_freed(self) -> None:
        """A handler ended. Worth a claim only if the last one could have brought more."""
        if self._hungry or self._starved:
            self._woken.set()

    def stop(self) -> None:
        """Claim nothing more; a claim under way is still started."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Claim until stopped."""
        while not self._stopping:
            self.turned_at = time.monotonic()
            self._woken.clear()
            try:
                more = await self._round()
                self._recovery.succeeded()
            except JobdError as outage:
                await self._sleep(self._recovery.failed(outage))
                continue
            if more or self._stopping:
                continue
            if self._on_idle is not None and await self._on_idle():
                return
            await self._sleep(self._poll * self._rng.uniform(0.75, 1.0))

    async def _round(self) -> bool:
        """Claim once. True when it is worth doing so again at once."""
        rooms, limited_rooms, limited_kinds, full_kinds = self._ask()
        if not self._lease.valid or not (rooms or limited_rooms):
            self._starved = True
            return False
        worker_id, asked_at = self._lease.worker_id, time.monotonic()
        claims = await self._store.claim(
            worker_id,
            rooms=rooms,
            limited_rooms=limited_rooms,
            limited_kinds=limited_kinds,
            skipped_kinds=[*full_kinds, *self._resting()],
            suspects=0 if self._executor.suspects else 1,
        )
        late = time.monotonic() - asked_at > self._beat
        if claims and (late or not self._lease.valid or worker_id != self._lease.worker_id):
            # A handler blocked the loop meanwhile, say. Beats that found nobody holding these claims may have
            # given them back already, so nothing is started; this gives back what is left of them.
            await self._store.release([(claim.id, claim.claim_no) for claim in claims])
            return self._lease.valid
        found: dict[str, int] = dict.fromkeys(self._queues, 0)
        for claim in claims:
            found[claim.queue] = found.get(claim.queue, 0) + 1
            self._executor.start(claim)
        self._hungry = {
            queue for queue in self._queues if found[queue] >= _least(rooms, limited_rooms, queue)
        }
        self._starved = (
            bool(full_kinds)
            or len(rooms | limited_rooms) < len(self._queues)
            # The next one may come when this one has ended.
            or self._executor.suspects > 0
        )
        if claims and self._hungry:
            # Let what was started run before the next claim, or quick jobs would wait for slow ones' claims.
            await asyncio.sleep(0)
            return self._executor.free > 0
        return await self._announce()

    async def _announce(self) -> bool:
        """Before sleeping: ask for notifications. True when it is time to look once more because of it."""
        now = time.monotonic()
        if not self._notified() or self._on_idle is not None or now + self._poll < self._announced_until:
            return False
        period = self._poll * DOZE_POLLS
        await self._fleet.doze(self._lease.worker_id, period=timedelta(seconds=period))
        self._announced_until = now + period
        return True

    def _ask(self) -> tuple[dict[str, int], dict[str, int], list[str], list[str]]:
        """How many jobs to ask of each queue: (without limited kinds, with them, those kinds, full kinds).

        Queues that were full last time share the free slots; the others get one to look with. What
        the shares leave over goes to whichever queue's turn it is.
        """
        free = self._executor.free
        kind_rooms = {
            handler.kind: room
            for handler in self._registry
            if (room := self._executor.kind_room(handler)) is not None
        }
        full = [kind for kind, room in kind_rooms.items() if room <= 0]
        limited = [kind for kind, room in kind_rooms.items() if room > 0]
        least = min((room for room in kind_rooms.values() if room > 0), default=0)
        rooms: dict[str, int] = {}
        if free > 0:
            self._queues.append(self._queues.pop(0))
            self._queues.sort(key=lambda queue: queue not in self._hungry)
            left = free
            for place, queue in enumerate(self._queues):
                others = len(self._queues) - place - 1
                hungry_after = sum(other in self._hungry for other in self._queues[place + 1 :])
                share = (left - (others - hungry_after)) // (hungry_after + 1) if queue in self._hungry else 1
                room = min(max(share, 1), left, self._executor.room(queue))
                if room > 0:
                    rooms[queue] = room
                    left -= room
        if not limited:
            return rooms, {}, [], full
        # Kinds with a limit come only through an entry of its own, no larger than what each still has.
        limited_rooms = {queue: min(room, least) for queue, room in rooms.items()}
        rooms = {
            queue: room - limited_rooms[queue] for queue, room in rooms.items() if room > limited_rooms[queue]
        }
        return rooms, limited_rooms, limited, full

    def rest_kind(self, kind: str) -> None:
        """Leave a kind that has no handler here out of the claims for a minute."""
        self._rested[kind] = time.monotonic() + UNKNOWN_KIND_REST

    def _resting(self) -> list[str]:
        now = time.monotonic()
        self._rested = {kind: until for kind, until in self._rested.items() if until > now}
        return list(self._rested)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass


def _least(rooms: dict[str, int], limited_rooms: dict[str, int], queue: str) -> int:
    """From how many jobs on a queue may hold more. Its two entries overlap, so the smaller one counts."""
    return min((room for room in (rooms.get(queue, 0), limited_rooms.get(queue, 0)) if room > 0), default=1)
