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
# How long to sleep at most while jobs wait for a limit: who makes room elsewhere tells nobody.
LOOK_SECONDS = 0.25


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
        # Once a queue had jobs with a key more are expected, so that those need not wait for a refresh.
        self._keyed = set(keyed)
        self._clock = clock
        self._governed: dict[str, Governed] = {}
        # What each queue weighs beside the others of this process.
        self.weights: dict[str, int] = {}
        self._refreshed_at = -math.inf

    async def refresh(self) -> None:
        """Ask again, if the last answer is older than that."""
        now = self._clock()
        if now - self._refreshed_at < REFRESH_SECONDS:
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
        self._keyed |= {each.queue for each in found if each.keyed}

    def changed(self) -> None:
        """What is believed may be wrong by now: ask again at the next turn."""
        self._refreshed_at = -math.inf

    def __contains__(self, queue: str) -> bool:
        return queue in self._governed or queue in self._keyed

    @property
    def patience(self) -> float:
        """How long to sleep at most when a claim brought nothing."""
        return LOOK_SECONDS if any(each.waiting for each in self._governed.values()) else math.inf
