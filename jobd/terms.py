"""What a schedule may say: the options, their rules, and the `Terms` they make.

Everything is checked where it is declared, down to whether the schedule ever occurs: nothing that is
wrong waits in the database until a night in spring.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any
from uuid import UUID

from jobd.duration import parse_duration
from jobd.errors import ConfigError
from jobd.fires import EIGHT_YEARS
from jobd.occurrences import GRACE_OF_SKIP, CatchUp
from jobd.options import Duration, JobOptions, instant, integer, new_job
from jobd.registry import Handler, check_name
from jobd.schedule import Schedule
from jobd.schedule_rows import ScheduleEntry, Terms

MAX_ID_CHARACTERS = 200
MAX_CAP = 1000
NOBODY = UUID(int=0)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
# What others call it.
ALSO_CALLED = {
    "timezone": "tz",
    "time_zone": "tz",
    "cron": "when",
    "expression": "when",
    "task": "kind",
    "args": "payload",
}


class ScheduleOptions(JobOptions, total=False):
    """What a schedule may say besides its expression. None, or leaving it out: the default.

    A `concurrency_key` is that of all its jobs; the one that the handler's template makes, unless said.
    """

    tz: str
    """An IANA name, like Europe/Berlin; UTC by default."""
    dst: str
    """`debian` (the default), `skip` or `both`: see docs/schedules.md."""
    seconds: str | None
    """Of a cron expression with six fields: whether seconds stand `first` or `last`."""
    anchor: datetime | None
    """Where an interval counts from."""
    catch_up: str
    """`last` (the default): of occurrences that are overdue the newest runs. `skip`: as `last`, with a
    misfire_grace of 300 s. `all`: each, up to `cap`."""
    cap: int
    """How many occurrences `all` runs at most after a downtime: 100 by default, 1,000 at most."""
    stagger: Duration
    """How far apart those start."""
    misfire_grace: Duration | None
    """How late an occurrence may start; None, however late."""
    overlap: str
    """When the job of the occurrence before has not ended: `skip` (the default), `queue` or `replace`."""
    max_instances: int
    """How many jobs of the schedule may be unfinished at once; 1 by default."""
    jitter: Duration
    """Spread each occurrence over this time; the same for an occurrence whoever computes it."""
    starts_at: datetime | None
    ends_at: datetime | None
    max_runs: int | None


def terms(
    id: str,
    when: str | datetime,
    kind: str,
    *,
    owner: str,
    payload: str = "{}",
    max_bytes: int = 262_144,
    may_be_over: bool = False,
    now: datetime | None = None,
    queue_tolerances: Mapping[str, timedelta] = MappingProxyType({}),
    **options: Any,
) -> Terms:
    """The schedule that these options mean. Raises ConfigError naming the option, HandlerError, PayloadError.

    `payload` is JSON text. A schedule that does not occur within 8 years from `now` is refused, unless it
    `may_be_over`, as one that stands in a file. Each job of a queue with a tolerance gets that one, as it
    is by then, unless the options name one.
    """
    known_schedule_options(options)
    expression = _expression(when)
    of_the_job: dict[str, Any] = {"queue": "default"}
    of_the_job |= {
        name: options[name] for name in JobOptions.__annotations__ if options.get(name) is not None
    }
    own = of_the_job.get("delay_tolerance")
    of_the_job["delay_tolerance"] = queue_tolerances.get(of_the_job["queue"]) if own is None else own
    job = new_job(kind, id=NOBODY, payload=payload, max_bytes=max_bytes, **of_the_job)
    catch_up = _one_of("catch_up", options.get("catch_up", CatchUp.LAST), ("last", "skip", "all"))
    made = Terms(
        id=_id(id),
        owner=owner,
        expression=expression,
        time_zone="UTC" if options.get("tz") is None else options["tz"],
        dst="debian" if options.get("dst") is None else options["dst"],
        seconds=options.get("seconds"),
        anchor=instant("anchor", options.get("anchor")),
        kind=check_name("kind", kind),
        payload=json.loads(job.payload),
        queue=job.queue,
        priority=job.priority,
        tenant_id=job.tenant_id,
        use_case=job.use_case,
        concurrency_key=job.concurrency_key,
        delay_tolerance=None if own is None else job.delay_tolerance,
        deadline_policy=job.deadline_policy,
        max_attempts=job.max_attempts,
        backoff=None if job.backoff is None else json.loads(job.backoff),
        timeout=job.timeout,
        headers=None if job.headers is None else json.loads(job.headers),
        catch_up=catch_up,
        cap=_cap(options.get("cap", 100)),
        stagger=_stagger(options.get("stagger")),
        misfire_grace=_grace(options["misfire_grace"])
        if "misfire_grace" in options
        else GRACE_OF_SKIP
        if catch_up == CatchUp.SKIP
        else None,
        overlap=_one_of("overlap", options.get("overlap", "skip"), ("skip", "queue", "replace")),
        max_instances=integer("max_instances", options.get("max_instances", 1), at_least=1),
        jitter=_time("jitter", options.get("jitter")) or timedelta(0),
        starts_at=instant("starts_at", options.get("starts_at")),
        ends_at=instant("ends_at", options.get("ends_at")),
        max_runs=None
        if options.get("max_runs") is None
        else integer("max_runs", options["max_runs"], at_least=1),
    )
    _occurs(made, when, now or datetime.now(UTC), may_be_over=may_be_over)
    return made


def with_key(terms: Terms, handler: Handler | None) -> Terms:
    """The same with the key that its handler gives its jobs, where none is said. Raises PayloadError."""
    if handler is None or handler.concurrency_key is None or terms.concurrency_key is not None:
        return terms
    key = handler.concurrency_key.rendered(terms.payload, terms.queue, terms.tenant_id)
    return replace(terms, concurrency_key=key)


def known_schedule_options(options: Mapping[str, Any]) -> None:
    """Raise the TypeError that Python would for a parameter that does not exist."""
    unknown = sorted(options.keys() - ScheduleOptions.__annotations__.keys())
    if unknown:
        close = close_name(unknown[0], [*ScheduleOptions.__annotations__])
        hint = f"; did you mean {close}?" if close else ""
        raise TypeError(f"a schedule got an unexpected keyword argument {unknown[0]!r}{hint}")


def close_name(name: str, known: Sequence[str]) -> str | None:
    """What somebody who wrote `name` may have meant."""
    if ALSO_CALLED.get(name) in known:
        return ALSO_CALLED[name]
    return next(iter(get_close_matches(name, known, n=1)), None)


def parsed(terms: Terms) -> Schedule:
    """When these terms say that it occurs. Raises ConfigError."""
    return Schedule.parse(
        terms.expression,
        tz=terms.time_zone,
        dst=terms.dst,  # type: ignore[arg-type]
        seconds=terms.seconds,  # type: ignore[arg-type]
        anchor=terms.anchor,
        id=terms.id,
    )


def first_time(terms: Terms, now: datetime) -> datetime | None:
    """When it occurs first after `now`, as far as its expression and its start tell."""
    start = now if terms.starts_at is None else max(now, terms.starts_at - timedelta(microseconds=1))
    return parsed(terms).next_after(start)


def seen(entry: ScheduleEntry) -> ScheduleEntry:
    """The entry with the time at which it is due computed, where no scheduler has looked at it yet."""
    if entry.due_at is None or entry.due_at > LONG_AGO or entry.fault is not None:
        return entry
    try:
        return replace(
            entry, due_at=first_time(entry, max(entry.decided_until, entry.passed_until or LONG_AGO))
        )
    except ConfigError:
        # Its fault will tell.
        return entry


def _occurs(terms: Terms, when: str | datetime, now: datetime, *, may_be_over: bool) -> None:
    first = first_time(terms, now)
    if first is None and may_be_over:
        first = first_time(terms, LONG_AGO)
    if first is None:
        raise ConfigError("when", when, f"never occurs after {now:%Y-%m-%d %H:%M:%S %Z}")
    if first - max(now, terms.starts_at or now) > EIGHT_YEARS:
        raise ConfigError("when", when, f"occurs first on {first:%Y-%m-%d}, more than 8 years ahead")
    if terms.ends_at is not None and first > terms.ends_at and not (may_be_over and terms.ends_at < now):
        raise ConfigError("ends_at", terms.ends_at, f"is before the first occurrence, {first.isoformat()}")


def _expression(when: Any) -> str:
    if isinstance(when, datetime):
        moment = instant("when", when)
        assert moment is not None
        return moment.isoformat()
    if not isinstance(when, str):
        raise ConfigError(
            "when", when, "must be an expression, like '0 9 * * 1-5' or 'every 15m', or a datetime"
        )
    return when


def _id(id: Any) -> str:
    if not isinstance(id, str) or not id or len(id) > MAX_ID_CHARACTERS or not id.isprintable():
        raise ConfigError(
            "id", id, f"must be 1 to {MAX_ID_CHARACTERS} printable characters, like nightly-report"
        )
    return id


def _cap(value: int) -> int:
    if integer("cap", value, at_least=1) > MAX_CAP:
        raise ConfigError("cap", value, f"must be at most {MAX_CAP}")
    return value


def _one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ConfigError(option, value, f"must be {', '.join(allowed[:-1])} or {allowed[-1]}")
    return str(value)


def _stagger(value: Duration | None) -> timedelta:
    stagger = _time("stagger", value) or timedelta(0)
    if stagger > timedelta(days=1):
        raise ConfigError("stagger", value, "must be at most 1d")
    return stagger


def _grace(value: Duration | None) -> timedelta | None:
    grace = _time("misfire_grace", value)
    if grace is not None and grace < timedelta(seconds=1):
        raise ConfigError(
            "misfire_grace",
            value,
            "must be 1s or more: a scheduler is always a moment late; None is no limit",
        )
    return grace


def _time(option: str, value: Duration | None) -> timedelta | None:
    return None if value is None else parse_duration(value, setting=option)
