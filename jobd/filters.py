"""How callers say which jobs an operation on many of them means, and the `Selection` that makes.

Checked before anything is sent. No filter at all is refused: who means every job says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Literal, TypedDict, cast

from jobd.duration import format_duration, parse_duration
from jobd.errors import MISSING, ConfigError
from jobd.job import JobState
from jobd.options import Duration, integer
from jobd.registry import check_name
from jobd.selection import Selection
from jobd.storable import plain_text

Texts = str | Iterable[str] | None
MAX_TEXT_CHARACTERS = 1_000
MAX_MEMBERS = 1_000


class Filters(TypedDict, total=False):
    """What a job must have to be meant; None, or leaving it out, is no condition. Of several values, any."""

    queue: Texts
    kind: Texts | Callable[..., Any] | Iterable[str | Callable[..., Any]]
    """As for an enqueue, a handler's function means its kind."""
    state: Texts
    tenant_id: Texts
    use_case: Texts
    tag: Texts
    error_type: Texts
    """The class of the last attempt's error, with or without its module."""
    error: str | None
    """A part of the last attempt's error or of the reason of the end, in upper or lower case."""
    older_than: Duration | None
    """Enqueued longer ago than this; of jobs that have ended: ended longer ago."""
    newer_than: Duration | None
    """Not as long ago as this. Spares looking through older days of the history."""
    all: bool
    """Every job that the verb takes."""


class SweepOptions(Filters, total=False):
    """What a call on many jobs may say besides."""

    limit: int | None
    """At most so many jobs: those that have ended first, day by day, and then by id, so by age."""
    dry_run: bool
    """Count only."""
    by: str
    """Who does it, for the audit."""
    on_progress: Callable[[Any], None] | None
    """Called with the Tally after each page."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """How an operation on many jobs is to go."""

    limit: int | None = None
    dry_run: bool = False
    by: str = "api"
    on_progress: Callable[[Any], None] | None = None


_CONDUCT = [field.name for field in fields(Conduct)]


def sweep_options(verb: str, options: SweepOptions) -> tuple[Conduct, Filters]:
    """How it is to go, and the filters. Raises ConfigError, and TypeError for what does not exist."""
    _known(verb, options)
    conduct = {name: options[name] for name in _CONDUCT if options.get(name) is not None}  # type: ignore[literal-required]
    filters = {name: value for name, value in options.items() if name not in _CONDUCT}
    if "limit" in conduct:
        integer("limit", conduct["limit"], at_least=1)
    if "by" in conduct:
        _part("by", conduct["by"])
    if "dry_run" in conduct:
        _flag("dry_run", conduct["dry_run"])
    if not callable(conduct.get("on_progress", print)):
        raise ConfigError("on_progress", conduct["on_progress"], "must be a function of a Tally")
    return Conduct(**conduct), cast(Filters, filters)


def select(
    verb: str, filters: Filters, *, takes: frozenset[JobState], unless_said: frozenset[JobState]
) -> Selection:
    """The selection that these filters mean to a verb that takes jobs in some states.

    Raises ConfigError naming the filter, HandlerError for a name that cannot be one.
    """
    given = {name: value for name, value in filters.items() if value is not None and value is not False}
    everything = _flag("all", given.pop("all", False))
    if everything and given:
        name, value = next(iter(given.items()))
        raise ConfigError(name, value, "chooses some jobs, and all means every one: leave one out")
    if not everything and not given:
        raise ConfigError(
            "filter", MISSING, f"nothing says which jobs to {verb}: give queue, kind, state ... or all=True"
        )
    queues, kinds = _texts("queue", filters.get("queue")), _texts("kind", filters.get("kind"))
    for option, names in (("queue", queues), ("kind", kinds)):
        for name in names or ():
            check_name(option, name)
    error = filters.get("error")
    older, newer = _age("older_than", filters), _age("newer_than", filters)
    if older is not None and newer is not None and newer <= older:
        raise ConfigError(
            "newer_than",
            filters["newer_than"],
            f"leaves nothing that is older than {format_duration(older)}: give a longer time than that",
        )
    return Selection(
        states=_states(verb, _texts("state", filters.get("state")), takes) or unless_said,
        queues=queues,
        kinds=kinds,
        tenants=_texts("tenant_id", filters.get("tenant_id")),
        use_cases=_texts("use_case", filters.get("use_case")),
        tags=_texts("tag", filters.get("tag")),
        error_types=_texts("error_type", filters.get("error_type")),
        error=None if error is None else _part("error", error),
        older_than=older,
        newer_than=newer,
    )


def _known(verb: str, options: Collection[str]) -> None:
    """Raise the TypeError that Python would for a parameter that does not exist."""
    known = SweepOptions.__annotations__ | Filters.__annotations__
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"{verb}_many() got an unexpected keyword argument {name!r}{hint}")


def members(values: Any) -> list[Any]:
    """One value as a list of it; several as they are."""
    if isinstance(values, (list, tuple, set, frozenset)):
        return list(values)
    return [values]


def _flag(option: str, value: Any) -> bool:
    # "no" would pass as true, and mean every job.
    if not isinstance(value, bool):
        raise ConfigError(option, value, "must be True or False")
    return value


def _texts(option: str, values: Any) -> tuple[str, ...] | None:
    if values is None:
        return None
    texts = tuple(dict.fromkeys(_part(option, text) for text in members(values)))
    if not texts or len(texts) > MAX_MEMBERS:
        raise ConfigError(option, f"{len(texts)} values", f"give from 1 to {MAX_MEMBERS:,}, or leave it out")
    return texts


def _part(option: str, text: str) -> str:
    if not plain_text(option, text) or len(text) > MAX_TEXT_CHARACTERS:
        raise ConfigError(option, text[:40], f"must be 1 to {MAX_TEXT_CHARACTERS:,} characters long")
    return text


def _states(
    verb: str, names: tuple[str, ...] | None, takes: frozenset[JobState]
) -> frozenset[JobState] | None:
    if names is None:
        return None
    for name in names:
        if name not in takes:
            taken = ", ".join(state for state in JobState if state in takes)
            raise ConfigError("state", str(name), f"is none that {verb} takes: give any of {taken}")
    return frozenset(JobState(name) for name in names)


def _age(option: Literal["older_than", "newer_than"], filters: Filters) -> timedelta | None:
    value = filters.get(option)
    return None if value is None else parse_duration(value, setting=option)
