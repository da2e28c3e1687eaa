"""When something fires: a cron expression, an interval or one date, in a time zone.

    Schedule.parse("30 2 * * *", tz="Europe/Berlin").next_after(datetime.now(UTC))

Pure: no clock, no database, no randomness; the same text gives the same fires in every process. What is
done about a fire (catch-up, overlap, jitter) is not decided here. How the parts are read: see `cron` and
`fires`, which also has the rules of daylight saving.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, Self, get_args
from zoneinfo import ZoneInfo

from jobd.cron import EXAMPLES, Cron, Seconds, parse_cron, parse_eventbridge
from jobd.duration import format_duration
from jobd.errors import ConfigError
from jobd.fires import BEGIN, EIGHT_YEARS, END, ClockFaces, Interval, Once, read_date, read_every, read_rate
from jobd.zone import find_zone, utc

Dst = Literal["debian", "skip", "both"]

_LONGEST: Final = 256
_STRANGE: Final = re.compile(r"[^0-9A-Za-z*,/\-#?@():+. ]")
_CALL: Final = re.compile(r"(cron|rate|at) *\((.*)\)", re.IGNORECASE)
_EVERY: Final = re.compile(r"every +(.*)", re.IGNORECASE)
_DATED: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH: Final = datetime(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When something fires. Two are equal if they were written equally; made by `parse`."""

    text: str
    tz: str = "UTC"
    dst: Dst = "debian"
    seconds: Seconds | None = None
    anchor: datetime | None = None
    id: str | None = None
    _fires: Interval | Once | ClockFaces = field(repr=False, compare=False)
    _cron: Cron | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        tz: str = "UTC",
        dst: Dst = "debian",
        seconds: Seconds | None = None,
        anchor: datetime | None = None,
        id: str | None = None,
        now: datetime | None = None,
        setting: str = "schedule",
    ) -> Self:
        """What `text` says: cron, `@daily`, `every 15m`, a date, or EventBridge's cron, rate and at.

        Clock faces are those of the zone `tz`. `dst` says what a fixed-time expression does in a gap and in
        an hour that repeats; one whose minute or hour begins with `*`, or that has seconds, follows elapsed
        time whatever `dst` says. `seconds` says where the seconds of 6 fields stand. Intervals count from
        `anchor` (1970 in UTC without one), which is their first fire; `H` takes its place from `id`.

        What can never fire is refused; with `now`, at creation, also what would not within 8 years. A
        schedule that is read back goes without `now`: its last fire may be over.

        Raises ConfigError naming `setting` or the argument, the part that is wrong, and what would be right.
        """
        written = _allowed(text, setting)
        if dst not in get_args(Dst):
            raise ConfigError("dst", dst, 'must be "debian", "skip" or "both"')
        if seconds is not None and seconds not in get_args(Seconds):
            raise ConfigError("seconds", seconds, 'must be "first" or "last", or be left out')
        if not isinstance(tz, str):
            raise ConfigError("tz", tz, 'is not an IANA time zone; write it like "Europe/Berlin" or "UTC"')
        if anchor is not None:
            _aware(anchor, "anchor")
        zone = find_zone(tz)
        start = utc(anchor) if anchor else _EPOCH
        fires: Interval | Once | ClockFaces
        cron = None
        name, inside = "", written
        if call := _CALL.fullmatch(written):
            name, inside = call[1].lower(), call[2].strip()
        if name == "at" or (not name and _DATED.match(written)):
            after_gap = dst != "skip"
            fires = Once(read_date(inside, zone=zone, after_gap=after_gap, text=written, setting=setting))
        elif name == "rate":
            fires = Interval(read_rate(inside, text=written, setting=setting), start)
        elif every := _EVERY.fullmatch(written):
            fires = Interval(read_every(every[1], text=written, setting=setting), start)
        else:
            if name == "cron":
                cron = parse_eventbridge(inside, text=written, setting=setting, id=id)
            else:
                cron = parse_cron(written, setting=setting, seconds=seconds, id=id)
            fires = ClockFaces(
                cron.next_wall,
                zone,
                in_repeated_hour=cron.is_elapsed or dst == "both",
                after_gap=not cron.is_elapsed and dst != "skip",
            )
        if seconds is not None and (cron is None or not cron.has_seconds):
            raise ConfigError(
                "seconds", seconds, f"is for cron's 6 fields, which {written!r} has not; leave it out"
            )
        schedule = cls(
            text=written,
            tz=tz,
            dst=dst,
            seconds=seconds,
            anchor=anchor,
            id=id,
            _fires=fires,
            _cron=cron,
        )
        if now is not None:
            schedule._refuse_if_never(_aware(now, "now"), setting)
        return schedule

    def next_after(self, after: datetime) -> datetime | None:
        """The first fire strictly after an aware instant, in UTC; None where there is none.

        In UTC, because Python compares and subtracts datetimes of one zone by their clock faces alone, which
        lie in a repeated hour: use `.astimezone(schedule.zone)` to show one. There are no fires before 1900
        and after 2999.
        """
        start = utc(_aware(after, "after"))
        if start >= END:
            return None
        fire = self._fires.next_after(max(start, BEGIN))
        return None if fire is None or fire >= END else fire.replace(tzinfo=UTC)

    @property
    def zone(self) -> ZoneInfo:
        """The zone of `tz`."""
        return find_zone(self.tz).info

    @property
    def follows(self) -> Literal["clock", "elapsed", "once"]:
        """Whether fires are bound to the clock, and so to `dst`, to elapsed time, or are one date."""
        if isinstance(self._fires, Once):
            return "once"
        if self._cron is None or self._cron.is_elapsed:
            return "elapsed"
        return "clock"

    def describe(self) -> str:
        """What the schedule says, in English words."""
        match self._fires:
            case Once(at):
                return (
                    f"Once, at {at.replace(tzinfo=UTC).astimezone(self.zone):%Y-%m-%d %H:%M:%S} ({self.tz})"
                )
            case Interval(every, anchor):
                return f"Every {format_duration(every)}, counted from {anchor:%Y-%m-%d %H:%M:%S} UTC"
            case _:
                assert self._cron is not None
                return f"{self._cron.describe()} ({self.tz})"

    def _refuse_if_never(self, now: datetime, setting: str) -> None:
        fire = self.next_after(now)
        if fire is not None and fire - now <= EIGHT_YEARS:
            return
        if isinstance(self._fires, Once):
            problem = "is over" if fire is None else "is more than 8 years away"
            raise ConfigError(setting, self.text, f"{problem}; write a date to come")
        when = f"fires next on {fire:%Y-%m-%d}, " if fire else "never fires again, "
        raise ConfigError(
            setting, self.text, f"{when}and a schedule has to fire within 8 years; correct its days"
        )


def _allowed(text: object, setting: str) -> str:
    if not isinstance(text, str):
        raise ConfigError(setting, text, f"must be text, like {EXAMPLES}")
    if len(text) > _LONGEST:
        raise ConfigError(
            setting, text[:40] + "...", f"has {len(text)} characters, at most {_LONGEST} are taken"
        )
    if strange := _STRANGE.search(text):
        raise ConfigError(
            setting,
            text,
            f"has the character {strange[0]!r} at index {strange.start()}; "
            "letters, digits, spaces and * , - / # ? @ ( ) : + . are taken",
        )
    if not text.strip():
        raise ConfigError(setting, text, f"is empty; write it like {EXAMPLES}")
    return text.strip()


def _aware(at: object, name: str) -> datetime:
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise ConfigError(name, at, "must be a datetime with a time zone, like datetime.now(UTC)")
    return at
