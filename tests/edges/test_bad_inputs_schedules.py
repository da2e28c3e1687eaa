"""The table of bad inputs, row by row: expressions, zones and dates that are no schedule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from jobd import Schedule
from tests.edges.bad_inputs import read_rows

ROWS = read_rows()


def parse(text: Any, **options: Any) -> Callable[[], Any]:
    return lambda: Schedule.parse(text, **options)


# What each error has to name: the field or setting, the value, and what would be right.
REFUSED: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "schedule-type": (parse(15), ("schedule", "15", '"every 15m"')),
    "schedule-empty": (parse(" "), ("schedule", "' '", '"30 2 * * *"')),
    "schedule-long": (parse("0 " + "1," * 200 + "2 * * *"), ("schedule", "409", "at most 256")),
    "schedule-character": (parse("30 2 * * *;"), ("schedule", "';'", "index 10", "letters, digits")),
    "schedule-tab": (parse("30\t2 * * *"), ("schedule", "'\\t'", "index 2", "spaces")),
    "schedule-fields-few": (parse("30 2 * *"), ("schedule", "4 fields", '"30 2 * * *"')),
    "schedule-fields-many": (parse("0 30 2 * * * *"), ("schedule", "7 fields", '"30 2 * * *"')),
    "schedule-words": (parse("tomorrow"), ("schedule", "'tomorrow'", '"every 15m"')),
    "schedule-seconds-where": (parse("0 30 2 * * *"), ("schedule", "6 fields", 'seconds = "first"')),
    "schedule-seconds-value": (parse("0 30 2 * * *", seconds=True), ("seconds", "True", '"first" or "last"')),
    "schedule-seconds-needless": (
        parse("30 2 * * *", seconds="first"),
        ("seconds", "'first'", "leave it out"),
    ),
    "schedule-minute": (parse("60 2 * * *"), ("minute", "'60'", "0 to 59")),
    "schedule-hour": (parse("0 24 * * *"), ("hour", "'24'", "0 to 23")),
    "schedule-day": (parse("0 0 0 * *"), ("day-of-month", "'0'", "1 to 31")),
    "schedule-month": (parse("0 0 1 JUNE *"), ("month", "'JUNE'", "JAN to DEC")),
    "schedule-weekday": (parse("0 0 * * 8"), ("day-of-week", "'8'", "SUN to SAT")),
    "schedule-second": (parse("0 0 * * * 75", seconds="last"), ("second", "'75'", "0 to 59")),
    "schedule-range": (parse("0 9- * * *"), ("hour", "'9-'", '"9-17"')),
    "schedule-list": (parse("0,,30 * * * *"), ("minute", "''", '"0,30"')),
    "schedule-step-zero": (parse("*/0 * * * *"), ("minute", "'*/0'", "from 1 to 60")),
    "schedule-step-long": (parse("*/90 * * * *"), ("minute", "'*/90'", '"every 90m"')),
    "schedule-nth": (parse("0 0 * * FRI#6"), ("day-of-week", "'FRI#6'", "1 to 5")),
    "schedule-nth-mixed": (parse("0 0 * * MON,FRI#2"), ("day-of-week", "'MON,FRI#2'", "two schedules")),
    "schedule-nearest-list": (parse("0 0 1W,15 * *"), ("day-of-month", "'1W,15'", "stands alone")),
    "schedule-last-offset": (parse("0 0 L-3 * *"), ("day-of-month", "'L-3'", '"L" (the last)')),
    "schedule-last-weekday": (parse("0 0 * * L"), ("day-of-week", "'L'", '"L5"')),
    "schedule-question": (parse("0 ? * * *"), ("hour", "'?'", "write *")),
    "schedule-random": (parse("R R * * *"), ("minute", "'R'", "H is chosen once")),
    "schedule-hash-id": (parse("H 2 * * *"), ("minute", "'H'", "give an id")),
    "schedule-hash-range": (parse("H(30-10) * * * *", id="a"), ("minute", "'H(30-10)'", "H(0-29)")),
    "schedule-never": (parse("0 0 31 2,4 *"), ("schedule", "'0 0 31 2,4 *'", "correct the day-of-month")),
    "schedule-name": (parse("@hourli"), ("schedule", "'@hourli'", "@hourly")),
    "schedule-reboot": (parse("@reboot"), ("schedule", "'@reboot'", "enqueue the job")),
    "schedule-aws-fields": (parse("cron(0 0 * * *)"), ("schedule", "5 fields", '"cron(30 2 * * ? *)"')),
    "schedule-aws-days": (parse("cron(0 0 * * * *)"), ("schedule", "day-of-month", "needs a ?")),
    "schedule-aws-weekday": (parse("cron(0 0 ? * 0 *)"), ("day-of-week", "'0'", "1 to 7")),
    "schedule-aws-year": (parse("cron(0 0 1 1 ? 2199)"), ("year", "'2199'", "1970 to 2099")),
    "schedule-aws-years": (
        parse("cron(0 0 1 1 ? 2030-2027)"),
        ("year", "'2030-2027'", "does not rise", "2027-2030"),
    ),
    "schedule-rate": (parse("rate(5 fortnights)"), ("schedule", "fortnights", '"rate(5 minutes)"')),
    "schedule-every": (parse("every 5 minutes"), ("interval", "'5 minutes'", '"15m"')),
    "schedule-every-bounds": (parse("every 10ms"), ("schedule", "'every 10ms'", "from 1s")),
    "schedule-date": (parse("2027-02-29T08:00"), ("schedule", "'2027-02-29T08:00'", '"2027-03-01T08:00"')),
    "schedule-at": (parse("at(noon)"), ("schedule", "'at(noon)'", '"2027-03-01T08:00"')),
    "schedule-date-gap": (
        parse("2027-03-28T02:30", tz="Europe/Berlin", dst="skip"),
        ("schedule", "'2027-03-28T02:30'", "Europe/Berlin", "write another time"),
    ),
    "schedule-date-over": (
        parse("2026-01-01T08:00", now=datetime(2026, 11, 22, tzinfo=UTC)),
        ("schedule", "'2026-01-01T08:00'", "a date to come"),
    ),
    "schedule-eight-years": (
        parse("cron(0 0 1 1 ? 2050)", now=datetime(2026, 11, 22, tzinfo=UTC)),
        ("schedule", "2050", "within 8 years"),
    ),
    "zone-misspelt": (parse("@daily", tz="Europe/Berln"), ("tz", "'Europe/Berln'", "'Europe/Berlin'")),
    "zone-abbreviation": (parse("@daily", tz="CEST"), ("tz", "'CEST'", '"Europe/Berlin"')),
    "zone-offset": (parse("@daily", tz="+02:00"), ("tz", "'+02:00'", '"Europe/Berlin"')),
    "zone-path": (parse("@daily", tz="../../etc/passwd"), ("tz", "passwd", '"Europe/Berlin"')),
    "zone-type": (parse("@daily", tz=UTC), ("tz", "utc", '"Europe/Berlin"')),
    "schedule-dst": (parse("@daily", dst="vixie"), ("dst", "'vixie'", '"debian", "skip" or "both"')),
    "schedule-anchor": (
        parse("every 15m", anchor=datetime(2027, 1, 1)),
        ("anchor", "datetime(2027, 1, 1", "with a time zone"),
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_it_is_refused_in_words_that_name_place_value_and_remedy(row: str):
    act, names = REFUSED[row]
    with pytest.raises(Exception) as refusal:
        act()
    ROWS[row].check(refusal.type.__name__, str(refusal.value), *names)
