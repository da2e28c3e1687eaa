"""The life of a job: which moves there are, and what the end of a run means. Pure; no I/O.

                     stage                claim
       scheduled ------------> ready --------------> running ----------> succeeded
        ^     |                 |  ^                  |  |               cancelled
        |     +--cancel, expire-+--|------------------|--|------------>  dead
        |                          +-- release, rescue+  |
        +------------------- retry later, snooze --------+
        succeeded | cancelled | dead --- retry (operator) ---> ready

What a tenant has no room for is `dead` from the beginning, where it is not refused: `jobd.sift`.
`MOVES` names every SQL block that writes `state`, with the states it leaves and enters. The blocks
themselves stand in `sql/entry.sql` and `sql/lifecycle.sql` in the same order, but for `copy`, a part of
`enqueue_many` that stands in `sql/bulk.sql`, and the twins for many jobs at once, in `sql/sweep.sql`. `judge`
turns the outcome of a run into the verdict that `finish` writes. With a cancel request standing, `finish`,
`release` and `rescue` turn every end but a success into `cancelled`; only the database can know that in time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from jobd.backoff import Backoff
from jobd.job import FINISHED, Claimed, FinishedRun, JobState

UNKNOWN_KIND_DELAY = timedelta(seconds=15)

WAITING = frozenset({JobState.SCHEDULED, JobState.READY})
RUNNING = frozenset({JobState.RUNNING})
NOWHERE: frozenset[JobState] = frozenset()


@dataclass(frozen=True, slots=True)
class Move:
    """A block of SQL that writes `state`: from any of `sources` to one of `targets`."""

    sources: frozenset[JobState]
    targets: frozenset[JobState]


MOVES: dict[str, Move] = {
    "enqueue": Move(NOWHERE, WAITING | {JobState.DEAD}),
    "enqueue_new": Move(NOWHERE, WAITING),
    "enqueue_of_tenant": Move(NOWHERE, WAITING),
    "enqueue_many": Move(NOWHERE, WAITING | {JobState.DEAD}),
    "enqueue_keyed": Move(NOWHERE, WAITING | {JobState.DEAD}),
    "copy": Move(NOWHERE, WAITING),
    "copy_keyed": Move(NOWHERE, WAITING),
    "fire": Move(NOWHERE, WAITING | {JobState.DEAD}),
    "trigger": Move(NOWHERE, WAITING | {JobState.DEAD}),
    "stage": Move(frozenset({JobState.SCHEDULED}), frozenset({JobState.READY})),
    "expire": Move(WAITING, frozenset({JobState.DEAD})),
    "claim": Move(frozenset({JobState.READY}), RUNNING),
    "claim_victims": Move(frozenset({JobState.READY}), RUNNING),
    "claim_governed": Move(frozenset({JobState.READY}), RUNNING),
    "succeed": Move(RUNNING, frozenset({JobState.SUCCEEDED})),
    "succeed_tersely": Move(RUNNING, frozenset({JobState.SUCCEEDED})),
    "finish": Move(RUNNING, WAITING | {JobState.CANCELLED, JobState.DEAD}),
    "release": Move(RUNNING, frozenset({JobState.READY, JobState.CANCELLED})),
    "rescue": Move(RUNNING, frozenset({JobState.READY, JobState.CANCELLED, JobState.DEAD})),
    "cancel": Move(WAITING, frozenset({JobState.CANCELLED})),
    "retry": Move(FINISHED, frozenset({JobState.READY})),
    "reschedule": Move(WAITING, WAITING),
    "move": Move(WAITING, WAITING),
    "delete": Move(WAITING | FINISHED, NOWHERE),
    "prune": Move(FINISHED, NOWHERE),
    "cancel_many": Move(WAITING, frozenset({JobState.CANCELLED})),
    "reschedule_many": Move(WAITING, WAITING),
    "move_many": Move(WAITING, WAITING),
    "retry_many": Move(FINISHED, frozenset({JobState.READY})),
    "delete_many": Move(WAITING, NOWHERE),
    "delete_past": Move(FINISHED, NOWHERE),
}


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned; `result` is JSON text or None."""

    result: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised. `delay` is set when it asked for a time with `RetryAfter`."""

    error: str
    summary: str
    delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The attempt was stopped at its time limit; a failure with a reason of its own."""

    error: str
    summary: str


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler wants to run later, and no attempt counted."""

    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The handler, an operator or a client said stop."""

    reason: str


@dataclass(frozen=True, slots=True)
class Discarded:
    """The handler gave the job up."""

    reason: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The run was stopped for no fault of the job: a shutdown, or a lease that could not be confirmed."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The claim never became a run: it waited for a slot here when others could have had it."""


@dataclass(frozen=True, slots=True)
class Hopeless:
    """The claim never became a run: it would not end by the deadline that drops it, which is so far off."""

    left: timedelta


@dataclass(frozen=True, slots=True)
class KindUnknown:
    """This process has no handler for the kind; another, newer or older, may."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The job already ended inside `ctx.transaction()`: nothing is left to write."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The claim is not ours any more: nothing may be written."""


Outcome = (
    Succeeded
    | Failed
    | TimedOut
    | Snoozed
    | Cancelled
    | Discarded
    | Interrupted
    | NotStarted
    | Hopeless
    | KindUnknown
    | Recorded
    | Lost
)

OUTCOMES: dict[type, str] = {
    Succeeded: "succeeded",
    Failed: "failed",
    TimedOut: "timed_out",
    Snoozed: "snoozed",
    Cancelled: "cancelled",
    Discarded: "discarded",
    Interrupted: "interrupted",
    NotStarted: "not_started",
    Hopeless: "not_started",
    KindUnknown: "unknown_kind",
    Recorded: "succeeded",
    Lost: "stale",
}


def success(claim: Claimed, outcome: Succeeded) -> FinishedRun:
    """What `succeed` shall write; nearly every run ends so, whatever the job's rules are."""
    return FinishedRun(claim.id, claim.claim_no, JobState.SUCCEEDED, result=outcome.result)


def judge(
    claim: Claimed, outcome: Outcome, *, backoff: Backoff, max_attempts: int, rng: random.Random
) -> FinishedRun | None:
    """Return what `succeed` or `finish` shall write for this end of a run, or None for nothing.

    `claim.attempt` counts this run. A failure of the last attempt, and only that, makes a job
    `dead` here; runs that ended for no fault of the job give their attempt back.
    """

    def end(state: JobState, reason: str | None = None, **rest: object) -> FinishedRun:
        return FinishedRun(id=claim.id, claim_no=claim.claim_no, state=state, reason=reason, **rest)  # type: ignore[arg-type]

    def later(delay: timedelta, reason: str, **rest: object) -> FinishedRun:
        state = JobState.SCHEDULED if delay > timedelta(0) else JobState.READY
        return end(state, reason, delay=delay, **rest)

    match outcome:
        case Succeeded():
            return success(claim, outcome)
        case Failed(error, summary) | TimedOut(error, summary) if claim.attempt >= max_attempts:
            return end(JobState.DEAD, f"attempt {claim.attempt} of {max_attempts}: {summary}", error=error)
        case Failed(error, summary, delay) if delay is not None:
            return later(delay, summary, error=error)
        case Failed(error, summary) | TimedOut(error, summary):
            return later(backoff.delay(claim.attempt, rng=rng), summary, error=error)
        case Snoozed(delay, reason):
            return later(delay, reason, unburned=True)
        case Cancelled(reason):
            return end(JobState.CANCELLED, reason)
        case Discarded(reason):
            return end(JobState.DEAD, reason)
        case Interrupted(reason):
            return end(JobState.READY, reason, unburned=True)
        case NotStarted():
            return end(JobState.READY, unburned=True)
        case Hopeless(left):
            return later(left, "deadline", unburned=True)
        case KindUnknown():
            delay = UNKNOWN_KIND_DELAY * rng.uniform(1.0, 1.5)
            return later(delay, f"no handler for kind {claim.kind!r}", unburned=True)
        case Recorded() | Lost():
            return None
