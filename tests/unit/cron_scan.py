"""Fires by the plainest means: look at every minute, ask zoneinfo what the clock shows, compare.

Slow, and written without a look at how jobd does it. Takes the plain parts of cron's grammar.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
NAMES = {
    name: number
    for names, first in (
        ("SUN MON TUE WED THU FRI SAT", 0),
        ("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", 1),
    )
    for number, name in enumerate(names.split(), first)
}


def scan(expression: str, zone: str, dst: str, start: datetime, end: datetime) -> list[datetime]:
    """The fires in (start, end] of an expression with five fields, or with seconds before them.

    Every transition on the way has to be at a whole minute.
    """
    fires: list[datetime] = []
    info = ZoneInfo(zone)
    *before, minute, hour, day, month, weekday = expression.split()
    fields = [minute, hour, day, month, weekday]
    seconds = [number for number in range(60) if _has(before[0], 0, number)] if before else [0]
    elapsed = bool(before) or minute.startswith("*") or hour.startswith("*")
    at = start.astimezone(UTC).replace(second=0, microsecond=0)
    expected = at.astimezone(info).replace(tzinfo=None)
    while at <= end:
        local = at.astimezone(info)
        shown = local.replace(tzinfo=None)
        fire = matches(fields, shown) and (elapsed or dst == "both" or not local.fold)
        if not elapsed and dst != "skip":
            fire = fire or any(matches(fields, missed) for missed in _minutes(expected, shown))
        if fire:
            fires += [at + timedelta(seconds=second) for second in seconds]
        expected, at = shown + MINUTE, at + MINUTE
    return [fire for fire in fires if start < fire <= end]


def _minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += MINUTE


def matches(fields: list[str], shown: datetime) -> bool:
    """Whether the clock face is one that the expression names."""
    minute, hour, day, month, weekday = fields
    if not (_has(minute, 0, shown.minute) and _has(hour, 1, shown.hour) and _has(month, 3, shown.month)):
        return False
    by_day = _has_day(day, shown)
    by_weekday = _has_weekday(weekday, shown)
    if day.startswith("*") or weekday.startswith("*"):
        return by_day and by_weekday
    return by_day or by_weekday


def _has_day(text: str, shown: datetime) -> bool:
    last = calendar.monthrange(shown.year, shown.month)[1]
    return any(
        (part == "L" and shown.day == last) or (part != "L" and _has(part, 2, shown.day))
        for part in text.split(",")
    )


def _has_weekday(text: str, shown: datetime) -> bool:
    today = shown.isoweekday() % 7
    last = calendar.monthrange(shown.year, shown.month)[1]
    if text.endswith("L"):
        return int(text[:-1]) % 7 == today and shown.day + 7 > last
    if "#" in text:
        wanted, nth = text.split("#")
        return _number(wanted) % 7 == today and (shown.day + 6) // 7 == int(nth)
    return _has(text, 4, today) or (today == 0 and not text.startswith("*") and _has(text, 4, 7))


def _has(text: str, place: int, value: int) -> bool:
    low, high = BOUNDS[place]
    for part in text.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = map(_number, span.split("-"))
        else:
            first = _number(span)
            # A week that is stepped through ends with Saturday.
            last = (6 if place == 4 else high) if step else first
        if first <= value <= last and (value - first) % int(step or 1) == 0:
            return True
    return False


def _number(text: str) -> int:
    return NAMES[text] if text in NAMES else int(text)
