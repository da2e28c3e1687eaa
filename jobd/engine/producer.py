"""Takes ready jobs out of the queues, as many as there are free slots, in one round trip at a time.

    ask -> claim -> start -> (full, or slots came free: again at once)
                          -> doze -> look once more -> sleep until woken or the poll interval

How it sleeps, and that enqueues need not notify while it is at work, is `Slumber`'s matter.
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
from jobd.engine.floors import Floors
from jobd.engine.governing import Governing
from jobd.engine.kind_rooms import KindRooms
from jobd.engine.lease import Lease
from jobd.engine.recovery import Recovery
from jobd.engine.rooms import Rooms
from jobd.engine.slumber import Slumber
from jobd.engine.starter import Starter
from jobd.engine.victims import Victims
from jobd.errors import JobdError
from jobd.events import Events
from jobd.registry import Registry
from jobd.store import Store


class Producer:
    """One for all queues of a process. Lives on the work loop."""

    def __init__(
        self,
        store: Store,
        *,
        slumber: Slumber,
        governing: Governing,
        executor: Executor,
        registry: Registry,
        lease: Lease,
        queues: Sequence[str],
        beat: timedelta,
        events: Events,
        rng: random.Random,
        on_idle: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`on_idle` is asked when nothing was found; its True ends the producer."""
        self._store = store
        self._slumber = slumber
        self._governing = governing
        self._slots = executor.slots
        self._lease = lease
        self._queues = list(queues)
        self._on_idle = on_idle
        self._kind_rooms = KindRooms(registry, self._slots)
        self._starter = Starter(store, executor, lease, beat=beat)
        self._victims = Victims(
            store, self._starter, self._slots, self._kind_rooms, queues=queues, always=on_idle is not None
        )
        self._recovery = Recovery("producer", events=events, rng=rng)
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._rooms = Rooms(queues)
        # The last claim left something unasked, for want of a slot.
        self._starved = False
        self._floors = Floors()
        # Claimed, and when, but not read yet.
        self._unread: list[UUID] = []
        self._unread_since = 0.0
        self.turned_at = time.monotonic()

    def wake(self) -> None:
        """There may be something to claim: a notification, a staged job, a confirmed lease."""
        self._woken.set()

    def limits_changed(self) -> None:
        """Somebody has set limits over all daemons."""
        self._governing.changed()
        self._woken.set()

    def look_for_victims(self) -> None:
        """Jobs of a lost worker were put back."""
        self._victims.expect()
        self._woken.set()

    def slot_freed(self) -> None:
        """A handler ended. Worth a claim only if the last one could have brought more."""
        if self._victims.suspect_ended():
            self._woken.set()
        if (self._rooms.hungry or self._starved) and self._slots.worth_a_claim:
            self._woken.set()

    def stop(self) -> None:
        """Send no further claim; what the one under way brings is still started."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Claim until stopped."""
        while not self._stopping.is_set():
            self.turned_at = time.monotonic()
            self._woken.clear()
            asked = self._lease.valid
            try:
                more = await self._round()
                if (
                    not more
                    and self._on_idle is not None
                    and not self._woken.is_set()
                    and await self._on_idle()
                ):
                    return
                if asked:
                    self._recovery.succeeded()
            except JobdError as outage:
                await self._slumber.rest(self._recovery.failed(outage), self._woken)
                self._rooms.forget()
                continue
            if not more and not self._stopping.is_set():
                await self._slumber.sleep(
                    self._woken, at_most=min(self._victims.due_in, self._governing.patience)
                )
                self._rooms.forget()

    async def _round(self) -> bool:
        """Claim once. True when it is worth doing so again at once."""
        if not self._lease.valid:
            self._starved = True
            return False
        worker_id = self._lease.worker_id
        await self._governing.refresh()
        self._rooms.weights = self._governing.weights
        if self._stopping.is_set():
            return False
        victims = await self._victims.claim(worker_id)
        if self._stopping.is_set():
            return False
        rooms, limited_rooms, limited_kinds, full_kinds = self._ask()
        if self._victims.wait or not (rooms or limited_rooms or self._unread):
            self._starved = True
            return False
        asked = {queue: _least(rooms, limited_rooms, queue) for queue in rooms.keys() | limited_rooms.keys()}
        governed = {
            queue: rooms.pop(queue, 0) + limited_rooms.pop(queue, 0)
            for queue in asked
            if queue in self._governing
        }
        found = Counter[str]()
        if governed or self._unread:
            found.update(await self._claim_governed(worker_id, governed))
            asked |= dict.fromkeys(governed, 1)
        if (rooms or limited_rooms) and not self._stopping.is_set():
            found.update(await self._claim_plain(worker_id, rooms, limited_rooms, limited_kinds, full_kinds))
        self._rooms.learn(asked, found)
        # Where victims came, or a suspect runs, there may be more of them; who ends may make room for a key.
        self._starved = (
            bool(full_kinds or governed)
            or len(asked) < len(self._queues)
            or bool(victims)
            or self._victims.suspect_ran
        )
        if victims and self._slots.free > 0:
            return True
        if self._slots.room > 0 and self._rooms.unseen(self._slots.queue_room):
            return True
        if self._slots.worth_a_claim and self._rooms.promising(self._slots.queue_room):
            return True
        if self._rooms.hungry:
            # There is more, but nobody to run it: a slot that comes free will tell.
            return False
        once_more = await self._slumber.nod(found=found.total())
        if once_more:
            self._rooms.forget()
        return once_more

    async def _claim_plain(
        self,
        worker_id: UUID,
        rooms: dict[str, int],
        limited_rooms: dict[str, int],
        limited_kinds: list[str],
        full_kinds: list[str],
    ) -> Counter[str]:
        """Claim and start what is under no limit over all daemons; return how many came of each queue."""
        asked_at = time.monotonic()
        skipped = [*full_kinds, *self._kind_rooms.resting()]
        if limited_rooms or skipped:
            # Jobs of these kinds are passed over: they wait below where such a claim ends.
            self._floors.forget()
        floors = self._floors.of(rooms)
        claims = await self._store.claim(
            worker_id,
            rooms=rooms,
            limited_rooms=limited_rooms,
            limited_kinds=limited_kinds,
            skipped_kinds=skipped,
            floors=floors,
        )
        if not (limited_rooms or skipped) and self._floors.learn(rooms, floors, claims):
            self._woken.set()
        await self._starter.start(claims, worker_id, asked_at)
        return Counter(claim.queue for claim in claims)

    async def _claim_governed(self, worker_id: UUID, rooms: dict[str, int]) -> Counter[str]:
        """The same for what is under such limits."""
        if self._starter.late(self._unread_since):
            # Beats give them back soon, and then they may be somebody else's, or ours once more.
            self._unread = []
        if not self._unread and rooms:
            self._unread_since = time.monotonic()
            self._unread = await self._store.claim_governed(
                worker_id,
                rooms=rooms,
                kind_rooms=self._kind_rooms.limited() | dict.fromkeys(self._kind_rooms.resting(), 0),
                suspects=self._victims.suspects_room,
                suspect_from=self._slots.suspect_from,
            )
            self._governing.found(len(self._unread))
        # Where that fails they are read the next time.
        asked_at = self._unread_since
        claims = await self._store.claimed(worker_id, self._unread) if self._unread else []
        self._unread = []
        self._victims.started(claims)
        await self._starter.start(claims, worker_id, asked_at, limited=True)
        return Counter(claim.queue for claim in claims)

    def _ask(self) -> tuple[dict[str, int], dict[str, int], list[str], list[str]]:
        """How many jobs to ask of each queue: (without limited kinds, with them, those kinds, full kinds)."""
        kind_rooms = self._kind_rooms.limited()
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
        self._kind_rooms.rest(kind)


def _least(rooms: dict[str, int], limited_rooms: dict[str, int], queue: str) -> int:
    """From how many jobs on a queue may hold more. Its two entries overlap, so the smaller one counts."""
    return min((room for room in (rooms.get(queue, 0), limited_rooms.get(queue, 0)) if room > 0), default=1)
