"""Durations as people write them: `5s`, `15m`, `7d`, `1h30m`, `250ms`.

Everything that takes a duration (settings, decorators, the CLI, `Snooze`) reads it here, so that one
spelling works everywhere. Not for instants, and not for months or years, which have no fixed length.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

from jobd.errors import ConfigError

_UNITS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
}
_WRITTEN = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit}\s*)?" for unit in _UNITS))
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_HOW = 'write it like "30s", "15m", "1h30m", "7d" or "250ms"'
# now() plus a duration must stay a timestamp; nobody waits for a century.
_LONGEST = timedelta(days=36_525)


def parse_duration(text: str | int | float | timedelta, *, setting: str = "duration") -> timedelta:
    """The duration that `text` says; a number, also a written one, is seconds.

    Units are w, d, h, m, s and ms, largest first, fractions allowed. Raises ConfigError, naming
    `setting`, for anything else, for a negative duration, and for one beyond 100 years.
    """
    if isinstance(text, timedelta):
        duration = text
    else:
        microseconds = _microseconds(text)
        if microseconds is None:
            raise ConfigError(setting, text, f"is not a duration; {_HOW}")
        if not abs(microseconds) <= _LONGEST / timedelta(microseconds=1):
            raise ConfigError(setting, text, "must be at most 100 years (36525d)")
        duration = timedelta(microseconds=round(microseconds))
    if duration < timedelta(0):
        raise ConfigError(setting, text, f"must not be negative; {_HOW}")
    if duration > _LONGEST:
        raise ConfigError(setting, text, "must be at most 100 years (36525d)")
    return duration


def _microseconds(text: object) -> float | None:
    # bool is an int: `timeout=True` is a mistake, not one second.
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        return None
    if isinstance(text, str):
        written = text.strip()
        sign = -1 if written.startswith("-") else 1
        written = written.removeprefix("-")
        if len(written) > 100:
            return None
        if not _NUMBER.fullmatch(written):
            parts = _WRITTEN.fullmatch(written)
            if not written or parts is None:
                return None
            amounts = zip(parts.groups(), _UNITS.values(), strict=True)
            return sign * sum(float(amount) * unit for amount, unit in amounts if amount)
        text = sign * float(written)
    try:
        seconds = float(text)
    except OverflowError:
        return math.inf
    return None if math.isnan(seconds) else seconds * 1_000_000


def format_duration(duration: timedelta) -> str:
    """The shortest spelling that `parse_duration` reads back exactly: `1h30m`, `250ms`, `0s`."""
    sign = "-" if duration < timedelta(0) else ""
    left = abs(duration) // timedelta(microseconds=1)
    if left < 1_000_000:
        return f"{sign}{left / 1_000:g}ms" if left else "0s"
    parts = [sign]
    for unit in "dhm":
        count, left = divmod(left, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if left:
        whole, fraction = divmod(left, 1_000_000)
        parts.append(f"{whole}.{fraction:06}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)
