"""Where the last claim of each queue ended, so that the next one need not read what lies before.

Behind a snapshot that somebody holds, or right after a large delete, the start of a queue's index is
full of entries of jobs that are gone. A floor is only a hint, since a job may come or return below it,
with a short tolerance, say: higher priorities are always looked for from their start, a batch that comes
back short ends the floor, and each queue is looked at without one every 45 ms, so that of jobs that were
ready 50 ms before a claim the earlier deadline goes first. Where such a look takes long, because of those
entries, it comes less often, once a second at least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from jobd.job import Claimed, Floor

LOOK_BELOW_SECONDS = 0.045
LONGEST_LOOK_BELOW_SECONDS = 1.0
# Looks below take at most one part in so many of the time.
LOOK_BELOW_SHARE = 5


class Floors:
    """Belongs to one producer. Lives on the work loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._floors: dict[str, Floor] = {}
        self._look_below_at: dict[str, float] = {}
        self._asked_at = 0.0

    def of(self, queues: Mapping[str, int]) -> dict[str, Floor]:
        """The floors for the next claim of these queues, which is about to be asked."""
        self._asked_at = self._clock()
        return {
            queue: floor
            for queue in queues
            if (floor := self._floors.get(queue)) is not None and self._look_below_at[queue] > self._asked_at
        }

    def learn(self, asked: Mapping[str, int], used: Mapping[str, Floor], claims: Sequence[Claimed]) -> bool:
        """After a claim, in its order; True when a queue came back short above its floor: look below it."""
        found: dict[str, list[Claimed]] = {}
        for claim in claims:
            found.setdefault(claim.queue, []).append(claim)
        took = self._clock() - self._asked_at
        pause = min(max(LOOK_BELOW_SECONDS, LOOK_BELOW_SHARE * took), LONGEST_LOOK_BELOW_SECONDS)
        short = False
        for queue, room in asked.items():
            if queue not in used:
                # From when it was asked: what came during the statement was not seen.
                self._look_below_at[queue] = self._asked_at + pause
            taken = found.get(queue, [])
            if taken and len(taken) >= room:
                last = taken[-1]
                self._floors[queue] = Floor(last.priority, last.deadline_at, last.id)
            else:
                short = short or queue in used
                self._floors.pop(queue, None)
        return short

    def forget(self) -> None:
        """Something may have come below them."""
        self._floors.clear()
