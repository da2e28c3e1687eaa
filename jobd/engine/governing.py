"""Which queues have jobs under limits that count over all daemons, as of a second ago.

Those are claimed by a statement of their own, one daemon at a time; all others are spared it. A plain
claim leaves them alone whatever this believes, so being late costs a second and never a limit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence

from jobd.errors import JobdError
from jobd.fleet import Fleet, Governed

# Less than the shortest sleep between two polls of a second.
REFRESH_SECONDS = 0.7
# How long to sleep at most while jobs wait for a limit: who makes room elsewhere tells nobody. Less for a
# quick rate with a small burst, which would lose what it cannot save up.
LOOK_SECONDS = 0.25
SHORTEST_LOOK_SECONDS = 0.005
# For how long a queue is believed to get more jobs with a key once it had some.
KEYED_SECONDS = 60.0


class Governing:
    """Lives on the work loop."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        queues: Sequence[str],
        keyed: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keyed` are queues whose handlers give their jobs a key."""
        self._fleet = fleet
        self._queues = list(queues)
        # Until when more jobs with a key are expected, so that those need not wait for a refresh.
        self._keyed_until = dict.fromkeys(keyed, math.inf)
        self._clock = clock
        self._governed: dict[str, Governed] = {}
        # What each queue weighs beside the others of this process.
        self.weights: dict[str, int] = {}
        self._refreshed_at = -math.inf
        # Whether the last turn asked.
        self._fresh = False
        # Claims in a row that brought nothing.
        self._empty = 0

    async def refresh(self) -> None:
        """Ask again, if the last answer is older than that."""
        now = self._clock()
        self._fresh = now - self._refreshed_at >= REFRESH_SECONDS
        if not self._fresh:
            return
        # Before it asks: who sets limits meanwhile has it asked once more.
        self._refreshed_at = now
        try:
            found = await self._fleet.governing(self._queues)
        except JobdError:
            self.changed()
            raise
        self._governed = {each.queue: each for each in found if each.governed}
        self.weights = {each.queue: each.weight for each in found}
        for each in found:
            if each.keyed:
                self._keyed_until[each.queue] = max(self._keyed_until.get(each.queue, 0), now + KEYED_SECONDS)

    def changed(self) -> None:
        """What is believed may be wrong by now: ask again at the next turn."""
        self._refreshed_at = -math.inf

    def __contains__(self, queue: str) -> bool:
        return queue in self._governed or self._keyed_until.get(queue, -math.inf) > self._clock()

    def found(self, jobs: int) -> None:
        """A claim under limits brought so many."""
        self._empty = 0 if jobs else self._empty + 1

    @property
    def patience(self) -> float:
        """How long to sleep at most when a claim brought nothing; longer with each that does in a row."""
        looks = [each.beat or LOOK_SECONDS for each in self._governed.values() if each.waiting]
        if looks:
            look = max(min(looks), SHORTEST_LOOK_SECONDS) * 2.0 ** min(max(self._empty - 1, 0), 10)
            return min(look, LOOK_SECONDS)
        # Jobs may have come since that answer, which shall not be believed for a whole poll interval.
        heard = self._governed or self._keyed_until
        return REFRESH_SECONDS if heard and not self._fresh else math.inf
