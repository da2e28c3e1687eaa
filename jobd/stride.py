"""How many jobs one statement moves: as many as it can in a moment, so that nothing is locked for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST = 100
QUICK_SECONDS, SLOW_SECONDS = 0.2, 0.5


class Stride:
    """Doubled by quick statements, halved by slow ones and by those that failed; never more than `most`."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = min(FIRST, most)
        self._most = most
        self._clock = clock

    @contextmanager
    def step(self, count: int) -> Iterator[None]:
        """The statement that moves so many. What it raises passes through."""
        begun = self._clock()
        try:
            yield
        except Exception:
            self.size = max(1, count // 2)
            raise
        seconds = self._clock() - begun
        if seconds > SLOW_SECONDS:
            self.size = max(1, count // 2)
        elif seconds < QUICK_SECONDS and count >= self.size:
            self.size = min(self._most, self.size * 2)
