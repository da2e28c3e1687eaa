"""What an operation does to many jobs: the verbs, and what each is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from jobd.job import FINISHED, JobState
from jobd.lifecycle import RUNNING, WAITING
from jobd.selection import Already
from jobd.sweeps import Moved, Sweeps


class Span(NamedTuple):
    """From this moment on and before that one."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What is done to jobs: to those that live, to those that have ended, or to both."""

    verb: str
    takes: frozenset[JobState]
    unless_said: frozenset[JobState]
    """The states that are meant where none is named."""
    change: Mapping[str, Any] = field(default_factory=dict)
    """What they get, for the audit."""
    already: Already = field(default_factory=Already)
    """Which ones have that, and are not meant."""
    live: Callable[[Sweeps, Sequence[UUID], UUID, frozenset[JobState]], Awaitable[Moved]] | None = None
    past: Callable[[Sweeps, Sequence[UUID], UUID, Span], Awaitable[Moved]] | None = None


def cancelling(reason: str) -> Act:
    """Waiting jobs end `cancelled`; the workers of running ones are asked to stop."""
    return Act(
        verb="cancel",
        takes=WAITING | RUNNING,
        unless_said=WAITING | RUNNING,
        change={"reason": reason},
        already=Already(asked=True),
        live=lambda sweeps, ids, audit_id, states: sweeps.cancel_many(
            ids, states=states, reason=reason, audit_id=audit_id
        ),
    )


def retrying() -> Act:
    """Jobs that have ended are `ready` again; dead ones, unless others are named."""
    return Act(
        verb="retry",
        takes=FINISHED,
        unless_said=frozenset({JobState.DEAD}),
        past=lambda sweeps, ids, audit_id, span: sweeps.retry_many(
            ids, since=span.since, until=span.until, audit_id=audit_id
        ),
    )


def rescheduling(
    *, run_at: datetime | None = None, priority: int | None = None, now: datetime | None = None
) -> Act:
    """Waiting jobs get another time, another priority, or both."""
    change = {"run_at": run_at and run_at.isoformat(), "priority": priority}
    return Act(
        verb="reschedule",
        takes=WAITING,
        unless_said=WAITING,
        change={name: value for name, value in change.items() if value is not None},
        already=Already(run_at=run_at, priority=priority),
        live=lambda sweeps, ids, audit_id, states: sweeps.reschedule_many(
            ids, states=states, run_at=run_at, priority=priority, audit_id=audit_id, now=now
        ),
    )


def moving(queue: str) -> Act:
    """Waiting jobs go into another queue."""
    return Act(
        verb="move",
        takes=WAITING,
        unless_said=WAITING,
        change={"queue": queue},
        already=Already(queue=queue),
        live=lambda sweeps, ids, audit_id, states: sweeps.move_many(
            ids, states=states, queue=queue, audit_id=audit_id
        ),
    )


def deleting() -> Act:
    """Jobs that do not run are gone. Tombstones stay, until their day is over."""
    return Act(
        verb="delete",
        takes=WAITING | FINISHED,
        unless_said=WAITING | FINISHED,
        live=lambda sweeps, ids, audit_id, states: sweeps.delete_many(ids, states=states, audit_id=audit_id),
        past=lambda sweeps, ids, audit_id, span: sweeps.delete_past(
            ids, since=span.since, until=span.until, audit_id=audit_id
        ),
    )
