"""The process's right to run jobs: who it is, and until when nobody else may take its jobs.

        beat sent          confirmed                fence           lapse
    ------|-------------------|-----------------------|---------------|------> monotonic time
          |<----------------- lease ------------------|-- safety ---->|

The lease is counted from before the beat was sent, so that this process always believes it to end
earlier than the database does. At the fence handlers are stopped; at the lapse another daemon may run them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from jobd.ids import uuid7


class Lease:
    """Written by the heartbeat, read by everybody."""

    def __init__(self, *, period: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self.period = period
        self.worker_id: UUID = uuid7()
        self.clock = clock
        self._confirmed: float | None = None

    @property
    def safety(self) -> float:
        """How many seconds before the lapse handlers are stopped."""
        return min(2.0, self.period.total_seconds() / 5)

    def confirm(self, sent: float) -> None:
        """A beat that was sent at `sent` was answered."""
        self._confirmed = sent

    def renew_identity(self) -> UUID:
        """Another daemon took our row: begin again as somebody else, without a lease."""
        self._confirmed = None
        self.worker_id = uuid7()
        return self.worker_id

    @property
    def age(self) -> float | None:
        """Seconds since the last confirmed beat was sent, or None."""
        return None if self._confirmed is None else self.clock() - self._confirmed

    @property
    def until_fence(self) -> float:
        """Seconds until handlers have to be stopped; at most 0 when that moment has passed."""
        return self.until_lapse - self.safety

    @property
    def until_lapse(self) -> float:
        """Seconds until another daemon may take our jobs."""
        return (
            -1.0 if self._confirmed is None else self._confirmed + self.period.total_seconds() - self.clock()
        )

    @property
    def valid(self) -> bool:
        """Whether handlers may run."""
        return self.until_fence > 0
