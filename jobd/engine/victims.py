"""Jobs that were there when a worker died: claimed apart, since there are hardly ever any, and carefully.

One that was there too often is a suspect, which may have killed it: it runs with no other suspect beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from uuid import UUID

from jobd.engine.kind_rooms import KindRooms
from jobd.engine.slots import Slots
from jobd.engine.starter import Starter
from jobd.errors import JobdError
from jobd.job import Claimed
from jobd.store import Store

# How often they are looked for, unless a rescue was heard of.
VICTIMS_INTERVAL = 1.0


class Victims:
    """Belongs to one producer. Lives on the work loop."""

    def __init__(
        self,
        store: Store,
        starter: Starter,
        slots: Slots,
        kind_rooms: KindRooms,
        *,
        queues: Sequence[str],
        always: bool,
    ) -> None:
        """`always`: look at every turn, for a producer that ends when nothing is left."""
        self._store = store
        self._starter = starter
        self._slots = slots
        self._kind_rooms = kind_rooms
        self._queues = list(queues)
        self._always = always
        self._due_at = 0.0
        # It is time to look for them, and no slot is free.
        self.wait = False
        # A suspect was started, and nobody told yet that it ended.
        self.suspect_ran = False

    def expect(self) -> None:
        """There may be some."""
        self._due_at = 0.0

    def suspect_ended(self) -> bool:
        """Whether the one that ran did, so that the next one may come; told once."""
        ended = self.suspect_ran and not self._slots.suspects
        if ended:
            self.suspect_ran = False
            self.expect()
        return ended

    def started(self, claims: Sequence[Claimed]) -> None:
        """Others claimed these, of which some may be suspects."""
        # Only `suspect_ended` takes it back: a run may have ended meanwhile, and that not be told yet.
        self.suspect_ran |= any(claim.crashes >= self._slots.suspect_from for claim in claims)

    @property
    def suspects_room(self) -> int:
        """How many suspects may be claimed now."""
        return 0 if self._slots.suspects else 1

    @property
    def due_in(self) -> float:
        """How long to sleep at most: those that came since the last look may be why we were woken."""
        left = self._due_at - time.monotonic()
        return left if 0 < left < VICTIMS_INTERVAL * 0.9 else math.inf

    async def claim(self, worker_id: UUID) -> list[Claimed]:
        """Now and then, before all others: claim and start them.

        While no slot is free for them nothing else is claimed, so that a backlog does not keep them out.
        """
        asked_at, free = time.monotonic(), self._slots.free
        due = asked_at >= self._due_at
        self.wait = due and free <= 0
        if not due or free <= 0:
            return []
        # Whoever hears of more of them during the statement sets it back.
        self._due_at = asked_at + VICTIMS_INTERVAL
        kind_rooms = self._kind_rooms.limited()
        least = min((room for room in kind_rooms.values() if room > 0), default=free)
        try:
            victims = await self._store.claim_victims(
                worker_id,
                rooms={
                    queue: min(free, least, room)
                    for queue in self._queues
                    if (room := self._slots.queue_room(queue)) > 0
                },
                skipped_kinds=[
                    *(kind for kind, room in kind_rooms.items() if room <= 0),
                    *self._kind_rooms.resting(),
                ],
                suspects=self.suspects_room,
                suspect_from=self._slots.suspect_from,
            )
        except JobdError:
            self.expect()
            raise
        if victims or self._always:
            self.expect()
        self.suspect_ran |= self._slots.suspects > 0
        self.started(victims)
        await self._starter.start(victims, worker_id, asked_at)
        return victims
