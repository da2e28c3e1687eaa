"""What an enqueue may say about a job: the options, their rules, and the `NewJob` they make.

Everything is checked before anything reaches the database, where a refusal would cost the caller
the open transaction. Payloads have their own rules, in `payload`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, TypedDict
from uuid import UUID

from jobd.backoff import Backoff
from jobd.duration import parse_duration
from jobd.errors import ConfigError
from jobd.job import NewJob
from jobd.payload import encode_payload
from jobd.quota_options import limited_name
from jobd.registry import check_name
from jobd.storable import plain_text

Duration = timedelta | str | int | float
JobId = UUID | str

MAX_KEY_CHARACTERS = 500
MAX_INT = 2**31 - 1


class JobOptions(TypedDict, total=False):
    """What may be said of any job, enqueued or of a schedule. None, or leaving it out: the default.

    That is the handler's, else jobd's.
    """

    queue: str | None
    priority: int
    """Higher ones start first."""
    tenant_id: str | None
    use_case: str | None
    concurrency_key: str | None
    """Of the jobs with this key so many run at once as their kind's `key_limit` says: one, unless said."""
    delay_tolerance: Duration | None
    """How long after it is due the job may start; orders jobs of the same priority."""
    deadline_policy: str
    """`run`: a late job runs all the same. `drop`: it ends `dead` unrun; needs a delay_tolerance."""
    max_attempts: int | None
    backoff: Backoff | str | Mapping[str, Any] | None
    timeout: Duration | None
    """Of one attempt."""
    tags: Sequence[str]
    meta: Mapping[str, Any] | None
    """Whatever JSON the application wants to find again; handlers see it as `ctx.meta`."""


class TimedOptions(JobOptions, total=False):
    """What any enqueue may say: also when."""

    run_at: datetime | None
    """Not before this moment; with a time zone. At most one of `run_at` and `delay`."""
    delay: Duration | None
    """Not before this long after the transaction's start, by the database's clock."""


class EnqueueOptions(TimedOptions, total=False):
    """What the enqueue of a single job may say besides."""

    id: JobId | None
    """Makes a repeat safe: the same id is enqueued once. UUIDv7 keeps the order."""
    unique_key: str | None
    """While a job of this tenant and kind holds this key, that one stands for the new one."""
    unique_for: Duration
    """`unfinished`: until the holder has ended. `waiting`: until it is claimed. A duration: so long."""
    on_conflict: str
    """`keep` the holder as it is, `replace` what it is waiting to do, or `reject`: raise UniqueKeyTaken."""


class ManyOptions(TimedOptions, total=False):
    """What the enqueue of many jobs may say besides."""

    unique_key: Callable[[Any], str | None]
    """The key of the job with this payload, or None. With it all payloads are gathered before any is sent."""
    unique_for: Duration
    on_conflict: str


def known_options(verb: str, options: Mapping[str, Any], allowed: type) -> None:
    """Raise the TypeError that Python would for a parameter that does not exist."""
    if not options:
        return
    known = allowed.__annotations__
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        if unknown[0] in EnqueueOptions.__annotations__:
            hint = " (it belongs to one job: use enqueue)"
        else:
            close = get_close_matches(unknown[0], known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
        raise TypeError(f"{verb}() got an unexpected keyword argument {unknown[0]!r}{hint}")


def new_job(
    kind: str,
    *,
    id: UUID,
    payload: str,
    max_bytes: int,
    queue: str,
    run_at: datetime | None = None,
    delay: Duration | None = None,
    priority: int = 0,
    tenant_id: str | None = None,
    use_case: str | None = None,
    unique_key: str | None = None,
    unique_for: Duration = "unfinished",
    on_conflict: str = "keep",
    concurrency_key: str | None = None,
    delay_tolerance: Duration | None = None,
    deadline_policy: str = "run",
    max_attempts: int | None = None,
    backoff: Backoff | str | Mapping[str, Any] | None = None,
    timeout: Duration | None = None,
    tags: Sequence[str] = (),
    meta: Mapping[str, Any] | None = None,
) -> NewJob:
    """The job that these options mean. Raises ConfigError naming the option, HandlerError, PayloadError."""
    if run_at is not None and delay is not None:
        raise ConfigError("delay", delay, "means the same as run_at; give one of them")
    if deadline_policy not in ("run", "drop"):
        raise ConfigError("deadline_policy", deadline_policy, "must be 'run' or 'drop'")
    if deadline_policy == "drop" and delay_tolerance is None:
        raise ConfigError("deadline_policy", deadline_policy, "needs a delay_tolerance: late by how much?")
    return NewJob(
        id=id,
        kind=kind,
        payload=payload,
        queue=check_name("queue", queue),
        tenant_id=_name("tenant_id", tenant_id),
        use_case=_name("use_case", use_case),
        priority=integer("priority", priority, at_least=-MAX_INT - 1),
        run_at=instant("run_at", run_at),
        delay=_duration("delay", delay),
        delay_tolerance=_duration("delay_tolerance", delay_tolerance),
        deadline_policy=deadline_policy,
        max_attempts=None if max_attempts is None else integer("max_attempts", max_attempts, at_least=1),
        unique_key=key_of_job("unique_key", unique_key),
        unique_for=_unique_for(unique_for, unique_key),
        on_conflict=_on_conflict(on_conflict, unique_key),
        concurrency_key=key_of_job("concurrency_key", concurrency_key),
        backoff=None if backoff is None else json.dumps(Backoff.of(backoff).to_json()),
        timeout=_timeout(timeout),
        headers=_headers(tags, meta, max_bytes),
    )


def job_id(id: JobId) -> UUID:
    """The id, also where it came as text."""
    if isinstance(id, UUID):
        return id
    try:
        return UUID(id)
    except (ValueError, TypeError, AttributeError):
        raise ConfigError("id", id, "is no UUID, like 01890a5d-ac96-774b-bcce-b302099a8057") from None


def instant(option: str, value: datetime | None) -> datetime | None:
    """A moment in UTC; a datetime without a time zone could mean any of 38."""
    if value is None:
        return None
    if getattr(value, "utcoffset", lambda: None)() is None:
        raise ConfigError(
            option, value, "must be a datetime with a time zone, like datetime.now(UTC) + timedelta(hours=1)"
        )
    # Beyond Python's year 9999, where a tolerance could take it, nobody could read the row any more.
    if not 1 < value.year <= 9000:
        raise ConfigError(option, value, "must be in the years 2 to 9000")
    return value.astimezone(UTC)


def integer(option: str, value: int, *, at_least: int) -> int:
    """A whole number that fits into PostgreSQL's integer."""
    if type(value) is int and at_least <= value <= MAX_INT:  # True would pass as an int
        return value
    raise ConfigError(option, value, f"must be a whole number from {at_least} to {MAX_INT}")


def _duration(option: str, value: Duration | None) -> timedelta | None:
    return None if value is None else parse_duration(value, setting=option)


def _timeout(value: Duration | None) -> timedelta | None:
    timeout = _duration("timeout", value)
    if timeout == timedelta(0):
        raise ConfigError("timeout", value, "must be longer than nothing; leave it out for the handler's")
    return timeout


def _name(option: str, value: str | None) -> str | None:
    return None if value is None else limited_name(option, value)


def _unique_for(value: Duration, key: str | None) -> str:
    if value in ("unfinished", "waiting"):
        span = None
    else:
        if isinstance(value, str) and not value[:1].isdigit():
            raise ConfigError(
                "unique_for", value, "must be 'unfinished', 'waiting', or a duration like '24h'"
            )
        span = parse_duration(value, setting="unique_for")
        if not span:
            raise ConfigError(
                "unique_for", value, "must be longer than nothing; without a key nothing is unique"
            )
    if key is None and value != "unfinished":
        raise ConfigError("unique_for", value, "says how long a unique_key is held: give one")
    return (
        str(value) if span is None else f"{span.days} days {span.seconds + span.microseconds / 1e6:f} seconds"
    )


def _on_conflict(value: str, key: str | None) -> str:
    if value not in ("keep", "replace", "reject"):
        raise ConfigError("on_conflict", value, "must be 'keep', 'replace' or 'reject'")
    if key is None and value != "keep":
        raise ConfigError("on_conflict", value, "says what happens when a unique_key is held: give one")
    return value


def key_of_job(option: str, value: str | None) -> str | None:
    """A key of a job, unique or for its limits; None is none."""
    if value is not None and not (plain_text(option, value) and len(value) <= MAX_KEY_CHARACTERS):
        raise ConfigError(
            option, value[:40], f"must be 1 to {MAX_KEY_CHARACTERS} characters long; of more, take a hash"
        )
    return value


def _headers(tags: Any, meta: Any, max_bytes: int) -> str | None:
    headers: dict[str, Any] = {}
    if tags:
        if isinstance(tags, str) or not (
            isinstance(tags, Collection) and all(isinstance(tag, str) for tag in tags)
        ):
            raise ConfigError("tags", tags, "must be a list of strings")
        headers["tags"] = list(tags)
    if meta:
        if not isinstance(meta, Mapping):
            raise ConfigError("meta", meta, "must be a mapping, like {'origin': 'import'}")
        headers["meta"] = dict(meta)
    return encode_payload(headers, max_bytes=max_bytes) if headers else None
