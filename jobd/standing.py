"""Why a job is where it is: what the database says of it, and the reasons that follow.

`reasons` is pure. It tells all that holds a job up, the firmest first: what somebody has to undo, then what
passes by itself, then what is only a matter of turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from jobd.duration import format_duration
from jobd.job import Job, JobState

SECOND = timedelta(seconds=1)
# As many as are counted of those ahead.
COUNTED = 10_000
# As many of those that have its key are named.
SHOWN = 10


class Why(StrEnum):
    """What holds a job up, or ended it."""

    NOT_DUE = "not_due"
    RETRY = "retry"
    SNOOZED = "snoozed"
    STAGING = "staging"
    QUEUE_PAUSED = "queue_paused"
    NO_WORKER = "no_worker"
    NOT_SERVED = "not_served"
    KIND_UNKNOWN = "kind_unknown"
    KEY_FULL = "key_full"
    KEY_ORDER = "key_order"
    USE_CASE_FULL = "use_case_full"
    TENANT_FULL = "tenant_full"
    QUEUE_FULL = "queue_full"
    RATE = "rate"
    SUSPECT = "suspect"
    DEADLINE = "deadline"
    NO_SLOT = "no_slot"
    BEHIND = "behind"
    NEXT = "next"
    RUNNING = "running"
    STOPPING = "stopping"
    WORKER_LOST = "worker_lost"
    ENDED = "ended"


class Reason(NamedTuple):
    """One reason: a word for programs, a sentence for people, and when it passes, where that is known."""

    why: Why
    text: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A job's state and why it is there, the firmest reason first."""

    id: UUID
    state: JobState
    queue: str
    kind: str
    reasons: Sequence[Reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What block `standing` says. Limits are None where there are none."""

    id: UUID
    state: str
    queue: str
    kind: str
    tenant_id: str | None
    use_case: str | None
    concurrency_key: str | None
    priority: int
    run_at: datetime
    deadline_at: datetime
    delay_tolerance: timedelta | None
    deadline_policy: str
    attempt: int
    crashes: int
    claim_no: int
    worker_id: UUID | None
    claimed_at: datetime | None
    cancel_requested_at: datetime | None
    error: dict[str, Any] | None
    moment: datetime
    paused_at: datetime | None
    paused_by: str | None
    queue_limit: int | None
    fair: bool
    queue_running: int
    tenant_limit: int | None
    tenant_running: int
    use_case_limit: int | None
    use_case_running: int
    key_limit: int | None
    ordered: bool
    key_running: list[UUID]
    key_before: UUID | None
    queue_rate_until: datetime | None
    tenant_rate_until: datetime | None
    key_rate_until: datetime | None
    worker_host: str | None
    worker_pid: int | None
    worker_lease_until: datetime | None
    workers: int
    serving: int
    knowing: int
    free: int
    ahead: int
    ahead_by_priority: int
    ended_per_second: float | None


def reasons(job: Standing) -> list[Reason]:
    """Why it is where it is."""
    match job.state:
        case "running":
            return _running(job)
        case "scheduled":
            return [*_scheduled(job), *_deadline(job)]
        case _:
            found = [*_barred(job), *_limits(job), *_turn(job)]
            if not found:
                found = [Reason(Why.NEXT, "nothing holds it up: it is among the next to start")]
            return [*found, *_deadline(job)]


def ended(job: Job) -> list[Reason]:
    """Why a finished job ended as it did."""
    when = f" {_ago(job.finished_at)}" if job.finished_at else ""
    because = f": {job.reason}" if job.reason else ""
    error = _error(job.errors[-1]) if job.errors and job.state == "dead" else ""
    return [Reason(Why.ENDED, f"it {_ENDED[job.state]}{when} in attempt {job.attempt}{because}{error}")]


_ENDED = {"succeeded": "succeeded", "cancelled": "was cancelled", "dead": "died"}


def _running(job: Standing) -> list[Reason]:
    at = job.claimed_at or job.moment
    if job.worker_lease_until is None or job.worker_lease_until < job.moment:
        since = "" if job.worker_lease_until is None else f" {_for(job.moment - job.worker_lease_until)} ago"
        text = f"its worker {job.worker_id} is lost (its lease ended{since}): another daemon puts it back"
        return [Reason(Why.WORKER_LOST, text)]
    where = f"worker {job.worker_id} ({job.worker_host}, process {job.worker_pid})"
    found = [Reason(Why.RUNNING, f"attempt {job.attempt} runs on {where} for {_for(job.moment - at)}")]
    if job.cancel_requested_at is not None:
        asked = _for(job.moment - job.cancel_requested_at)
        found.append(Reason(Why.STOPPING, f"its handler was asked {asked} ago to stop"))
    return found


def _scheduled(job: Standing) -> list[Reason]:
    left = job.run_at - job.moment
    if left <= timedelta(0):
        text = f"it is due since {_for(-left)}: the next daemon that looks makes it ready"
        found = [Reason(Why.STAGING, text)] if job.workers else []
    elif job.error is not None and job.attempt > 0:
        text = f"it waits {_for(left)} for attempt {job.attempt + 1}, because attempt {job.attempt} failed"
        found = [Reason(Why.RETRY, text + _error(job.error), job.run_at)]
    elif job.claim_no > 0:
        found = [Reason(Why.SNOOZED, f"it was put back, and is due again in {_for(left)}", job.run_at)]
    else:
        found = [Reason(Why.NOT_DUE, f"it is due in {_for(left)}", job.run_at)]
    return found if job.workers else [*found, _no_worker()]


def _no_worker() -> Reason:
    return Reason(Why.NO_WORKER, "no worker is alive: start one with `jobd run`")


def _barred(job: Standing) -> list[Reason]:
    """What passes only when somebody does something."""
    found = []
    if job.paused_at is not None:
        since = _for(job.moment - job.paused_at)
        by = job.paused_by or "somebody unknown"
        remedy = f"`jobd queues resume {job.queue}`"
        found.append(Reason(Why.QUEUE_PAUSED, f"queue {job.queue} is paused for {since} by {by}: {remedy}"))
    if not job.workers:
        found.append(_no_worker())
    elif not job.serving:
        text = f"none of {job.workers} live workers serves queue {job.queue}: `jobd run --queues {job.queue}`"
        found.append(Reason(Why.NOT_SERVED, text))
    elif not job.knowing:
        text = f"none of {job.serving} live workers of queue {job.queue} has a handler for kind {job.kind}"
        found.append(Reason(Why.KIND_UNKNOWN, text))
    return found


def _limits(job: Standing) -> list[Reason]:
    found = []
    if job.key_before is not None:
        text = f"jobs of key {job.concurrency_key} run in order: {job.key_before} is before it"
        found.append(Reason(Why.KEY_ORDER, text))
    if job.key_limit is not None and len(job.key_running) >= job.key_limit:
        which = ", ".join(map(str, job.key_running[:SHOWN])) + (
            ", ..." if len(job.key_running) > SHOWN else ""
        )
        text = f"key {job.concurrency_key} has {len(job.key_running)} of {job.key_limit} running: {which}"
        found.append(Reason(Why.KEY_FULL, text))
    for why, what, running, most in (
        (Why.USE_CASE_FULL, f"use case {job.use_case}", job.use_case_running, job.use_case_limit),
        (Why.TENANT_FULL, f"tenant {job.tenant_id}", job.tenant_running, job.tenant_limit),
        (Why.QUEUE_FULL, f"queue {job.queue}", job.queue_running, job.queue_limit),
    ):
        if most is not None and running >= most:
            found.append(Reason(why, f"{what} has {running} of {most} running"))
    for what, until in (
        (f"key {job.concurrency_key}", job.key_rate_until),
        (f"tenant {job.tenant_id}", job.tenant_rate_until),
        (f"queue {job.queue}", job.queue_rate_until),
    ):
        if until is not None:
            left = _for(max(until - job.moment, timedelta(0)))
            found.append(Reason(Why.RATE, f"{what} has spent its rate: the next may start in {left}", until))
    return found


def _turn(job: Standing) -> list[Reason]:
    """What is only a matter of turn."""
    found = []
    if job.crashes > 0:
        text = f"{job.crashes} of its runs took their worker down: such jobs run without neighbours"
        found.append(Reason(Why.SUSPECT, text))
    if job.ahead:
        number = f"{job.ahead:,}" if job.ahead < COUNTED else f"{COUNTED:,} or more"
        higher = f", {job.ahead_by_priority:,} of them at a higher priority" if job.ahead_by_priority else ""
        turns = "; its queue is fair, so tenants take turns" if job.fair else ""
        start, until = "", None
        if job.ended_per_second and job.ahead < COUNTED:
            left = timedelta(seconds=job.ahead / job.ended_per_second)
            start, until = f", at the pace of the last minutes for another {_for(left)}", job.moment + left
        found.append(Reason(Why.BEHIND, f"{number} jobs are before it{higher}{start}{turns}", until))
    if job.knowing and not job.free:
        found.append(Reason(Why.NO_SLOT, f"all slots of {job.knowing} workers that could run it are taken"))
    return found


def _deadline(job: Standing) -> list[Reason]:
    if job.delay_tolerance is None:
        return []
    left = job.deadline_at - job.moment
    if job.deadline_policy == "drop":
        verb = "ends it, unrun" if left > timedelta(0) else "has passed: it ends without having run"
    elif left > timedelta(0):
        return []
    else:
        verb = "has passed: it runs late"
    when = f" in {_for(left)}" if left > timedelta(0) else f" of {_for(-left)} ago"
    return [Reason(Why.DEADLINE, f"its deadline{when} {verb}", job.deadline_at)]


def _error(error: dict[str, Any]) -> str:
    lines = str(error.get("message") or "").strip().splitlines() or [""]
    said = f": {lines[0][:200]}" if lines[0] else ""
    return f" ({error.get('type', 'error')}{said})"


def _for(span: timedelta) -> str:
    """Readable: to the second, from a minute on without fractions."""
    if span < SECOND:
        return "less than 1s"
    return format_duration(timedelta(seconds=int(span.total_seconds())))


def _ago(moment: datetime) -> str:
    return f"at {moment.astimezone():%Y-%m-%d %H:%M:%S}"
