"""What a handler may raise to say how its run should end.

These are answers, not failures: `Snooze`, `Cancel`, `Discard` and `RetryAfter` leave the handler
as exceptions only because that is how Python leaves a function from any depth. Anything else
that a handler raises is a failure and is retried as its backoff says.
"""

from __future__ import annotations

from datetime import timedelta

from jobd.duration import parse_duration


class Outcome(Exception):
    """The root of the four answers."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Snooze(Outcome):
    """Run this job again after `delay`; the attempt is given back, so it may be done for ever."""

    def __init__(self, delay: timedelta | str | float, reason: str = "") -> None:
        self.delay = parse_duration(delay, setting="Snooze")
        super().__init__(reason or "snoozed by its handler")


class Cancel(Outcome):
    """Stop this job: it ends `cancelled`, with the reason recorded."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "cancelled by its handler")


class Discard(Outcome):
    """Give this job up: it ends `dead` now, whatever attempts are left, with the reason recorded."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "discarded by its handler")


class RetryAfter(Outcome):
    """This attempt failed; try again after `delay` in place of the backoff, while attempts are left."""

    def __init__(self, delay: timedelta | str | float, reason: str = "") -> None:
        self.delay = parse_duration(delay, setting="RetryAfter")
        super().__init__(reason or "its handler asked for a later retry")
