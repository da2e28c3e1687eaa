"""What the end of a child means: for its place, for the whole, and for the exit code. Pure.

told to end             its place stays empty; its code counts
nothing left to do      likewise (`--until-idle`)
the first of all, never started          the whole ends as it did: settings, application, database
never started in its place, exit code 2  likewise: what is wrong there is wrong at every try
anything else           another one comes, at once or after a pause
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

CONFIG: Final = 2
FAILED: Final = 1
FENCED: Final = 70

LONGEST_PAUSE: Final = 30.0
SETTLED_SECONDS: Final = 60.0


class Verdict(Enum):
    """What follows."""

    DONE = auto()
    FATAL = auto()
    REPLACE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a child ended. `code` is negative for the signal that killed it, as Python has it."""

    code: int
    started: bool
    """Whether it got as far as working."""
    told: bool
    """Whether the supervisor had told all to end."""
    retired: bool = False
    """Whether the supervisor had told this one alone: it did not answer any more."""

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"

    @property
    def exit_code(self) -> int:
        """Its code as a shell has it, when it ended by itself."""
        return 128 - self.code if self.code < 0 else self.code

    @property
    def loss(self) -> int:
        """Its code as the end of a child that was told to: 0 when nothing was lost from memory."""
        if self.code == -signal.SIGTERM and not self.started:
            return 0  # it had nothing yet
        return FAILED if self.code < 0 else self.code


def judge(end: End, *, until_idle: bool, any_started: bool, place_started: bool) -> Verdict:
    """What follows this end; the rest is what is known of the children before it and beside it."""
    if end.told or (until_idle and end.code == 0 and end.started and not end.retired):
        return Verdict.DONE
    if not end.started and (not any_started or (end.code == CONFIG and not place_started)):
        return Verdict.FATAL
    return Verdict.REPLACE


def whole(losses: list[int]) -> int:
    """The exit code of a supervisor whose last children ended like this: 70 before 1 before 0."""
    if FENCED in losses:
        return FENCED
    return FAILED if any(losses) else 0


class Pauses:
    """How long a place stays empty: not at all the first time, then growing, until one child has settled."""

    def __init__(self) -> None:
        self._failures = 0

    def after(self, lived_seconds: float) -> float:
        """Seconds to wait after the end of a child that has lived so long."""
        if lived_seconds >= SETTLED_SECONDS:
            self._failures = 0
        self._failures += 1
        return 0.0 if self._failures == 1 else min(LONGEST_PAUSE, 2.0 ** (self._failures - 2))
