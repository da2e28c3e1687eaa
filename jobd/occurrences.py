"""Which occurrences of a schedule run, now that some are due, and which were missed.

    due, in order ─ later than the grace ─────────────────────────────> missed
                  └ within it ─ catch_up: the newest, or all up to a cap ─> fire
                                                      └ the others ───────> missed

Pure: what is due follows from the schedule, its state and the time alone, so that any number of
schedulers, at any time, come to the same answer.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

# A stretch of missed occurrences is counted up to this many: years of seconds would take minutes.
COUNTED = 10_000


class Recurs(Protocol):
    """What is needed of a schedule."""

    def next_after(self, moment: datetime) -> datetime | None: ...


class CatchUp(StrEnum):
    """What happens to occurrences that are due when a scheduler comes to look at them."""

    LAST = "last"
    """Only the newest runs."""
    SKIP = "skip"
    """As `last`, but nothing that is later than the grace, 300 s unless told otherwise."""
    ALL = "all"
    """Each runs, the newest ones where they are more than the cap."""


GRACE_OF_SKIP = timedelta(seconds=300)


class Policy(NamedTuple):
    """How a schedule deals with lateness. No grace: an occurrence may run however late it is."""

    catch_up: CatchUp = CatchUp.LAST
    grace: timedelta | None = None
    # Of `all`: how many occurrences run at most, and how far apart.
    cap: int = 100
    stagger: timedelta = timedelta(0)
    ends_at: datetime | None = None


class Fire(NamedTuple):
    """An occurrence that runs: what it is called by, and when its job is due."""

    fire_at: datetime
    run_at: datetime


class Stretch(NamedTuple):
    """Occurrences in a row that were missed, from the first to the last. `number` ends at COUNTED."""

    first: datetime
    last: datetime
    number: int
    reason: str


class Plan(NamedTuple):
    """What to do about a schedule now, and which occurrence comes next: None, no other ever."""

    fires: tuple[Fire, ...]
    missed: Stretch | None
    next_fire_at: datetime | None


def plan(schedule: Recurs, policy: Policy, first: datetime, now: datetime, *, runs_left: int | None) -> Plan:
    """Decide about the occurrences from `first` to `now`. At most `runs_left` run."""
    cap = policy.cap if policy.catch_up is CatchUp.ALL else 1
    if runs_left is not None:
        cap = min(cap, runs_left)
    due = _due(schedule, first, now, policy.ends_at, newest=cap + 1)
    earliest = None if policy.grace is None else now - policy.grace
    chosen = [
        moment for moment in list(due.newest)[-cap:] if cap and (earliest is None or moment >= earliest)
    ]
    fires = tuple(
        Fire(moment, moment if place == 0 else now + policy.stagger * place)
        for place, moment in enumerate(chosen)
    )
    if due.number == len(chosen):
        missed = None
    else:
        last = due.newest[-1 - len(chosen)]
        too_late = earliest is not None and last < earliest
        missed = Stretch(first, last, due.number - len(chosen), "misfire_grace" if too_late else "catch_up")
    return Plan(fires, missed, due.next)


def pass_over(
    schedule: Recurs, first: datetime, now: datetime, *, ends_at: datetime | None, reason: str
) -> Plan:
    """Let none of the occurrences from `first` to `now` run: while a schedule is paused, say."""
    due = _due(schedule, first, now, ends_at, newest=1)
    missed = Stretch(first, due.newest[-1], due.number, reason) if due.number else None
    return Plan((), missed, due.next)


class _Due(NamedTuple):
    number: int
    newest: deque[datetime]
    next: datetime | None


def _due(schedule: Recurs, first: datetime, now: datetime, ends_at: datetime | None, *, newest: int) -> _Due:
    """The occurrences from `first` to `now`, of which only the newest are kept, and the one after."""
    upto = now if ends_at is None else min(now, ends_at)
    kept: deque[datetime] = deque(maxlen=newest)
    count, moment = 0, _at_most(first, ends_at)
    while moment is not None and moment <= upto and count < COUNTED:
        kept.append(moment)
        count += 1
        moment = schedule.next_after(moment)
    if moment is not None and moment <= upto:
        # Too many to go through one by one: look back from now, further and further, for the newest.
        span = timedelta(seconds=newest)
        while True:
            kept.clear()
            moment = schedule.next_after(upto - span)
            while moment is not None and moment <= upto:
                kept.append(moment)
                moment = schedule.next_after(moment)
            if len(kept) == newest:
                break
            span *= 2
    return _Due(count, kept, _at_most(moment, ends_at))


def _at_most(moment: datetime | None, ends_at: datetime | None) -> datetime | None:
    return None if moment is None or (ends_at is not None and moment > ends_at) else moment
