"""The claims that this process holds, from the claim's answer until its end is durable.

Written by the work loop, read by the control thread's heartbeat, which compares it with what the
database believes. Every access is one operation on a dict, which the interpreter makes atomic.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from jobd.job import Claimed


class Stop(Enum):
    """Why a run is being stopped before its handler ended by itself."""

    CANCEL = "cancelled on request"
    TIMEOUT = "timed out"
    SHUTDOWN = "the daemon is shutting down"
    FENCE = "the lease could not be confirmed"
    LOST = "the claim was lost"


@dataclass(slots=True, eq=False)
class Run:
    """One run of one claim."""

    claim: Claimed
    started: float = field(default_factory=time.monotonic)
    task: asyncio.Task[object] | None = None
    stop: Stop | None = None
    # The job ended inside ctx.transaction(); nothing that happens later changes it.
    recorded: bool = False
    # The handler's code may still be executing, here or in a thread.
    active: bool = True
    # The verdict was given; whatever the handler still does is ignored.
    closed: bool = False
    holds_slot: bool = False
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


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
