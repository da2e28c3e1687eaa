"""The claims that this process holds, from the claim's answer until its end is durable.

Written by the work loop, read by the control thread's heartbeat, which compares it with what the
database believes. Every access is one operation on a dict, which the interpreter makes atomic.
"""

from __future__ import annotations

import asyncio
import time
from enum import Enum
from typing import Protocol
from uuid import UUID

from jobd.job import Claimed
from jobd.registry import Handler


class Context(Protocol):
    """What the engine needs of the context that handlers see."""

    def ask_to_stop(self) -> None: ...


class Stop(Enum):
    """Why a run is being stopped before its handler ended by itself."""

    CANCEL = "cancelled on request"
    TIMEOUT = "timed out"
    SHUTDOWN = "the daemon is shutting down"
    FENCE = "the lease could not be confirmed"
    LOST = "the claim was lost"


# A thread that is stopped for these is asked to end, and waited for.
GENTLE = (Stop.SHUTDOWN, Stop.FENCE)


class Run:
    """One run of one claim."""

    __slots__ = (
        "active", "claim", "closed", "context", "ends_at", "entered", "handler", "holds_slot", "lasts",
        "limited", "recorded", "started", "stop", "task", "timer", "waited",
    )  # fmt: skip

    def __init__(self, claim: Claimed, handler: Handler | None = None, *, limited: bool = False) -> None:
        self.claim = claim
        self.handler = handler
        # It was claimed under limits over all daemons.
        self.limited = limited
        self.started = time.monotonic()
        # How many seconds it was held for want of a slot.
        self.waited = 0.0
        self.task: asyncio.Task[None] | None = None
        # The task took its first step: a cancellation reaches the code in it.
        self.entered = False
        # What the handler was given, if it asked for it.
        self.context: Context | None = None
        self.stop: Stop | None = None
        # The job ended inside ctx.transaction(); nothing that happens later changes it.
        self.recorded = False
        # The handler's code may be executing, here or in a thread.
        self.active = False
        # The verdict was given; whatever the handler still does is ignored.
        self.closed = False
        self.holds_slot = False
        # The handler has outlived a moment.
        self.lasts = False
        # When the attempt's time is over, by the loop's clock, and what will tell.
        self.ends_at = 0.0
        self.timer: asyncio.TimerHandle | None = None


class Holdings:
    """Runs by job id."""

    def __init__(self) -> None:
        self._runs: dict[UUID, Run] = {}

    def add(self, run: Run) -> None:
        """Hold a claim."""
        self._runs[run.claim.id] = run

    def drop(self, run: Run) -> None:
        """Its end is durable, or the claim is lost."""
        if self._runs.get(run.claim.id) is run:
            del self._runs[run.claim.id]

    def get(self, id: UUID) -> Run | None:
        """The run of this job, if this process holds it."""
        return self._runs.get(id)

    def runs(self) -> list[Run]:
        """All of them; safe from any thread."""
        return list(self._runs.copy().values())

    def __len__(self) -> int:
        return len(self._runs)
