"""Takes ready jobs out of the queues, as many as there are free slots, in one round trip at a time.

    ask -> claim -> start -> (full, or slots came free: again at once)
                          -> doze -> look once more -> sleep until woken or the poll interval

How it sleeps, and that enqueues need not notify while it is at work, is `Slumber`'s matter.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

from jobd.engine.executor import Executor
from jobd.engine.floors import Floors
from jobd.engine.governing import Governing
from jobd.engine.lease import Lease
from jobd.engine.recovery import Recovery
from jobd.engine.rooms import Rooms
from jobd.engine.slumber import Slumber
from jobd.errors import JobdError
from jobd.events import Events
from jobd.job import Claimed
from jobd.registry import Registry
from jobd.store import Store

UNKNOWN_KIND_REST = 60.0
# How often jobs that were there when a worker died are looked for, unless a rescue was heard of.
VICTIMS_INTERVAL = 1.0


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
        self._executor = executor
        self._slots = executor.slots
        self._registry = registry
        self._lease = lease
        self._queues = list(queues)
        self._beat = beat.total_seconds()
        self._rng = rng
        self._on_idle = on_idle
        self._recovery = Recovery("producer", events=events, rng=rng)
        self._woken = asyncio.Event()
        self._stopping = False
        self._rooms = Rooms(queues)
        # The last claim left something unasked, for want of a slot.
        self._starved = False
        self._rested: dict[str, float] = {}
        self._victims_at = 0.0
        # It is time to look for victims, and no slot is free.
        self._victims_wait = False
        self._suspect_ran = False
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
        self._victims_at = 0.0
        self._woken.set()

    def slot_freed(self) -> None:
        """A handler ended. Worth a claim only if the last one could have brought more."""
        if self._suspect_ran and not self._slots.suspects:
            # The next one may come now.
            self._suspect_ran = False
            self.look_for_victims()
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
            if not more and not self._stopping:
                await self._slumber.sleep(
                    self._woken, at_most=min(self._until_victims(), self._governing.patience)
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
        victims = await self._claim_victims(worker_id)
        rooms, limited_rooms, limited_kinds, full_kinds = self._ask()
        if self._victims_wait or not (rooms or limited_rooms or self._unread):
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
        if rooms or limited_rooms:
            found.update(await self._claim_plain(worker_id, rooms, limited_rooms, limited_kinds, full_kinds))
        self._rooms.learn(asked, found)
        # Where victims came, or a suspect runs, there may be more of them; who ends may make room for a key.
        self._starved = (
            bool(full_kinds or governed)
            or len(asked) < len(self._queues)
            or bool(victims)
            or self._suspect_ran
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
        skipped = [*full_kinds, *self._resting()]
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
        await self._start(claims, worker_id, asked_at)
        return Counter(claim.queue for claim in claims)

    async def _claim_governed(self, worker_id: UUID, rooms: dict[str, int]) -> Counter[str]:
        """The same for what is under such limits."""
        if time.monotonic() - self._unread_since > self._beat:
            # Beats give them back soon, and then they may be somebody else's, or ours once more.
            self._unread = []
        if not self._unread and rooms:
            self._unread_since = time.monotonic()
            self._unread = await self._store.claim_governed(
                worker_id,
                rooms=rooms,
                kind_rooms=self._kind_rooms() | dict.fromkeys(self._resting(), 0),
                suspects=0 if self._slots.suspects else 1,
                suspect_from=self._slots.suspect_from,
            )
            self._governing.found(len(self._unread))
        # Where that fails they are read the next time.
        asked_at = self._unread_since
        claims = await self._store.claimed(worker_id, self._unread) if self._unread else []
        self._unread = []
        self._suspect_ran |= any(claim.crashes >= self._slots.suspect_from for claim in claims)
        await self._start(claims, worker_id, asked_at, limited=True)
        return Counter(claim.queue for claim in claims)

    async def _claim_victims(self, worker_id: UUID) -> list[Claimed]:
        """Now and then, before all others: claim and start what was there when a worker died.

        While no slot is free for them nothing else is claimed, so that a backlog does not keep them out.
        """
        asked_at, free = time.monotonic(), self._slots.free
        due = asked_at >= self._victims_at
        self._victims_wait = due and free <= 0
        if not due or free <= 0:
            return []
        # Whoever hears of more of them during the statement sets it back.
        self._victims_at = asked_at + VICTIMS_INTERVAL
        kind_rooms = self._kind_rooms()
        least = min((room for room in kind_rooms.values() if room > 0), default=free)
        try:
            victims = await self._store.claim_victims(
                worker_id,
                rooms={
                    queue: min(free, least, room)
                    for queue in self._queues
                    if (room := self._slots.queue_room(queue)) > 0
                },
                skipped_kinds=[*(kind for kind, room in kind_rooms.items() if room <= 0), *self._resting()],
                suspects=0 if self._slots.suspects else 1,
                suspect_from=self._slots.suspect_from,
            )
        except JobdError:
            self._victims_at = 0.0
            raise
        if victims or self._on_idle is not None:
            self._victims_at = 0.0
        # Only `slot_freed` takes it back: a run may have ended meanwhile, and that not be told yet.
        self._suspect_ran |= self._slots.suspects > 0 or any(
            victim.crashes >= self._slots.suspect_from for victim in victims
        )
        await self._start(victims, worker_id, asked_at)
        return victims

    async def _start(
        self, claims: list[Claimed], worker_id: UUID, asked_at: float, *, limited: bool = False
    ) -> None:
        """Let the executor have them, if they are ours still."""
        late = time.monotonic() - asked_at > self._beat
        if claims and (late or not self._lease.valid or worker_id != self._lease.worker_id):
            claims = await self._still_ours(claims, worker_id)
        self._executor.start(claims, limited=limited)
        if claims:
            # Let what was started run before the next statement, or quick jobs would wait for slow ones'.
            await asyncio.sleep(0)

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

    def _kind_rooms(self) -> dict[str, int]:
        """How many more jobs of each kind that has a limit may be claimed."""
        return {
            handler.kind: room
            for handler in self._registry
            if (room := self._slots.kind_room(handler)) is not None
        }

    def _ask(self) -> tuple[dict[str, int], dict[str, int], list[str], list[str]]:
        """How many jobs to ask of each queue: (without limited kinds, with them, those kinds, full kinds)."""
        kind_rooms = self._kind_rooms()
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

    def _until_victims(self) -> float:
        """How long to sleep at most: victims that came since the last look may be why we were woken."""
        left = self._victims_at - time.monotonic()
        return left if 0 < left < VICTIMS_INTERVAL * 0.9 else math.inf

    def rest_kind(self, kind: str) -> None:
        """Leave a kind that has no handler here out of the claims for a minute."""
        self._rested[kind] = time.monotonic() + UNKNOWN_KIND_REST

    def _resting(self) -> list[str]:
        now = time.monotonic()
        self._rested = {kind: until for kind, until in self._rested.items() if until > now}
        return list(self._rested)


def _least(rooms: dict[str, int], limited_rooms: dict[str, int], queue: str) -> int:
    """From how many jobs on a queue may hold more. Its two entries overlap, so the smaller one counts."""
    return min((room for room in (rooms.get(queue, 0), limited_rooms.get(queue, 0)) if room > 0), default=1)
