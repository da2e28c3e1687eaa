"""The three ways in which fires follow each other: an interval, one instant, clock faces in a zone.

Instants are datetimes in UTC without a tzinfo, as in `zone`. Each way has one question, `next_after`: the
first fire strictly after an instant. How texts name them: see `schedule`.

Clock faces and elapsed time part on the days when a zone changes its offset:

    a gap                                      a repeated hour
    02:00 ----> 03:00                          02:00 -> 03:00
              ^ what the gap swallowed         02:00 -> 03:00 ---->
                fires here, once               ^ fires in the first of the two
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from jobd.duration import parse_duration
from jobd.errors import ConfigError
from jobd.zone import Zone, utc

# Every fourth year's February 29th lies within it.
EIGHT_YEARS: Final = timedelta(days=8 * 365 + 2)
# Where the world of a schedule begins and ends: calendars and zones beyond are guesses.
BEGIN: Final = datetime(1900, 1, 1)
END: Final = datetime(3000, 1, 1)

_RATE: Final = re.compile(r"([0-9]{1,9}) +(minute|hour|day)s?", re.IGNORECASE)
_DATE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?",
    re.IGNORECASE,
)
_SECOND: Final = timedelta(seconds=1)
# No zone has ever put its clock back by more than a day.
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Interval:
    """Every so often, counted from an anchor, the first fire: however late a run is, fires do not drift."""

    every: timedelta
    anchor: datetime

    def next_after(self, after: datetime) -> datetime:
        if after < self.anchor:
            return self.anchor
        return self.anchor + ((after - self.anchor) // self.every + 1) * self.every


@dataclass(frozen=True)
class Once:
    """One instant."""

    at: datetime

    def next_after(self, after: datetime) -> datetime | None:
        return self.at if after < self.at else None


@dataclass(frozen=True)
class ClockFaces:
    """Clock faces, as `next_wall` gives them in rising order, brought to instants in a zone."""

    next_wall: Callable[[datetime], datetime | None]
    zone: Zone
    in_repeated_hour: bool
    """Fires in the second occurrence of an hour that repeats, too."""
    after_gap: bool
    """Fires once, at the end of a gap, for everything that lies in the gap."""

    def next_after(self, after: datetime) -> datetime | None:
        """Go from stretch to stretch of the zone until a clock face falls into one.

        Each step leads past a transition or past the days without one, and a clock face is looked up anew
        only where a transition has made the last answer void: for a usual expression, once or twice.
        """
        offset = self.zone.offset(after)
        start = after + offset
        if not self.in_repeated_hour:
            start = max(start, self._fired_until(after))
        wall = self.next_wall(start)
        while wall is not None:
            fire = wall - offset
            near = min(fire, after + 3 * _DAY)
            transition = self.zone.next_transition(after, until=near)
            if transition is None:
                if near == fire:
                    return fire
                # Whatever a zone did in between, it neither hid this clock face nor showed an earlier one.
                after = max(near, wall - 2 * _DAY)
                offset = self.zone.offset(after)
                continue
            after, offset = transition.at, transition.after
            resumes = after + offset
            # No clock face lies between `start` and `wall`. The one that was found is void if a gap swallows
            # it, and not the next one if the clock goes back to before `start`.
            if transition.forward:
                if wall >= resumes:
                    continue
                if self.after_gap:
                    return after
            elif not self.in_repeated_hour or resumes > start:
                continue
            start = resumes - _SECOND
            wall = self.next_wall(start)
        return None

    def _fired_until(self, after: datetime) -> datetime:
        """The clock face up to which all has fired, for an instant in the second pass of an hour."""
        last = self.zone.last_transition(after, since=after - _DAY)
        if last is None or last.forward:
            return datetime.min
        return last.at + last.before - _SECOND


def read_every(inside: str, *, text: str, setting: str) -> timedelta:
    """The interval of `every 15m`. Raises ConfigError, also for one below a second or beyond 8 years."""
    every = parse_duration(inside, setting=f"interval of {setting} {text!r}")
    return _in_bounds(every, text, setting)


def read_rate(inside: str, *, text: str, setting: str) -> timedelta:
    """The interval of EventBridge's `rate(5 minutes)`. Raises ConfigError."""
    rate = _RATE.fullmatch(inside)
    if rate is None:
        raise ConfigError(
            setting, text, 'is no rate; write it like "rate(5 minutes)", in minutes, hours or days'
        )
    return _in_bounds(timedelta(**{f"{rate[2].lower()}s": int(rate[1])}), text, setting)


def _in_bounds(every: timedelta, text: str, setting: str) -> timedelta:
    if not _SECOND <= every <= EIGHT_YEARS:
        raise ConfigError(setting, text, 'must be an interval from 1s to 8 years, like "every 15m"')
    return every


def read_date(inside: str, *, zone: Zone, after_gap: bool, text: str, setting: str) -> datetime:
    """The instant of a date with an offset, or of a clock face in `zone`; a date alone is its midnight.

    In an hour that repeats it is the first occurrence, in a gap the end of the gap. Raises ConfigError for
    what is no date, and for a gap unless `after_gap`.
    """
    try:
        if not _DATE.fullmatch(inside):
            raise ValueError(inside)
        at = datetime.fromisoformat(inside.upper())
    except ValueError:
        raise ConfigError(
            setting, text, 'is no date; write it like "2027-03-01T08:00" (in tz) or "2027-03-01T08:00+01:00"'
        ) from None
    if not 1970 <= at.year < END.year:
        raise ConfigError(setting, text, f"must be a date from 1970 to {END.year - 1}")
    if at.tzinfo is not None:
        return utc(at)

    def next_wall(start: datetime) -> datetime | None:
        return at if start < at else None

    faces = ClockFaces(next_wall, zone, in_repeated_hour=False, after_gap=after_gap)
    # No clock is further from UTC than that.
    fire = faces.next_after(at - 2 * _DAY)
    if fire is None:
        raise ConfigError(
            setting,
            text,
            f'is left out in {zone.key}, where the clock goes forward, and dst is "skip"; write another time',
        )
    return fire
