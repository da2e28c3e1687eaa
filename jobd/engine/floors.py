"""Where the last claim of each queue ended, so that the next one need not read what lies before.

Behind a snapshot that somebody holds, or right after a large delete, the start of a queue's index is
full of entries of jobs that are gone. A floor is only a hint, since a job may come or return below it:
higher priorities are always looked for from their start, a batch that comes back short ends the floor,
and each queue is looked at without one at least once a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from jobd.job import Claimed, Floor

LOOK_BELOW_SECONDS = 1.0


class Floors:
    """Belongs to one producer. Lives on the work loop."""

    def __init__(self) -> None:
        self._floors: dict[str, Floor] = {}
        self._looked_below: dict[str, float] = {}

    def of(self, queues: Mapping[str, int]) -> dict[str, Floor]:
        """The floors for the next claim of these queues."""
        late = time.monotonic() - LOOK_BELOW_SECONDS
        return {
            queue: floor
            for queue in queues
            if (floor := self._floors.get(queue)) is not None and self._looked_below[queue] > late
        }

    def learn(self, asked: Mapping[str, int], used: Mapping[str, Floor], claims: Sequence[Claimed]) -> bool:
        """After a claim, in its order; True when a queue came back short above its floor: look below it."""
        found: dict[str, list[Claimed]] = {}
        for claim in claims:
            found.setdefault(claim.queue, []).append(claim)
        now = time.monotonic()
        short = False
        for queue, room in asked.items():
            if queue not in used:
                self._looked_below[queue] = now
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
