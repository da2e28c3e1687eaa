"""How a role goes on when the database does not: for ever, with growing, jittered pauses, told once.

An outage may last longer than any budget of retries; giving up would turn it into a dead worker that
looks alive. Every role has its own `Recovery`, so one that is stuck says which it is.
"""

from __future__ import annotations

import random
import time

from jobd.events import DatabaseBack, DatabaseLost, Events

SHORTEST = 0.1
LONGEST = 3.0


class Recovery:
    """Counts the failures of one role since its last success."""

    def __init__(self, service: str, *, events: Events, rng: random.Random) -> None:
        self.service = service
        self._events = events
        self._rng = rng
        self._failures = 0
        self._since = 0.0

    def failed(self, error: BaseException) -> float:
        """Note a failure; return how many seconds to wait before the next try."""
        if not self._failures:
            self._since = time.monotonic()
            self._events.emit(DatabaseLost(self.service, str(error)))
        self._failures += 1
        ceiling = min(LONGEST, SHORTEST * 2 ** min(self._failures, 10))
        return self._rng.uniform(SHORTEST / 2, ceiling)

    @property
    def lost(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def succeeded(self) -> None:
        """Note a success: of a statement, not of a round that sent none."""
        if self._failures:
            self._failures = 0
            self._events.emit(DatabaseBack(self.service, time.monotonic() - self._since))
