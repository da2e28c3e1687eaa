"""One field of a cron expression: which values it names, how croniter spells them, how people say them.

    5,10-20/5 */3  mon-fri  L  15W  5#2  L5  H(0-29)

Each part is read and bounded here, before croniter sees it, for two reasons: an error can name the field
and say what would be right, and what croniter reads in a way of its own (`5-5` as the whole cycle) means
here what it means in Debian's cron. What a whole expression is: see `cron`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from jobd.errors import ConfigError

_RANGE: Final = re.compile(r"(\*|[0-9]{1,4}|[A-Z]{3})(?:-([0-9]{1,4}|[A-Z]{3}|L))?(?:/([0-9]{1,4}))?")
_TAKES_ID: Final = re.compile(r"(?:^|,)H")
_HASHED: Final = re.compile(r"H(?:\(([0-9]{1,4})-([0-9]{1,4})\))?(?:/([0-9]{1,4}))?")
_RANDOM: Final = re.compile(r"R(?:\(.*\))?(?:/.*)?")
_NEAREST: Final = re.compile(r"([0-9]{1,2})W|W([0-9]{1,2})")
_NTH: Final = re.compile(r"([0-9]|[A-Z]{3})(?:-([0-9]|[A-Z]{3}))?#([0-9]{1,2})")
_LAST: Final = re.compile(r"L([0-9]|[A-Z]{3})|([0-9]|[A-Z]{3})L")
_MONTHS: Final = tuple(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"])
_WEEKDAYS: Final = tuple(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])


@dataclass(frozen=True)
class Values:
    """What a field says."""

    croniter: str
    """The values one by one, as croniter takes them; `*` for all of them."""
    spoken: str
    """The same, with its ranges and steps, for a description."""
    starred: bool
    """Begins with `*`, or is `?`: what Debian's cron looks at."""
    numbers: tuple[int, ...]
    """The values in rising order, but for those that are no numbers, such as `L`."""

    @property
    def every(self) -> bool:
        return self.croniter == "*"


@dataclass(frozen=True)
class Field:
    """The rules of one place in an expression. `low` and `high` are what people write there."""

    name: str
    low: int
    high: int
    example: str
    names: tuple[str, ...] = ()
    # EventBridge counts the days of the week from SUN = 1, cron from SUN = 0 and takes 7 for it, too.
    first: int = 0
    last: int = 0

    @property
    def is_day(self) -> bool:
        return self.name == "day-of-month"

    @property
    def is_weekday(self) -> bool:
        return self.name == "day-of-week"

    def read(self, text: str, *, of: str, id: str | None) -> Values:
        """The values that `text` names; `H` takes its place from `id`.

        Raises ConfigError, naming the field, `of` (the expression), the wrong part, and what would be right.
        """
        written = text.upper()
        try:
            return _read(self, written, id if _TAKES_ID.search(written) else None)
        except _Wrong as wrong:
            raise ConfigError(f"{self.name} of {of}", wrong.part, wrong.remedy) from None


MINUTE: Final = Field("minute", 0, 59, '"0", "*/15" or "0,30"', last=59)
HOUR: Final = Field("hour", 0, 23, '"2", "*/6" or "9-17"', last=23)
DAY: Final = Field("day-of-month", 1, 31, '"1", "1,15", "L" (the last) or "15W"', first=1, last=31)
MONTH: Final = Field("month", 1, 12, '"1", "JAN-MAR" or "*/3"', _MONTHS, first=1, last=12)
WEEKDAY: Final = Field("day-of-week", 0, 7, '"1", "MON-FRI", "FRI#2" or "L5"', _WEEKDAYS, last=6)
SECOND: Final = Field("second", 0, 59, '"0" or "*/10"', last=59)
YEAR: Final = Field("year", 1970, 2099, '"*", "2027" or "2027-2029"', first=1970, last=2099)
AWS_WEEKDAY: Final = Field("day-of-week", 1, 7, '"2", "MON-FRI", "FRI#2" or "6L"', _WEEKDAYS, last=6)


class _Wrong(Exception):
    """A part of a field, and what would be right."""

    def __init__(self, part: str, remedy: str) -> None:
        super().__init__(part, remedy)
        self.part = part
        self.remedy = remedy


@lru_cache(maxsize=2_000)
def _read(field: Field, text: str, id: str | None) -> Values:
    """Of ten thousand schedules many have a field in common."""
    return _Reading(field, id).field(text)


class _Reading:
    """The text of one field on its way to its values. What is wrong raises _Wrong."""

    def __init__(self, field: Field, id: str | None) -> None:
        self._field = field
        self._id = id

    def field(self, text: str) -> Values:
        rules = self._field
        if text == "?":
            if not (rules.is_day or rules.is_weekday):
                raise _Wrong(text, "stands for a day only; write * here")
            return Values("*", "*", starred=True, numbers=tuple(range(rules.first, rules.last + 1)))
        if _RANDOM.fullmatch(text):
            raise _Wrong(
                text,
                "is random, so that each process would compute other times; H is chosen once, from the id",
            )
        parts = text.split(",")
        if len(parts) > 1 and any(_NEAREST.fullmatch(part) for part in parts):
            raise _Wrong(text, "has a W in a list, and W stands alone, as in 15W")
        values: set[int] = set()
        special: list[str] = []
        spoken = []
        for part in sorted(parts, key="L".__eq__):
            found, named, said = self._part(part)
            values.update(found)
            special += named
            spoken.append(said)
        if special and values and rules.is_weekday:
            raise _Wrong(text, "mixes plain days with # or L; make it two schedules")
        every = len(values) == rules.last - rules.first + 1
        listed = ["*"] if every else [*map(str, sorted(values)), *dict.fromkeys(special)]
        if len(parts) > 1 and any("/" in said for said in spoken):
            # "Every 10 minutes and 5 minutes" is no English.
            spoken = [str(value) for value in sorted(values)]
        said = "*" if every else ",".join(dict.fromkeys(",".join(spoken).split(",")))
        return Values(",".join(listed), said, starred=text.startswith("*"), numbers=tuple(sorted(values)))

    def _part(self, part: str) -> tuple[list[int], list[str], str]:
        """The values of one part, those that are no numbers, and how to say it."""
        rules = self._field
        if hashed := _HASHED.fullmatch(part):
            found = self._hashed(part, *hashed.groups())
            return found, [], ",".join(map(str, found))
        if rules.is_day:
            if part == "L":
                return [], ["l"], "L"
            if nearest := _NEAREST.fullmatch(part):
                day = self._number(nearest[1] or nearest[2], part)
                return [], [f"{day}w"], f"{day}W"
        if rules.is_weekday:
            if part == "L" and rules is AWS_WEEKDAY:
                return [6], [], "6"
            if last := _LAST.fullmatch(part):
                day = self._number(last[1] or last[2], part)
                return [], [f"l{day}"], f"{day}L"
            if nth := _NTH.fullmatch(part):
                if not 1 <= int(nth[3]) <= 5:
                    raise _Wrong(part, "counts a weekday that no month has; # takes 1 to 5, as in FRI#2")
                low, high = self._number(nth[1], part), self._number(nth[2] or nth[1], part)
                days = [f"{day}#{int(nth[3])}" for day in self._cycle(low, high)]
                return [], days, ",".join(days)
        return self._plain(part)

    def _plain(self, part: str) -> tuple[list[int], list[str], str]:
        rules = self._field
        written = _RANGE.fullmatch(part)
        if written is None or (written[1] == "*" and written[2]):
            raise _Wrong(part, self._what_is_right())
        low, high = rules.first, rules.last
        if written[1] != "*":
            low = high = self._number(written[1], part)
            if written[2] == "L" and rules.is_day:
                high = rules.last
            elif written[2]:
                high = self._number(written[2], part)
                if rules is YEAR and high < low:
                    raise _Wrong(part, f"has a range that does not rise; write it like {high}-{low}")
                if low == high and written[1] != written[2]:  # 0-7 in day-of-week
                    low, high = rules.first, rules.last
        step = self._step(part, written[3])
        if written[3] and not written[2]:
            high = rules.last
        found = list(self._cycle(low, high))[::step]
        if step > 1 and (rules.is_day or rules.is_weekday or (rules.last - rules.first + 1) % step):
            # "Every 7 minutes" would be wrong once an hour.
            return found, [], ",".join(map(str, found))
        said = "*" if written[1] == "*" else str(low) if low == high else f"{low}-{high}"
        return found, [], said + (f"/{step}" if step > 1 and low != high else "")

    def _cycle(self, low: int, high: int) -> Iterator[int]:
        """From low to high, over the end of the cycle where high is the smaller one."""
        if low <= high:
            yield from range(low, high + 1)
        else:
            yield from range(low, self._field.last + 1)
            yield from range(self._field.first, high + 1)

    def _step(self, part: str, written: str | None) -> int:
        if written is None:
            return 1
        size = self._field.last - self._field.first + 1
        if not 1 <= int(written) <= size:
            raise _Wrong(
                part,
                f"has a step of {int(written)}, and a step of this field is from 1 to {size}; "
                'longer ones are intervals, like "every 90m"',
            )
        return int(written)

    def _number(self, written: str, part: str) -> int:
        """A number or a name, as croniter counts."""
        rules = self._field
        if written in rules.names:
            return rules.names.index(written) + rules.first
        if not written.isdecimal() or not rules.low <= int(written) <= rules.high:
            raise _Wrong(part, self._what_is_right())
        if not rules.is_weekday:
            return int(written)
        return (int(written) - rules.low) % 7

    def _hashed(self, part: str, begin: str | None, end: str | None, step: str | None) -> list[int]:
        rules = self._field
        if self._id is None:
            raise _Wrong(part, "takes its place from the schedule's id; give an id, or write a value")
        # Every month has 28 days; one fire a month is what a lone H asks for.
        low, high = rules.first, 28 if rules.is_day and step is None else rules.last
        if begin is not None and end is not None:
            low, high = self._number(begin, part), self._number(end, part)
            if low >= high:
                raise _Wrong(part, "has a range that does not rise; write it like H(0-29)")
        choices = high - low + 1
        if step is not None:
            choices = min(choices, self._step(part, step))
        digest = hashlib.blake2b(f"{rules.name} {self._id}".encode(), digest_size=8).digest()
        chosen = low + int.from_bytes(digest, "big") % choices
        return [chosen] if step is None else list(range(chosen, high + 1, int(step)))

    def _what_is_right(self) -> str:
        rules = self._field
        named = f" or {rules.names[0]} to {rules.names[-1]}" if rules.names else ""
        return f"is no value from {rules.low} to {rules.high}{named}; write it like {rules.example}"
