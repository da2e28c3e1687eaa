"""When schedules fire, found in the plainest way: by looking at every minute that a zone's clock shows.

Nothing of jobd's own is used. A schedule is written twice, as the text that jobd reads and as sets of
numbers, so that no expression has to be read here. The rules of daylight saving are Debian cron's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


class Clock(NamedTuple):
    """Clock faces. None: every one of them. Days of the month and of the week: either will do."""

    minutes: frozenset[int]
    hours: frozenset[int] | None = None
    days: frozenset[int] | None = None
    weekdays: frozenset[int] | None = None  # Sunday is 0
    elapsed: bool = False
    second: int = 0

    def shows(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or (self.hours is not None and wall.hour not in self.hours):
            return False
        sides = [
            side
            for side in (
                None if self.days is None else wall.day in self.days,
                None if self.weekdays is None else wall.isoweekday() % 7 in self.weekdays,
            )
            if side is not None
        ]
        return not sides or any(sides)


class Every(NamedTuple):
    """Every so often, counted from an instant."""

    interval: timedelta
    anchor: datetime


class Once(NamedTuple):
    """One clock face of the zone."""

    wall: datetime


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A schedule: as jobd reads it, and as the oracle does."""

    id: str
    when: str
    meaning: Clock | Every | Once
    tz: str
    dst: str = "debian"
    options: dict[str, Any] = field(default_factory=dict)
    # Each occurrence has to run, whatever happens to the processes.
    faithful: bool = False


class Minute(NamedTuple):
    """One minute that passes, and what the clock shows. `again`: it has shown that before."""

    at: datetime
    wall: datetime
    again: bool
    # What the clock left out right before.
    left_out: Sequence[datetime]


def walk(tz: str, begin: datetime, end: datetime) -> Iterator[Minute]:
    """Every minute from two days before `begin`, so that what it shows again is known, to `end`."""
    zone = ZoneInfo(tz)
    at = begin.replace(second=0, microsecond=0) - timedelta(days=2)
    last = newest = at.astimezone(zone).replace(tzinfo=None)
    while at < end:
        at += MINUTE
        wall = at.astimezone(zone).replace(tzinfo=None)
        left_out: Sequence[datetime] = ()
        if wall - last > MINUTE:
            left_out = [last + MINUTE * n for n in range(1, (wall - last) // MINUTE)]
        yield Minute(at, wall, wall <= newest, left_out)
        last, newest = wall, max(newest, wall)


def fires(samples: Sequence[Sample], begin: datetime, end: datetime) -> dict[str, list[datetime]]:
    """When each of these fires, after `begin` and up to `end`."""
    found: dict[str, list[datetime]] = {}
    for tz in sorted({sample.tz for sample in samples}):
        shown: dict[int, list[Minute]] = {minute: [] for minute in range(60)}
        jumps: list[Minute] = []
        minutes = walk(tz, begin, end)
        for minute in minutes:
            shown[minute.wall.minute].append(minute)
            if minute.left_out:
                jumps.append(minute)
        for sample in samples:
            if sample.tz == tz:
                all_fires = _of(sample, shown, jumps, begin, end)
                found[sample.id] = sorted(at for at in all_fires if _within(sample, at, begin, end))
    return found


def _of(
    sample: Sample, shown: dict[int, list[Minute]], jumps: list[Minute], begin: datetime, end: datetime
) -> set[datetime]:
    match sample.meaning:
        case Every(interval, anchor):
            first = max((begin - anchor) // interval, 0)
            count = (end - anchor) // interval - first + 1
            return {anchor + interval * (first + n) for n in range(count + 1)}
        case Once(wall):
            swallowed = {each.at for each in jumps if wall in each.left_out}
            return swallowed or {
                each.at for each in shown[wall.minute] if each.wall == wall and not each.again
            }
        case Clock() as clock:
            seconds = timedelta(seconds=clock.second)
            found = {
                each.at + seconds
                for minute in clock.minutes
                for each in shown[minute]
                if clock.shows(each.wall) and (clock.elapsed or not each.again or sample.dst == "both")
            }
            if not clock.elapsed and sample.dst != "skip":
                found |= {each.at for each in jumps if any(clock.shows(wall) for wall in each.left_out)}
            return found


def _within(sample: Sample, at: datetime, begin: datetime, end: datetime) -> bool:
    starts, ends = sample.options.get("starts_at"), sample.options.get("ends_at")
    return begin < at <= end and (starts is None or at >= starts) and (ends is None or at <= ends)
