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
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

from jobd.engine.executor import Executor
from jobd.engine.lease import Lease
from jobd.engine.recovery import Recovery
from jobd.engine.rooms import Rooms
from jobd.errors import JobdError
from jobd.events import Events
from jobd.fleet import Fleet
from jobd.job import Claimed
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
        self._slots = executor.slots
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
        self._rooms = Rooms(queues)
        # The last claim left something unasked, for want of a slot.
        self._starved = False
        self._rested: dict[str, float] = {}
        self.turned_at = time.monotonic()

    def wake(self) -> None:
        """There may be something to claim: a notification, a staged job, a confirmed lease."""
        self._woken.set()

    def slot_freed(self) -> None:
        """A handler ended. Worth a claim only if the last one could have brought more."""
        if (self._rooms.hungry or self._starved) and self._slots.worth_a_claim:
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
                if (
                    not more
                    and self._on_idle is not None
                    and not self._woken.is_set()
                    and await self._on_idle()
                ):
                    return
                self._recovery.succeeded()
            except JobdError as outage:
                await self._sleep(self._recovery.failed(outage))
                continue
            if not more and not self._stopping:
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
            suspects=0 if self._slots.suspects else 1,
            suspect_from=self._slots.suspect_from,
        )
        if claims and time.monotonic() - asked_at > self._beat:
            claims = await self._still_ours(claims, worker_id)
        found = Counter(claim.queue for claim in claims)
        self._executor.start(claims)
        asked = rooms.keys() | limited_rooms.keys()
        self._rooms.learn({queue: _least(rooms, limited_rooms, queue) for queue in asked}, found)
        self._starved = (
            bool(full_kinds)
            or len(asked) < len(self._queues)
            # The next one may come when this one has ended.
            or self._slots.suspects > 0
        )
        if claims:
            # Let what was started run before the next claim, or quick jobs would wait for slow ones' claims.
            await asyncio.sleep(0)
        hungry = bool(claims) and self._rooms.hungry
        if (hungry and self._slots.worth_a_claim) or (
            self._slots.room > 0 and self._rooms.unseen(self._slots.queue_room)
        ):
            return True
        # There is more, but nobody to run it: a slot that comes free will tell.
        return False if hungry else await self._announce()

    async def _still_ours(self, claims: list[Claimed], worker_id: UUID) -> list[Claimed]:
        """Those of claims whose answer came late, to a blocked loop say, that may still be started.

        Beats that found nobody holding them have given them back, or we are somebody else by now.
        """
        keys = [(claim.id, claim.claim_no) for claim in claims]
        if not self._lease.valid or worker_id != self._lease.worker_id:
            await self._store.release(keys)
            return []
        ours = await self._store.still_ours(keys)
        return [claim for claim in claims if claim.id in ours]

    async def _announce(self) -> bool:
        """Before sleeping: ask for notifications. True when it is time to look once more because of it."""
        now = time.monotonic()
        if not self._notified() or self._on_idle is not None or now + self._poll < self._announced_until:
            return False
        period = self._poll * DOZE_POLLS
        await self._fleet.doze(self._lease.worker_id, period=timedelta(seconds=period))
        self._announced_until = now + period
        self._rooms.forget()
        return True

    def _ask(self) -> tuple[dict[str, int], dict[str, int], list[str], list[str]]:
        """How many jobs to ask of each queue: (without limited kinds, with them, those kinds, full kinds)."""
        kind_rooms = {
            handler.kind: room
            for handler in self._registry
            if (room := self._slots.kind_room(handler)) is not None
        }
        full = [kind for kind, room in kind_rooms.items() if room <= 0]
        limited = [kind for kind, room in kind_rooms.items() if room > 0]
        least = min((room for room in kind_rooms.values() if room > 0), default=0)
        rooms = self._rooms.share(self._slots.room, self._slots.queue_room)
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
        self._rooms.forget()


def _least(rooms: dict[str, int], limited_rooms: dict[str, int], queue: str) -> int:
    """From how many jobs on a queue may hold more. Its two entries overlap, so the smaller one counts."""
    return min((room for room in (rooms.get(queue, 0), limited_rooms.get(queue, 0)) if room > 0), default=1)
