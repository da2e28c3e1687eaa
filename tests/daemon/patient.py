"""The application of `handlers`, in a daemon that keeps what it holds: however busy the machine is, what it
measures passes for quick, and nothing goes back for having waited too long, or behind what takes long.
"""

from __future__ import annotations

from jobd.engine import executor, limits, prefetch
from tests.daemon.handlers import jobs

__all__ = ["jobs"]

executor.HOLD_LIMIT = 60.0
prefetch.HOLD_SECONDS = 10.0
limits.MOMENT = 60.0
