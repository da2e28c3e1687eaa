"""Why a job is where it is: from what the database says of it, without asking anything.

All that holds a job up is told, the firmest first: what somebody has to undo, then what passes by itself,
then what is only a matter of turn.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from jobd.duration import format_duration
from jobd.job import Job
from jobd.standing import Reason, Standing, Why

SECOND = timedelta(seconds=1)
# As many as are counted of those ahead.
COUNTED = 10_000
# As many of those that have its key are named.
SHOWN = 10


def reasons(job: Standing) -> list[Reason]:
    """Why it is where it is."""
    match job.state:
        case "running":
            return _running(job)
        case _ if _dropped(job):
            return [*_deadline(job), *_barred(job)]
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
        return [*_barred(job), *([Reason(Why.STAGING, text)] if job.workers else [])]
    if job.error is not None and job.attempt > 0:
        text = f"it waits {_for(left)} for attempt {job.attempt + 1}, because attempt {job.attempt} failed"
        return [Reason(Why.RETRY, text + _error(job.error), job.run_at), *_barred(job)]
    if job.claim_no > 0:
        # Also by a worker that did not know its kind: then that is why.
        text = f"it was put back, and is due again in {_for(left)}"
        return [*_barred(job), Reason(Why.SNOOZED, text, job.run_at)]
    return [Reason(Why.NOT_DUE, f"it is due in {_for(left)}", job.run_at), *_barred(job)]


def _barred(job: Standing) -> list[Reason]:
    """What passes only when somebody does something."""
    found = []
    if job.paused_at is not None:
        since = _for(job.moment - job.paused_at)
        by = job.paused_by or "somebody unknown"
        remedy = f"`jobd queues resume {job.queue}`"
        found.append(Reason(Why.QUEUE_PAUSED, f"queue {job.queue} is paused for {since} by {by}: {remedy}"))
    if not job.workers:
        found.append(Reason(Why.NO_WORKER, "no worker is alive: start one with `jobd run`"))
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


def _dropped(job: Standing) -> bool:
    """Whether its deadline has passed, and ends it."""
    late = job.delay_tolerance is not None and job.deadline_at <= job.moment
    return late and job.deadline_policy == "drop"


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
