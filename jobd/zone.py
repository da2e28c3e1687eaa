"""A time zone as a row of stretches, in each of which the clock goes at the pace of UTC.

    ---- +01:00 ----|---- +02:00 ----|---- +01:00 ----      transitions: instant, offset before, offset after
                    gap              repeated hour

Instants are datetimes in UTC without a tzinfo here: arithmetic on datetimes of a zone ignores the
transitions in between. Rules come from zoneinfo: the system's data, or those of the package tzdata.
"""

from __future__ import annotations

import difflib
import errno
import zoneinfo
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from jobd.errors import ConfigError

# Two transitions of tzdata since 1970 are seven days apart at least, as tests/unit/test_zone.py sees.
_STRIDE: Final = timedelta(days=3)
_SECOND: Final = timedelta(seconds=1)
# In the system's folder of zones, but no place: the host's own zone, leap seconds, a placeholder.
_NO_PLACES: Final = ("posix/", "right/", "posixrules", "localtime", "Factory")


class Transition(NamedTuple):
    """The offset changes at this instant: a gap on the clock if it grows, a repetition if it shrinks."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def forward(self) -> bool:
        """The clock goes forward here, and leaves a gap; otherwise it goes back, and repeats."""
        return self.after > self.before


class Zone:
    """One IANA zone. Equal zones are one object, see `find_zone`."""

    def __init__(self, key: str) -> None:
        self.key: Final = key
        self.info: Final = zoneinfo.ZoneInfo(key)
        self._of_year = lru_cache(maxsize=200)(self._find_of_year)

    def offset(self, at: datetime) -> timedelta:
        """What has to be added to this instant to get the clock face."""
        return self.info.fromutc(at.replace(tzinfo=self.info)).replace(tzinfo=None) - at

    def next_transition(self, after: datetime, *, until: datetime) -> Transition | None:
        """The first transition after an instant and not after another."""
        for year in range(after.year, until.year + 1):
            transitions = self._of_year(year)
            index = bisect_right(transitions, after, key=_instant)
            if index < len(transitions):
                found = transitions[index]
                return found if found.at <= until else None
        return None

    def last_transition(self, before: datetime, *, since: datetime) -> Transition | None:
        """The last transition that is not after an instant, and after another."""
        for year in range(before.year, since.year - 1, -1):
            transitions = self._of_year(year)
            index = bisect_right(transitions, before, key=_instant)
            if index:
                found = transitions[index - 1]
                return found if found.at > since else None
        return None

    def _find_of_year(self, year: int) -> Sequence[Transition]:
        """Those of one year in UTC, its first instant included. Looked for once: it takes some 100 us."""
        found = []
        at, end = datetime(year, 1, 1) - _SECOND, datetime(year + 1, 1, 1) - _SECOND
        before = self.offset(at)
        while at < end:
            following = min(at + _STRIDE, end)
            after = self.offset(following)
            if after != before:
                found.append(self._narrow(at, following, before, after))
                before = after
            at = following
        return found

    def _narrow(self, low: datetime, high: datetime, before: timedelta, after: timedelta) -> Transition:
        while high - low > _SECOND:
            middle = (low + (high - low) // 2).replace(microsecond=0)
            if self.offset(middle) == before:
                low = middle
            else:
                high = middle
        return Transition(high, before, after)


def _instant(transition: Transition) -> datetime:
    return transition.at


@lru_cache(maxsize=1_000)
def find_zone(key: str, *, setting: str = "tz") -> Zone:
    """The zone of an IANA name. Raises ConfigError for any other text, saying what is close."""
    try:
        # The text reaches the file system: what is no name is not looked for.
        if not key or len(key) > 100 or key.startswith(_NO_PLACES):
            raise ValueError(key)
        return Zone(key)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
            raise
        # Only places are guessed: EST is close to CEST in letters alone.
        known = {name.lower(): name for name in zoneinfo.available_timezones() if "/" in name}
        places = {name.rsplit("/", 1)[-1]: name for name in known}
        wanted = key.lower().strip().replace(" ", "_")
        close = difflib.get_close_matches(wanted, [*known, *places], n=1, cutoff=0.8)
        name = "UTC" if wanted == "utc" else known[places.get(close[0], close[0])] if close else None
        hint = f"did you mean {name!r}?" if name else 'write it like "Europe/Berlin" or "UTC"'
        raise ConfigError(setting, key, f"is not an IANA time zone; {hint}") from None


def utc(at: datetime) -> datetime:
    """An aware datetime as an instant of this module: in UTC, without a tzinfo."""
    return at.astimezone(UTC).replace(tzinfo=None)
