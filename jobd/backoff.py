"""How long a failed job waits before its next attempt.

Pure arithmetic with the random numbers handed in. Whether there is a next attempt is decided in
`lifecycle`; `Snooze` and `RetryAfter` name their own delay and do not come here.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args

from jobd.duration import format_duration, parse_duration
from jobd.errors import ConfigError

Kind = Literal["exponential", "linear", "constant"]
Jitter = Literal["full", "none"]
DelayFunction = Callable[[int], timedelta | float]

_log = logging.getLogger("jobd.backoff")
_DURATIONS: Final = ("base", "minimum", "maximum")
_NAMES: Final = ("kind", "base", "factor", "minimum", "maximum", "jitter")
# Names under which async-jobs and its relatives store the same policy.
_ALSO: Final = {
    "type": "kind",
    "base_delay_seconds": "base",
    "min_delay_seconds": "minimum",
    "max_delay_seconds": "maximum",
}


@dataclass(frozen=True, slots=True)
class Backoff:
    """A policy: the delay grows with each failed attempt, between `minimum` and `maximum`.

    Durations may be given in any spelling that `parse_duration` reads. `jitter="full"` spreads the
    delay uniformly between `minimum` and the computed one ("Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015), so that jobs that failed together do not come back together. A
    `function` gets the number of the failed attempt and answers with a timedelta or seconds.
    Raises ConfigError for a policy that makes no sense.
    """

    kind: Kind = "exponential"
    base: timedelta = timedelta(seconds=5)
    factor: float = 2
    minimum: timedelta = timedelta(0)
    maximum: timedelta = timedelta(hours=1)
    jitter: Jitter = "full"
    function: DelayFunction | None = None

    def __post_init__(self) -> None:
        for name in _DURATIONS:
            object.__setattr__(self, name, parse_duration(getattr(self, name), setting=f"backoff.{name}"))
        _one_of("backoff.kind", self.kind, get_args(Kind))
        _one_of("backoff.jitter", self.jitter, get_args(Jitter))
        factor: object = self.factor
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 1 <= factor <= 1_000:
            raise ConfigError("backoff.factor", factor, "must be a number from 1 to 1000")
        if self.minimum > self.maximum:
            longest = format_duration(self.maximum)
            raise ConfigError(
                "backoff.minimum",
                format_duration(self.minimum),
                f"must not be longer than backoff.maximum ({longest}); lower it or raise backoff.maximum",
            )
        if self.function is not None and not callable(self.function):
            raise ConfigError("backoff.function", self.function, "must be callable with the attempt's number")

    def delay(self, attempt: int, *, rng: random.Random) -> timedelta:
        """How long to wait after `attempt` (1 is the first) failed: within [minimum, maximum].

        Never raises and never overflows. A `function` that raises or answers nonsense is logged, and
        the job gets the default policy's delay instead: a bug in a policy must not lose a job.
        """
        longest = self.maximum.total_seconds()
        shortest = self.minimum.total_seconds()
        seconds = min(max(self._seconds(max(attempt, 1), rng), shortest), longest)
        if self.jitter == "full":
            seconds = rng.uniform(shortest, seconds)
        # Rounding to microseconds may step over either end.
        return min(max(timedelta(seconds=seconds), self.minimum), self.maximum)

    def _seconds(self, attempt: int, rng: random.Random) -> float:
        if self.function is not None:
            try:
                answer = self.function(attempt)
                return parse_duration(answer, setting="backoff function").total_seconds()
            except Exception:
                name = _name_of(self.function)
                _log.exception("backoff function %s failed after attempt %d", name, attempt)
                return Backoff().delay(attempt, rng=rng).total_seconds()
        base = self.base.total_seconds()
        if base == 0 or self.kind == "constant":
            return base
        try:
            return base * (attempt if self.kind == "linear" else float(self.factor) ** (attempt - 1))
        except OverflowError:
            # A factor of 1 stands still, however often it is multiplied.
            return base if self.kind == "exponential" and self.factor == 1 else math.inf

    def to_json(self) -> dict[str, Any]:
        """What the column `backoff` stores; raises ConfigError for a policy with a `function`."""
        if self.function is not None:
            raise ConfigError(
                "backoff",
                _name_of(self.function),
                "a function cannot be stored with a job; give it to the handler: "
                "@jobs.handler(..., backoff=function)",
            )
        stored: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        return stored | {name: format_duration(stored[name]) for name in _DURATIONS}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Backoff:
        """The policy that `to_json`, or a person, wrote: durations as "5s" or as seconds.

        The names `type`, `base_delay_seconds`, `min_delay_seconds` and `max_delay_seconds` are read
        too. Raises ConfigError for a name or a value that means nothing.
        """
        if not isinstance(stored, Mapping):
            raise ConfigError("backoff", stored, 'must be an object like {"kind": "linear", "base": "10s"}')
        given: dict[str, Any] = {}
        for written, value in stored.items():
            name = _ALSO.get(written, written)
            if name not in _NAMES:
                close = get_close_matches(str(written), [*_NAMES, *_ALSO], n=1)
                hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(_NAMES)}"
                raise ConfigError(f"backoff.{written}", value, f"is not a part of a backoff; {hint}")
            if name in given:
                raise ConfigError(f"backoff.{written}", value, f"says backoff.{name} a second time; keep one")
            given[name] = value
        return cls(**given)

    @classmethod
    def of(cls, value: Backoff | str | Mapping[str, Any] | DelayFunction | None) -> Backoff:
        """The policy meant by what a decorator or `enqueue` was given; None is the default policy.

        A bare function answers for itself: no jitter is added, and it may ask for up to a year.
        """
        if value is None:
            return cls()
        if isinstance(value, Backoff):
            return value
        if isinstance(value, str):
            return cls.from_json({"kind": value})
        if isinstance(value, Mapping):
            return cls.from_json(value)
        if callable(value):
            return cls(function=value, jitter="none", maximum=timedelta(days=365))
        raise ConfigError(
            "backoff", value, f"must be a Backoff, a function or one of {_list(get_args(Kind))}"
        )


def _one_of(setting: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(setting, value, f"must be one of {_list(allowed)}")


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _name_of(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))
