"""What may be said about limits: the options, their rules, and the JSON object that they make.

Whoever says limits comes here, so that one spelling and one refusal hold everywhere: Python, the
command line, decorators and settings. `jobd.set_queue` and its like judge the same in SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, TypedDict

from jobd.duration import format_duration, parse_duration
from jobd.errors import ConfigError
from jobd.rate import MAX_COUNT, Rate, parse_rate
from jobd.storable import plain_text

MAX_INT = 2**31 - 1
MAX_WEIGHT = 1000
# Tenant, kind and unique key share an entry of an index, which takes 2,704 bytes.
MAX_NAME_BYTES = 255


class QueueOptions(TypedDict, total=False):
    """Limits of a queue over all daemons. None takes one away; what is left out stays as it is."""

    max_running: int | None
    """How many of its jobs may run at once."""
    rate: str | Rate | None
    """How many may start, like `100/m`, spread over that time."""
    burst: int | None
    """How many may start at once after a pause; as many as the rate has, unless said."""
    fair: bool | None
    """Whether its tenants take turns, by their weights, whatever each has waiting."""
    weight: int | None
    """Its part of a process's slots beside the other queues there, 1 unless said."""
    delay_tolerance: str | float | timedelta | None
    """How late those of its jobs may start that say nothing, where their enqueue looks at the queue."""
    paused: bool | None
    """Whether nothing is claimed from it."""


class TenantOptions(TypedDict, total=False):
    """Limits of a tenant over all queues. None takes one away; what is left out stays as it is."""

    max_pending: int | None
    """How many of its jobs may wait, scheduled or ready."""
    on_full: str | None
    """What becomes of an enqueue beyond that: `refuse` (the default), `shed` or `delay`."""
    exact: bool | None
    """Whether max_pending holds exactly, at the price that enqueues of this tenant wait for each other."""
    max_running: int | None
    rate: str | Rate | None
    burst: int | None
    weight: int | None
    """Its part of a fair queue, 1 unless said."""


class KindOptions(TypedDict, total=False):
    """Limits of each concurrency key of a kind. None takes one away; what is left out stays as it is."""

    key_limit: int | None
    """How many jobs of one key may run at once, 1 unless said."""
    ordered: bool | None
    """Whether the jobs of a key run one after the other, in the order in which they were enqueued."""
    key_rate: str | Rate | None
    key_burst: int | None


class UseCaseOptions(TypedDict, total=False):
    """The limit of a use case over all queues. None is the 10 of those of which nothing is said."""

    max_running: int | None


def queue_limits(options: Mapping[str, Any], *, setting: str = "{}") -> dict[str, Any]:
    """The JSON object that these options mean, with rates in their shortest spelling.

    Raises ConfigError: `setting` is how an option is named there. And a TypeError for an unknown option.
    """
    return _judged("a queue", QueueOptions, options, setting)


def tenant_limits(options: Mapping[str, Any], *, setting: str = "{}") -> dict[str, Any]:
    """The same for a tenant."""
    return _judged("a tenant", TenantOptions, options, setting)


def kind_limits(options: Mapping[str, Any], *, setting: str = "{}") -> dict[str, Any]:
    """The same for a kind."""
    limits = _judged("a kind", KindOptions, options, setting)
    if limits.get("ordered") and limits.get("key_limit") not in (None, 1):
        remedy = "jobs of a key that run in order run one at a time; leave it out, or ordered"
        raise ConfigError(setting.format("key_limit"), limits["key_limit"], remedy)
    return limits


def use_case_limits(options: Mapping[str, Any], *, setting: str = "{}") -> dict[str, Any]:
    """The same for a use case."""
    return _judged("a use case", UseCaseOptions, options, setting)


def limited_name(what: str, value: str) -> str:
    """The name of a tenant or a use case. Raises ConfigError."""
    if not 1 <= len(plain_text(what, value)) <= MAX_NAME_BYTES:
        raise ConfigError(what, value[:40], f"must be 1 to {MAX_NAME_BYTES} bytes long")
    return value


def _judged(what: str, known: type, options: Mapping[str, Any], setting: str) -> dict[str, Any]:
    names = list(known.__annotations__)
    made: dict[str, Any] = {}
    for name, value in options.items():
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
            raise TypeError(f"limits of {what} got an unexpected keyword argument {name!r}; {hint}")
        rule = _RULES["use_case" if known is UseCaseOptions else name]
        made[name] = None if value is None else rule(setting.format(name), value)
    rate, burst = ("key_rate", "key_burst") if what == "a kind" else ("rate", "burst")
    if made.get(burst) is not None and rate in made and made[rate] is None:
        raise ConfigError(
            setting.format(burst), made[burst], f"belongs to a {rate}, which is taken away; leave it out"
        )
    return made


def _number(at_least: int, at_most: int, none: str = "no limit") -> Callable[[str, Any], int]:
    def judge(setting: str, value: Any) -> int:
        if type(value) is int and at_least <= value <= at_most:  # True would pass as an int
            return value
        raise ConfigError(
            setting, value, f"must be a whole number from {at_least} to {at_most}, or None for {none}"
        )

    return judge


def _tolerance(setting: str, value: Any) -> str:
    return format_duration(parse_duration(value, setting=setting))


def _flag(setting: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(setting, value, "must be True or False")
    return value


def _on_full(setting: str, value: Any) -> str:
    if value not in ("refuse", "shed", "delay"):
        raise ConfigError(setting, value, "must be 'refuse', 'shed' or 'delay'")
    return str(value)


_RULES: Mapping[str, Callable[[str, Any], Any]] = {
    "max_running": _number(0, MAX_INT),
    "max_pending": _number(0, MAX_INT),
    "use_case": _number(0, MAX_INT, "10"),
    "key_limit": _number(1, MAX_INT, "1"),
    "burst": _number(1, MAX_COUNT, "that of the rate"),
    "key_burst": _number(1, MAX_COUNT, "that of the rate"),
    "weight": _number(1, MAX_WEIGHT, "1"),
    "rate": lambda setting, value: str(parse_rate(value, setting=setting)),
    "key_rate": lambda setting, value: str(parse_rate(value, setting=setting)),
    "delay_tolerance": _tolerance,
    "fair": _flag,
    "paused": _flag,
    "exact": _flag,
    "ordered": _flag,
    "on_full": _on_full,
}
