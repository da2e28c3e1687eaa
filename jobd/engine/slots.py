"""How many runs may start: in all, of a queue, of a kind; and how many claims may wait for a slot.

A claim takes its place in its queue and kind when it comes, and one of the process's slots when its
handler begins. What is claimed beyond the free slots is held in memory, where no idle worker can
have it: `Prefetch` bounds that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from jobd.engine.prefetch import Prefetch
from jobd.job import Claimed
from jobd.registry import Handler


class Slots:
    """Counts what is busy. Lives on the work loop."""

    def __init__(
        self, *, total: int, queue_limits: Mapping[str, int], suspect_from: int, prefetch: Prefetch
    ) -> None:
        self.total = total
        self.busy = 0
        # Claims that wait for a slot.
        self.held = 0
        # Jobs that one more crash would end run one at a time: see docs/decisions/0006.
        self.suspect_from = suspect_from
        self.suspects = 0
        # Jobs that were there when a worker died, and may be why: nothing shall wait beside them.
        self.victims = 0
        # Slots whose handler has outlived a moment: they get through nothing soon.
        self.lasting = 0
        self.prefetch = prefetch
        self._queue_limits = queue_limits
        self._queues: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()

    @property
    def free(self) -> int:
        """How many more runs may start."""
        return self.total - self.busy

    @property
    def room(self) -> int:
        """How many more jobs may be claimed."""
        return self.total - self.busy - self.held + self.may_wait

    @property
    def may_wait(self) -> int:
        """How many claims may wait for a slot."""
        return 0 if self.victims else self.prefetch.bound(self.total - self.lasting)

    @property
    def worth_a_claim(self) -> bool:
        """Whether enough room came free: half of what may be held, so that claims stay large under load."""
        return self.room >= max(self.may_wait // 2, 1)

    def may_wait_of(self, kind: str) -> int:
        """How many claims of this kind may wait for a slot, were there no others."""
        return 0 if self.victims else self.prefetch.bound_of(kind, self.total - self.lasting)

    def queue_room(self, queue: str) -> int:
        """How many more jobs of this queue may be claimed."""
        limit = self._queue_limits.get(queue)
        return self.room if limit is None else min(self.room, limit - self._queues[queue])

    def kind_room(self, handler: Handler) -> int | None:
        """How many more jobs of this kind may be claimed; None: it has no limit of its own."""
        return None if handler.concurrency is None else handler.concurrency - self._kinds[handler.kind]

    def admits(self, claim: Claimed, handler: Handler) -> bool:
        """Whether the limits of its queue and kind leave room for this claim."""
        limit = self._queue_limits.get(claim.queue)
        return (limit is None or self._queues[claim.queue] < limit) and (
            handler.concurrency is None or self._kinds[claim.kind] < handler.concurrency
        )

    def take(self, claim: Claimed) -> None:
        """A claim came."""
        self._queues[claim.queue] += 1
        self._kinds[claim.kind] += 1
        self.victims += claim.crashes > 0
        self.suspects += claim.crashes >= self.suspect_from

    def give_back(self, claim: Claimed) -> None:
        """Its run has ended, or never began."""
        self._queues[claim.queue] -= 1
        self._kinds[claim.kind] -= 1
        self.victims -= claim.crashes > 0
        self.suspects -= claim.crashes >= self.suspect_from
