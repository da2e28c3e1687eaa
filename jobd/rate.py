"""Rates as people write them: `10/s`, `100/m`, `5/2h`; how many may start within how long.

Everything that takes a rate (settings, decorators, `jobs.queues.set`, the CLI) reads it here, and
`jobd.parse_rate` in SQL reads the same. Starts are spread over the period; a burst is said beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from jobd.errors import ConfigError

MAX_COUNT = 1_000_000
_LONGEST = timedelta(days=366)
_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_WRITTEN = re.compile(r"([0-9]{1,9})\s*/\s*([0-9]{1,9})?\s*(w|d|h|m|s|ms)", re.ASCII)
_HOW = 'write it like "10/s", "100/m" or "5/2h": how many, and per how much of w, d, h, m, s or ms'


@dataclass(frozen=True, slots=True)
class Rate:
    """So many within that time."""

    count: int
    period: timedelta

    def __str__(self) -> str:
        """The shortest spelling, which `parse_rate` reads back."""
        for name, unit in _UNITS.items():
            if self.period % unit == timedelta(0):
                number = self.period // unit
                return f"{self.count}/{'' if number == 1 else number}{name}"
        return f"{self.count}/{self.period / _UNITS['ms']:g}ms"


def parse_rate(text: object, *, setting: str = "rate") -> Rate:
    """The rate that `text` says. Raises ConfigError, naming `setting`, for anything else.

    At most a million, within 1 ms to 366 days.
    """
    if isinstance(text, Rate):
        text = str(text)
    written = _WRITTEN.fullmatch(text.strip()) if isinstance(text, str) else None
    if written is None:
        raise ConfigError(setting, text, f"is not a rate; {_HOW}")
    count, number = int(written[1]), int(written[2] or 1)
    if not 1 <= count <= MAX_COUNT:
        remedy = "nothing at all is what a pause is for" if count == 0 else "no limit is None"
        raise ConfigError(setting, text, f"must let through 1 to {MAX_COUNT:,}; {remedy}")
    # Before the product: a number of nine digits of weeks is beyond what timedelta holds.
    if not 1 <= number <= _LONGEST // _UNITS[written[3]]:
        raise ConfigError(setting, text, "must be per 1ms to 366d")
    return Rate(count, number * _UNITS[written[3]])
