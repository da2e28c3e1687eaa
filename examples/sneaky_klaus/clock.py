"""What time it is for the application: the real time, or in the demo a story that runs faster.

Handlers ask the clock, so that tests can set it; jobd's `run_at` is always real, so moments of the
story are translated on their way into the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

DAY = timedelta(days=1)


def real_now() -> datetime:
    return datetime.now(UTC)


class Clock:
    """Shows the real time, unless a story `start`s at a moment of its own and its days are shorter."""

    def __init__(
        self,
        *,
        start: datetime | None = None,
        day: timedelta = DAY,
        real_now: Callable[[], datetime] = real_now,
    ) -> None:
        self._real_now = real_now
        self._real_start = real_now()
        self._start = start or self._real_start
        self._speed = DAY / day
        self.day = day

    def now(self) -> datetime:
        """The moment it is."""
        return self._start + (self._real_now() - self._real_start) * self._speed

    def real(self, moment: datetime) -> datetime:
        """When that moment really comes."""
        return self._real_start + (moment - self._start) / self._speed

    def until(self, moment: datetime) -> timedelta:
        """How long it really takes until then; less than nothing if it has passed."""
        return self.real(moment) - self._real_now()
