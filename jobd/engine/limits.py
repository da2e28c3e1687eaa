"""Tells when an attempt has had its time, and which ones last longer than a moment.

A timer for each of ten thousand runs a second costs more than most of those runs, and nearly all
have ended long before it matters. So a run gets its timer only when it is still going after a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobd.engine.holdings import Run

MOMENT = 0.05


class TimeLimits:
    """Lives on the work loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, over: Callable[[Run], None], lasts: Callable[[Run], None]
    ) -> None:
        """`over` is called for a run that is not closed when its time ends; `lasts`, once, for one that
        holds its slot after a moment."""
        self._loop = loop
        self._over = over
        self._lasts = lasts
        # Those that began in this moment, and in the one before.
        self._young: list[Run] = []
        self._older: list[Run] = []

    def set(self, run: Run, seconds: float) -> None:
        """The run begins now and may take that long."""
        run.ends_at = self._loop.time() + seconds
        if seconds < 2 * MOMENT:
            self._arm(run)
        if not self._young and not self._older:
            self._loop.call_later(MOMENT, self._look)
        self._young.append(run)

    def clear(self, run: Run) -> None:
        """The run has ended."""
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None

    def _look(self) -> None:
        older, self._older, self._young = self._older, self._young, []
        if self._older:
            self._loop.call_later(MOMENT, self._look)
        for run in older:
            if run.holds_slot:
                self._lasts(run)
            if not run.closed and run.timer is None:
                self._arm(run)

    def _arm(self, run: Run) -> None:
        run.timer = self._loop.call_at(run.ends_at, self._over, run)
