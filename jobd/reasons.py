"""Why a job is where it is: from what the database says of it, without asking anything.

All that holds a job up is told, the firmest first: what somebody has to undo, then what passes by itself,
then what is only a matter of turn.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from jobd.job import Job
from jobd.standing import Reason, Standing, Why
from jobd.wording import brief_span, command, count, error_text

# As many as are counted of those ahead, in each part of a queue.
COUNTED = 10_000
# An estimate takes so many ends, over so long a time.
ENOUGH, LONG_ENOUGH = 10, timedelta(seconds=3)
# At its second death with a job a worker takes one such job at a time; a setting may say otherwise.
SUSPECT_FROM = 2
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
            found = [*_barred(job), *_limits(job)]
            # What is the queue's own is in its pace.
            estimating = all(reason.why in (Why.QUEUE_FULL, Why.RATE) for reason in found)
            found += _turn(job, estimating=estimating)
            return [*(found or [_next(job)]), *_deadline(job)]


def ended(job: Job) -> list[Reason]:
    """Why a finished job ended as it did."""
    text = f"it {_ENDED[job.state]}"
    if job.finished_at is not None:
        text += f" at {job.finished_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    if job.attempt:
        # One that ended while it waited, for another attempt say, was in no worker's hands.
        text += f" {'after' if job.claimed_at is None else 'in'} attempt {job.attempt}"
    elif job.kept and job.claim_no == 0:
        text += " without having run"
    text += f": {job.reason}" if job.reason else ""
    if job.state == "dead":
        text += error_text(job.errors[-1]) if job.errors else ""
        text += f"; `jobd retry {job.id}` runs it again" if job.kept else ""
    return [Reason(Why.ENDED, text)]


_ENDED = {"succeeded": "succeeded", "cancelled": "was cancelled", "dead": "died"}


def _running(job: Standing) -> list[Reason]:
    worker = f"worker {job.worker_id}"
    if job.worker_lease_until is None or job.worker_beat_at is None:
        return [Reason(Why.WORKER_LOST, f"its {worker} is lost, and known to be: {_rescue(job, None)}")]
    worker += f" ({job.worker_host}, process {job.worker_pid})"
    silence = job.moment - job.worker_beat_at
    if job.worker_lease_until < job.moment:
        text = f"its {worker} is lost: it was last heard of {brief_span(silence)} ago"
        return [Reason(Why.WORKER_LOST, f"{text}; {_rescue(job, job.rescue_at)}", job.rescue_at)]
    found = []
    if silence > (job.worker_lease_until - job.worker_beat_at) / 2:
        until = None if job.rescue_at is None else max(job.worker_lease_until, job.rescue_at)
        text = f"its {worker} was not heard of for {brief_span(silence)}; unless it is, {_rescue(job, until)}"
        found.append(Reason(Why.WORKER_SILENT, text, until))
    since = brief_span(job.moment - (job.claimed_at or job.moment))
    text = f"attempt {job.attempt} runs on {worker} for {since}"
    if job.worker_stopping_at is not None:
        text += f", which is stopping since {brief_span(job.moment - job.worker_stopping_at)}"
    found.append(Reason(Why.RUNNING, text))
    if job.cancel_requested_at is not None:
        asked = brief_span(job.moment - job.cancel_requested_at)
        found.append(Reason(Why.STOPPING, f"its handler was asked {asked} ago to stop"))
    if job.deadline_policy == "drop" and job.delay_tolerance is not None:
        left = job.deadline_at - job.moment
        text = f"its deadline was {brief_span(-left)} ago: its handler was to stop then"
        if left > timedelta(0):
            text = f"its handler is stopped at its deadline, in {brief_span(left)}"
        found.append(Reason(Why.DEADLINE, text, job.deadline_at))
    return found


def _rescue(job: Standing, at: datetime | None) -> str:
    """What becomes of it without its worker, and when; `at` is None where nothing has to pass before."""
    fate = "the job ends cancelled" if job.cancel_requested_at is not None else "the job is put back"
    if job.crashes and job.cancel_requested_at is None:
        fate += f" (or ends dead, if `crash_limit`, 3 unless set, is {job.crashes + 1} or less)"
    if job.rescue_at is None:
        return f"once another worker is alive, {fate}: start one with `jobd run`"
    if at is None or at <= job.moment:
        return f"any moment now {fate}"
    return f"in {brief_span(at - job.moment)} {fate}"


def _scheduled(job: Standing) -> list[Reason]:
    barred = _barred(job)
    left = job.run_at - job.moment
    if left <= timedelta(0):
        text = f"it is due since {brief_span(-left)}: the next worker that looks makes it ready"
        return [*barred, *([Reason(Why.STAGING, text)] if job.workers else [])]
    due = f"it is due in {brief_span(left)}"
    if job.claim_no == 0:
        return [Reason(Why.NOT_DUE, due, job.run_at), *_delays(job), *barred]
    if job.error is not None and job.attempt > 0 and job.claim_no == 2 * job.attempt:
        # Each of its runs counted as an attempt, so the last one failed.
        text = (
            f"it waits {brief_span(left)} for attempt {job.attempt + 1}, because attempt {job.attempt} failed"
        )
        return [Reason(Why.RETRY, text + error_text(job.error), job.run_at), *barred]
    # What put it back is not recorded: its handler, a failure, or a worker that did not know its kind.
    if job.generation == 0 and job.attempt == 0:
        text, why = f"it was put back, and is due again in {brief_span(left)}", Why.SNOOZED
    else:
        text, why = due, Why.RETRY if job.attempt > 0 else Why.NOT_DUE
    if job.attempt > 0:
        text += f" for attempt {job.attempt + 1}"
    return [*barred, Reason(why, text + _last_error(job), job.run_at)]


def _delays(job: Standing) -> list[Reason]:
    """Its tenant had as many jobs waiting as it may, and those beyond become due later: perhaps this one."""
    until, most = job.tenant_delays_until, job.tenant_delays_from
    if until is None or most is None or until < job.run_at:
        return []
    text = (
        f"tenant {job.tenant_id} may have {count(most, 'job')} waiting, and more are delayed:"
        f" {max(most, 1)} a minute become due, the last in {brief_span(until - job.moment)};"
        f" {command('tenants set', job.tenant_id, '--max-pending N')} admits more"
    )
    return [Reason(Why.TENANT_DELAYS, text)]


def _barred(job: Standing) -> list[Reason]:
    """What passes only when somebody does something."""
    found = []
    if job.paused_at is not None:
        since = brief_span(job.moment - job.paused_at)
        by = job.paused_by or "somebody unknown"
        text = f"queue {job.queue} is paused for {since} by {by}: {command('queues resume', job.queue)}"
        found.append(Reason(Why.QUEUE_PAUSED, text))
    if not job.workers:
        text = "no worker is alive"
        if job.stopping:
            text = f"no worker takes jobs, {count(job.stopping, 'worker is', 'workers are')} stopping"
        elif job.beaten_at is not None:
            text = f"no worker is alive, the last was heard of {brief_span(job.moment - job.beaten_at)} ago"
        found.append(Reason(Why.NO_WORKER, f"{text}: start one with `jobd run`"))
    elif not job.serving:
        none = "the only live worker does not serve"
        if job.workers > 1:
            none = f"none of {job.workers} live workers serves"
        text = f"{none} queue {job.queue}: {command('run --queue', job.queue)}"
        found.append(Reason(Why.NOT_SERVED, text))
    elif not job.knowing:
        none = f"the only live worker of queue {job.queue} has no handler"
        if job.serving > 1:
            none = f"none of {job.serving} live workers of queue {job.queue} has a handler"
        text = f"{none} for kind {job.kind}: start one whose application has it"
        found.append(Reason(Why.KIND_UNKNOWN, text))
    return found


def _limits(job: Standing) -> list[Reason]:
    found = []
    if job.key_before is not None:
        due = ""
        if job.key_before_state == "scheduled" and job.key_before_due is not None:
            due = f", due again in {brief_span(job.key_before_due - job.moment)}"
        text = f"jobs of key {job.concurrency_key} run in order, and {job.key_before} is before it{due}"
        found.append(Reason(Why.KEY_ORDER, f"{text}: `jobd explain {job.key_before}`"))
    if job.key_limit is not None and len(job.key_running) >= job.key_limit:
        which = ", ".join(map(str, job.key_running[:SHOWN]))
        which += ", ..." if len(job.key_running) > SHOWN else ""
        text = f"key {job.concurrency_key} has {len(job.key_running)} of {job.key_limit} running: {which}"
        if not job.ordered:
            text += f"; {command('kinds set', job.kind, '--key-limit N')} lets more run"
        found.append(Reason(Why.KEY_FULL, text))
    for why, what, name, running, most in (
        (Why.USE_CASE_FULL, "use case", job.use_case, job.use_case_running, job.use_case_limit),
        (Why.TENANT_FULL, "tenant", job.tenant_id, job.tenant_running, job.tenant_limit),
        (Why.QUEUE_FULL, "queue", job.queue, job.queue_running, job.queue_limit),
    ):
        if most is not None and running >= most:
            text = f"{what} {name} has {running} of {most} running"
            if most == 0:
                text = f"{what} {name} may run nothing, its `max_running` is 0"
            verb = what.replace(" ", "-") + "s set"
            found.append(Reason(why, f"{text}; {command(verb, name, '--max-running N')} lets more run"))
    for what, until in (
        (f"key {job.concurrency_key}", job.key_rate_until),
        (f"tenant {job.tenant_id}", job.tenant_rate_until),
        (f"queue {job.queue}", job.queue_rate_until),
    ):
        if until is not None:
            left = brief_span(max(until - job.moment, timedelta(0)))
            found.append(Reason(Why.RATE, f"{what} has spent its rate: the next may start in {left}", until))
    return found


def _turn(job: Standing, *, estimating: bool) -> list[Reason]:
    """What is only a matter of turn."""
    found = []
    if job.crashes >= SUSPECT_FROM and job.knowing and not job.trusting:
        text = f"{job.crashes} workers died while they ran it: a worker runs one such job at a time, and "
        text += "the only one that could does" if job.knowing == 1 else f"all {job.knowing} that could do"
        found.append(Reason(Why.SUSPECT, text))
    if job.ahead:
        found.append(_behind(job, estimating=estimating))
    if job.knowing and not job.free:
        which = "the only worker" if job.knowing == 1 else f"the {job.knowing} workers"
        found.append(Reason(Why.NO_SLOT, f"all slots of {which} that could run it are taken"))
    return found


def _behind(job: Standing, *, estimating: bool) -> Reason:
    more = " or more" if job.ahead + job.held >= COUNTED else ""
    turns, whose = "", ""
    if job.fair and job.tenant_id is None:
        turns = "; tenants take turns in its queue, and it has none, so it waits for all of those"
    elif job.fair:
        turns, whose = "; tenants take turns in its queue", " of its tenant"
    jobs = f"1 job{whose}" if job.ahead == 1 and not more else f"{job.ahead:,}{more} jobs{whose}"
    verb = "is" if jobs.startswith("1 job") else "are"
    if job.ahead_by_priority == job.ahead:
        text = f"{jobs} at a higher priority {verb} before it"
    else:
        text = f"{jobs} {verb} before it"
        if job.ahead_by_priority:
            text += f", {job.ahead_by_priority:,} of them at a higher priority"
    if job.held:
        held = "1 more is held up by a limit of its own"
        text += f" ({held if job.held == 1 else f'{job.held:,} more are held up by limits of their own'})"
    start = None if more or not estimating else _start(job)
    if start is None or job.ended_since is None:
        return Reason(Why.BEHIND, text + turns)
    pace = f"at the pace of the last {brief_span(job.moment - job.ended_since)}"
    return Reason(Why.BEHIND, f"{text}; {pace} it starts in about {brief_span(start - job.moment)}", start)


def _start(job: Standing) -> datetime | None:
    """When those before it have ended, where only the pace of its queue decides that, and is known."""
    own = (job.concurrency_key, job.use_case, job.tenant_limit, job.tenant_rate_until)
    if job.fair or job.held or any(limit is not None for limit in own) or job.ended_since is None:
        return None
    span = job.moment - job.ended_since
    if job.ended < ENOUGH or span < LONG_ENOUGH:
        return None
    return job.moment + span * job.ahead / job.ended


def _next(job: Standing) -> Reason:
    if not job.untouched:
        which = "its only worker" if job.knowing == 1 else f"each of its {job.knowing} workers"
        text = f"it is among the next to start, unless `concurrency` of queue {job.queue} or kind {job.kind}"
        text += f" is reached in {which}: that is known there alone"
    elif job.fair:
        whose = "of its tenant" if job.tenant_id is not None else "of those without a tenant"
        text = f"nothing holds it up: it is the next {whose}, and tenants take turns in its queue"
    else:
        text = "nothing holds it up: it is among the next to start"
    return Reason(Why.NEXT, text)


def _dropped(job: Standing) -> bool:
    """Whether its deadline has passed, and ends it."""
    late = job.delay_tolerance is not None and job.deadline_at <= job.moment
    return late and job.deadline_policy == "drop"


def _deadline(job: Standing) -> list[Reason]:
    """Of a job that waits."""
    if job.delay_tolerance is None:
        return []
    left = job.deadline_at - job.moment
    # What was put back may have run.
    unrun = ", without having run" if job.claim_no == 0 else ""
    if _dropped(job):
        text = f"its deadline of {brief_span(-left)} ago has passed: it ends{unrun}"
    elif left <= timedelta(0):
        text = f"its deadline of {brief_span(-left)} ago has passed: it runs late"
    elif job.deadline_policy == "drop":
        text = f"its deadline in {brief_span(left)} ends it{unrun}"
    else:
        return []
    return [Reason(Why.DEADLINE, text, job.deadline_at)]


def _last_error(job: Standing) -> str:
    """What is known of why it is not at its first attempt."""
    if job.error is None:
        return ""
    try:
        ago = f" {brief_span(job.moment - datetime.fromisoformat(job.error['at']))} ago"
    except (KeyError, TypeError, ValueError):
        ago = ""
    return f"; its last error was{ago} in attempt {job.error.get('attempt', '?')}{error_text(job.error)}"
