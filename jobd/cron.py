"""Cron expressions: five fields, six with seconds, `@daily` and its like, and EventBridge's `cron(...)`.

An expression knows clock faces only: `next_wall` takes and returns datetimes without a zone, as if there
were no daylight saving. What a clock face is in a zone: see `schedule`. No other module imports croniter,
whose version is pinned: a schedule must not move because a library was upgraded.

Day-of-month and day-of-week combine as in Debian's cron: where one of them begins with `*`, a day has to
match both; where none does, either. croniter decides this by another rule, and forgets one side beside a
`#` or a `W`, so each side is asked on its own. croniter is asked for days alone: the times of a day are
plain numbers.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal

from croniter import CroniterBadDateError, croniter

from jobd.cronfield import AWS_WEEKDAY, DAY, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, YEAR, Values
from jobd.errors import ConfigError

_ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PLAIN: Final = (MINUTE, HOUR, DAY, MONTH, WEEKDAY)
_EVENTBRIDGE: Final = (MINUTE, HOUR, DAY, MONTH, AWS_WEEKDAY, YEAR)
EXAMPLES: Final = '"30 2 * * *", "every 15m" or "2027-03-01T08:00"'
_HOW: Final = 'write it like "30 2 * * *" (minute, hour, day-of-month, month, day-of-week)'
# February 29th on a given weekday comes once in 40 years at worst, around a year such as 2100.
_YEARS: Final = 50
_SECOND: Final = timedelta(seconds=1)

Seconds = Literal["first", "last"]


class Cron:
    """A cron expression that has been read and has at least one date ahead of it."""

    def __init__(
        self,
        *,
        minute: Values,
        hour: Values,
        day: Values,
        month: Values,
        weekday: Values,
        second: Values | None = None,
        year: Values | None = None,
    ) -> None:
        year = None if year is None or year.every else year
        self._spoken = (minute, hour, day, month, weekday, second, year)
        self.has_seconds: Final = second is not None
        self.is_elapsed: Final = self.has_seconds or minute.starred or hour.starred
        """Follows elapsed time, as Debian's cron does where the minute or the hour begins with `*`."""
        self._times: Final = (hour.numbers, minute.numbers, second.numbers if second else (0,))
        self._either: Final = not (day.starred or weekday.starred)
        one_each = [(day.croniter, "*"), ("*", weekday.croniter)]
        days = one_each if self._either else [(day.croniter, weekday.croniter)]
        # croniter has the seconds behind the week, and the year behind them.
        years = f" 0 {year.croniter}" if year else ""
        self._days: Final = [
            f"0 0 {of_month} {month.croniter} {of_week}{years}" for of_month, of_week in days
        ]

    def next_wall(self, after: datetime) -> datetime | None:
        """The first matching clock face after `after`, both without a zone; None where there is none.

        Looks 50 years ahead at most, for an expression with years to the last of them.
        """
        midnight = after.replace(hour=0, minute=0, second=0, microsecond=0)
        day = self._next_day(midnight - _SECOND)
        if day == midnight:
            if later := self._later(after):
                return day.replace(hour=later[0], minute=later[1], second=later[2])
            day = self._next_day(midnight)
        if day is None:
            return None
        hours, minutes, seconds = self._times
        return day.replace(hour=hours[0], minute=minutes[0], second=seconds[0])

    def _next_day(self, after: datetime) -> datetime | None:
        """The midnight of the first matching day, of those after `after`."""
        return min((day for days in self._days if (day := _next_midnight(days, after))), default=None)

    def _later(self, after: datetime) -> tuple[int, int, int] | None:
        """The first matching time of a day after the one of `after`."""
        hours, minutes, seconds = self._times
        if after.hour in hours:
            if after.minute in minutes and (second := _above(seconds, after.second)) is not None:
                return after.hour, after.minute, second
            if (minute := _above(minutes, after.minute)) is not None:
                return after.hour, minute, seconds[0]
        hour = _above(hours, after.hour)
        return None if hour is None else (hour, minutes[0], seconds[0])

    def describe(self) -> str:
        """What the expression says, in English words, without the zone."""
        minute, hour, day, month, weekday, second, year = self._spoken
        seconds = [second.spoken] if second else ["0"] if year else []

        def say(of_month: str = "*", month: str = "*", of_week: str = "*", years: str = "*") -> str:
            days = [of_month, month, of_week, years] if year else [of_month, month, of_week]
            return _say(" ".join([*seconds, minute.spoken, hour.spoken, *days]))

        time = say()
        of_month = "" if day.every else say(of_month=day.spoken).removeprefix(f"{time}, ")
        of_week = ""
        if not weekday.every:
            each = weekday.spoken.split(",") if re.search("[#L]", weekday.spoken) else [weekday.spoken]
            of_week = _together([say(of_week=part).removeprefix(f"{time}, ") for part in each])
        # The library joins the two kinds of days in its own ways; cron wants either or both.
        if self._either:
            days = f"{of_month}, or {of_week.removeprefix('only ')}" if of_month and of_week else ""
        elif of_month and of_week:
            days = f"{of_month}, but only {of_week.removeprefix('only ')}"
        else:
            days = of_month or of_week
        rest = say(month=month.spoken, years=year.spoken if year else "*").removeprefix(time)
        return (f"{time}, {days}" if days else time) + rest


def _above(values: Sequence[int], value: int) -> int | None:
    """The first of rising values that is greater."""
    return next((each for each in values if each > value), None)


def _together(days: Sequence[str]) -> str:
    """`on the first Friday of the month` and its like, in one; the library would lose which of them."""
    if len(days) == 1:
        return days[0]
    named = [day.removeprefix("on ").removesuffix(" of the month") for day in days]
    listed = " and ".join(named) if len(named) == 2 else f"{', '.join(named[:-1])}, and {named[-1]}"
    return f"on {listed} of the month"


# Most schedules share their days, and all of them today.
@lru_cache(maxsize=10_000)
def _next_midnight(days: str, after: datetime) -> datetime | None:
    # A croniter keeps its place; a copy leaves the shared one alone, whatever thread asks.
    try:
        return copy.copy(_calendar(days)).get_next(datetime, start_time=after)  # type: ignore[no-any-return]
    except CroniterBadDateError:
        return None


@lru_cache(maxsize=2_000)
def _calendar(days: str) -> Any:
    """What knows the midnights of these days, with a sixth field of seconds where a seventh says years."""
    return croniter(
        days,
        datetime(2000, 1, 1),
        day_or=False,
        max_years_between_matches=YEAR.high - YEAR.low + 1 if len(days.split()) == 7 else _YEARS,
    )


def _say(expression: str) -> str:
    from cron_descriptor import ExpressionDescriptor, Options

    # Without a locale it would speak the language of the machine.
    options = Options(use_24hour_time_format=True, locale_code="en_US")
    words = str(ExpressionDescriptor(expression, options).get_full_description())
    return words.replace(" and L of the month", " and the last of the month")


def parse_cron(text: str, *, setting: str, seconds: Seconds | None, id: str | None) -> Cron:
    """Five fields, six if `seconds` says where the seconds stand, or a name such as `@daily`.

    Raises ConfigError, naming the field, for everything else and for what never comes, as February 30th.
    """
    written = text
    if text.startswith("@"):
        if seconds is not None:
            raise _needless_seconds(seconds, text)
        written = _ALIASES.get(text.lower(), "")
        if text.lower() == "@reboot":
            raise ConfigError(setting, text, "is no time; enqueue the job where your application starts")
        if not written:
            close = difflib.get_close_matches(text.lower(), _ALIASES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it is one of {', '.join(_ALIASES)}"
            raise ConfigError(setting, text, f"is not known; {hint}")
    parts = written.split()
    if len(parts) == 1:
        raise ConfigError(setting, text, f"is no schedule; write it like {EXAMPLES}")
    if seconds is None and len(parts) == 6:
        raise ConfigError(
            setting,
            text,
            'has 6 fields: say where the seconds stand, seconds = "first" or "last", or write 5 fields',
        )
    if seconds is not None and len(parts) == 5:
        raise _needless_seconds(seconds, text)
    if len(parts) != (5 if seconds is None else 6):
        raise ConfigError(setting, text, f"has {len(parts)} fields, cron has 5; {_HOW}")
    of = f"{setting} {text!r}"
    second = None
    if seconds is not None:
        second = SECOND.read(parts.pop(0 if seconds == "first" else -1), of=of, id=id)
    minute, hour, day, month, weekday = (
        field.read(part, of=of, id=id) for field, part in zip(_PLAIN, parts, strict=True)
    )
    cron = Cron(minute=minute, hour=hour, day=day, month=month, weekday=weekday, second=second)
    return _that_comes(cron, setting, text)


def parse_eventbridge(inside: str, *, text: str, setting: str, id: str | None) -> Cron:
    """What stands between the brackets of EventBridge's `cron(...)`: six fields, the year last, SUN is 1.

    One of the two day fields is `?`, as EventBridge wants it. Raises ConfigError as `parse_cron` does.
    """
    parts = inside.split()
    if len(parts) != len(_EVENTBRIDGE):
        raise ConfigError(
            setting,
            text,
            f"has {len(parts)} fields between the brackets, EventBridge's cron has 6; "
            'write it like "cron(30 2 * * ? *)" (the fifth is the day of the week, the last the year)',
        )
    if (parts[2] == "?") == (parts[4] == "?"):
        raise ConfigError(
            setting, text, "needs a ? in one of the fields day-of-month and day-of-week, and only in one"
        )
    of = f"{setting} {text!r}"
    minute, hour, day, month, weekday, year = (
        field.read(part, of=of, id=id) for field, part in zip(_EVENTBRIDGE, parts, strict=True)
    )
    cron = Cron(minute=minute, hour=hour, day=day, month=month, weekday=weekday, year=year)
    return _that_comes(cron, setting, text)


def _that_comes(cron: Cron, setting: str, text: str) -> Cron:
    if cron.next_wall(datetime(1999, 12, 31, 23, 59, 59)) is None:
        raise ConfigError(
            setting,
            text,
            "never fires: no year has such a day; correct the day-of-month, the month or the year",
        )
    return cron


def _needless_seconds(seconds: str, text: str) -> ConfigError:
    return ConfigError(
        "seconds", seconds, f"is for expressions with 6 fields, and {text!r} has none; leave it out"
    )
