"""How many jobs may be claimed beyond the free slots, so that slots of quick handlers never wait for a claim.

A claim that waits here is out of the reach of every idle worker. So the bound is what the slots get
through in HOLD_SECONDS, judged by the slowest kind that came with the last claims: hundreds of jobs
of a millisecond, none of a second, none of a kind that was not seen yet.
"""

from __future__ import annotations

from collections.abc import Collection

HOLD_SECONDS = 0.025
MOST = 2000
# The weight of the newest run in the mean of its kind.
NEWEST = 0.05
# So many runs tell how long one usually takes.
ENOUGH = 5


class Prefetch:
    """Learns how long each kind runs. Lives on the work loop."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._seconds: dict[str, float] = {}
        self._slowest: float | None = None
        # How many runs were seen of kinds with less than ENOUGH.
        self._seen: dict[str, int] = {}

    def learn(self, kind: str, seconds: float) -> None:
        """A run of this kind ended after that long."""
        if (seen := self._seen.get(kind, 0)) < ENOUGH:
            self._seen[kind] = seen + 1
        mean = self._seconds.get(kind)
        self._seconds[kind] = seconds if mean is None else mean + (seconds - mean) * NEWEST

    def usual(self, kind: str) -> float | None:
        """How many seconds a run of this kind takes; None: too few were seen."""
        return self._seconds[kind] if self._seen.get(kind, 0) >= ENOUGH else None

    def expect(self, kinds: Collection[str]) -> None:
        """The last claim brought these kinds: the next one probably does, too."""
        known = [self._seconds.get(kind) for kind in kinds]
        self._slowest = None if not known or None in known else max(known)  # type: ignore[type-var]

    def bound(self, slots: int) -> int:
        """How many jobs may wait for one of these slots."""
        return min(_bound(self._slowest, slots), self._most)

    def bound_of(self, kind: str, slots: int) -> int:
        """How many jobs of this kind alone might."""
        return min(_bound(self._seconds.get(kind), slots), self._most)


def _bound(seconds: float | None, slots: int) -> int:
    return 0 if seconds is None else min(int(slots * HOLD_SECONDS / max(seconds, 1e-6)), MOST)
