"""What a schedule may say: the options, their rules, and the `Terms` they make.

Everything is checked where it is declared, down to whether the schedule ever occurs: nothing that is
wrong waits in the database until a night in spring.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

from jobd.backoff import Backoff
from jobd.duration import parse_duration
from jobd.errors import ConfigError, HandlerError, PayloadError
from jobd.occurrences import GRACE_OF_SKIP, CatchUp
from jobd.options import Duration, instant, integer, new_job
from jobd.payload import encode_payload
from jobd.registry import check_name
from jobd.schedule import Schedule
from jobd.timetable import Terms

MAX_ID_CHARACTERS = 200
MAX_CAP = 1000
NOBODY = UUID(int=0)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
OF_A_TABLE = ("id", "when", "kind", "payload")
# What others call it.
ALSO_CALLED = {
    "timezone": "tz",
    "time_zone": "tz",
    "cron": "when",
    "expression": "when",
    "task": "kind",
    "args": "payload",
}
# What an enqueue may say as well, apart from when.
OF_THE_JOB = (
    "queue", "priority", "tenant_id", "use_case", "delay_tolerance", "deadline_policy", "max_attempts",
    "backoff", "timeout", "tags", "meta",
)  # fmt: skip


class ScheduleOptions(TypedDict, total=False):
    """What a schedule may say besides its expression. None, or leaving it out: the default."""

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
    queue: str | None
    priority: int
    tenant_id: str | None
    use_case: str | None
    delay_tolerance: Duration | None
    deadline_policy: str
    max_attempts: int | None
    backoff: Backoff | str | Mapping[str, Any] | None
    timeout: Duration | None
    tags: Sequence[str]
    meta: Mapping[str, Any] | None


def terms(
    id: str,
    when: str | datetime,
    kind: str,
    *,
    owner: str,
    payload: str = "{}",
    max_bytes: int = 262_144,
    now: datetime | None = None,
    **options: Any,
) -> Terms:
    """The schedule that these options mean. Raises ConfigError naming the option, HandlerError, PayloadError.

    `payload` is JSON text. A schedule that never occurs after `now` is refused.
    """
    known_schedule_options(options)
    expression = _expression(when)
    of_the_job: dict[str, Any] = {"queue": "default"}
    of_the_job |= {name: options[name] for name in OF_THE_JOB if options.get(name) is not None}
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
        delay_tolerance=job.delay_tolerance,
        deadline_policy=job.deadline_policy,
        max_attempts=job.max_attempts,
        backoff=None if job.backoff is None else json.loads(job.backoff),
        timeout=job.timeout,
        headers=None if job.headers is None else json.loads(job.headers),
        catch_up=catch_up,
        cap=_cap(options.get("cap", 100)),
        stagger=_time("stagger", options.get("stagger")) or timedelta(0),
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
    _occurs(made, when, now or datetime.now(UTC))
    return made


class Tabled(NamedTuple):
    """A schedule of a settings file, and whether it names its queue: else its handler may."""

    terms: Terms
    queue_said: bool


def from_table(table: Any, *, max_bytes: int) -> Tabled:
    """The schedule that a table of a settings file means: `id`, `when`, `kind`, `payload` and the options.

    One whose date is over is no error, since the file outlives it. Raises ConfigError whose `setting` is the
    key that is wrong, or empty for the table.
    """
    if not isinstance(table, Mapping):
        raise ConfigError("", table, "must be a table with id, when and kind")
    known = [*OF_A_TABLE, *ScheduleOptions.__annotations__]
    for key in table:
        if key not in known:
            close = _close(str(key), known)
            hint = f"did you mean {close}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(str(key), "***", f"is no key of a schedule; {hint}")
    for key in ("id", "when", "kind"):
        if key not in table:
            raise ConfigError("", "***", f"has no {key}: a schedule needs id, when and kind")
    options = {key: value for key, value in table.items() if key not in OF_A_TABLE}
    for key, name in (("kind", table["kind"]), ("queue", table.get("queue"))):
        if name is not None:
            _named(key, name)
    try:
        payload = encode_payload(table.get("payload", {}), max_bytes=max_bytes)
    except PayloadError as error:
        raise ConfigError("payload", "***", str(error)) from None
    try:
        made = terms(
            table["id"], table["when"], table["kind"],
            owner="file", payload=payload, max_bytes=max_bytes, now=LONG_AGO, **options,
        )  # fmt: skip
    except PayloadError as error:
        raise ConfigError("meta", "***", str(error)) from None
    except ConfigError as error:
        raise _of_a_key(error, table) from None
    return Tabled(made, "queue" in options)


def _named(key: str, name: Any) -> None:
    try:
        check_name(key, name)
    except HandlerError as error:
        raise ConfigError(key, name, f"is{str(error).partition(' is')[2]}") from None


def _of_a_key(error: ConfigError, table: Mapping[str, Any]) -> ConfigError:
    """The error by the key of the table: what is wrong with a part of the expression is wrong with `when`."""
    part, of, _ = error.setting.partition(" of schedule ")
    if of:
        return ConfigError("when", table["when"], f"{part} {error.value!r} {error.remedy}")
    key = "when" if part == "schedule" else part.partition(".")[0]
    return ConfigError(key, error.value, error.remedy)


def known_schedule_options(options: Mapping[str, Any]) -> None:
    """Raise the TypeError that Python would for a parameter that does not exist."""
    unknown = sorted(options.keys() - ScheduleOptions.__annotations__.keys())
    if unknown:
        close = _close(unknown[0], [*ScheduleOptions.__annotations__])
        hint = f"; did you mean {close}?" if close else ""
        raise TypeError(f"a schedule got an unexpected keyword argument {unknown[0]!r}{hint}")


def _close(name: str, known: Sequence[str]) -> str | None:
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


def _occurs(terms: Terms, when: str | datetime, now: datetime) -> None:
    start = now if terms.starts_at is None else max(now, terms.starts_at - timedelta(microseconds=1))
    first = parsed(terms).next_after(start)
    if first is None:
        raise ConfigError("when", when, f"never occurs after {start:%Y-%m-%d %H:%M:%S %Z}")
    if terms.ends_at is not None and first > terms.ends_at:
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
