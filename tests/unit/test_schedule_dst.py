"""Schedules on the nights when a zone changes its clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import Schedule
from jobd.schedule import Dst
from tests.unit.cron_scan import scan

# Each has a transition within the day after it.
NIGHTS = [
    ("Europe/Berlin", "2026-03-28T12:00"),
    ("Europe/Berlin", "2026-10-24T12:00"),
    ("America/New_York", "2026-03-08T00:00"),
    ("America/New_York", "2026-11-01T00:00"),
    ("Australia/Lord_Howe", "2026-04-04T06:00"),
    ("Australia/Lord_Howe", "2026-10-03T06:00"),
    ("Antarctica/Troll", "2026-03-28T12:00"),
    ("Antarctica/Troll", "2026-10-24T12:00"),
    ("Africa/Casablanca", "2026-02-14T12:00"),
    ("Asia/Beirut", "2026-03-28T12:00"),
    ("America/Santiago", "2026-04-04T18:00"),
    ("America/Caracas", "2007-12-08T20:00"),
    ("Asia/Pyongyang", "2018-05-04T06:00"),
    ("Pacific/Apia", "2011-12-29T12:00"),
    ("Asia/Kolkata", "2026-03-28T12:00"),
]
EXPRESSIONS = [
    "30 2 * * *",
    "0 0 * * *",
    "45 1 * * *",
    "15,45 1-3 * * *",
    "10-50/20 2,23 * * *",
    "0 3 * * *",
    "*/15 * * * *",
    "* 2 * * *",
    "20 * * * *",
    "30 */2 * * *",
    "30 2 29 * 0",
    "5 0-23 * * *",
]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    found = []
    fire = schedule.next_after(start)
    while fire is not None and fire <= end:
        found.append(fire)
        fire = schedule.next_after(fire)
    return found


def shown(schedule: Schedule, start: str, count: int) -> list[str]:
    found = []
    fire: datetime | None = instant(start)
    for _ in range(count):
        assert fire is not None
        fire = schedule.next_after(fire)
        assert fire is not None
        found.append(f"{fire.astimezone(schedule.zone):%d %H:%M %z}")
    return found


@pytest.mark.parametrize("dst", ["debian", "skip", "both"])
@pytest.mark.parametrize(("zone", "start"), NIGHTS)
def test_every_minute_of_a_night_is_as_a_look_at_the_clock_says(zone: str, start: str, dst: Dst):
    begin = instant(start)
    end = begin + timedelta(days=2)
    for expression in EXPRESSIONS:
        schedule = Schedule.parse(expression, tz=zone, dst=dst)
        assert fires(schedule, begin, end) == scan(expression, zone, dst, begin, end), expression


@pytest.mark.parametrize(
    ("dst", "expected"),
    [
        ("debian", ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]),
        ("skip", ["28 02:30 +0100", "30 02:30 +0200", "31 02:30 +0200"]),
        ("both", ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]),
    ],
)
def test_a_fixed_time_in_a_gap(dst: Dst, expected: list[str]):
    assert shown(Schedule.parse("30 2 * * *", tz="Europe/Berlin", dst=dst), "2026-03-28T00:00", 3) == expected


@pytest.mark.parametrize(
    ("dst", "expected"),
    [
        ("debian", ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]),
        ("skip", ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]),
        ("both", ["24 02:30 +0200", "25 02:30 +0200", "25 02:30 +0100"]),
    ],
)
def test_a_fixed_time_in_an_hour_that_repeats(dst: Dst, expected: list[str]):
    assert shown(Schedule.parse("30 2 * * *", tz="Europe/Berlin", dst=dst), "2026-10-24T00:00", 3) == expected


def test_several_matches_in_one_gap_are_one_fire_at_the_first_instant_after_it():
    schedule = Schedule.parse("10,20,40 2,3 * * *", tz="Europe/Berlin")
    assert shown(schedule, "2026-03-29T00:00", 2) == ["29 03:00 +0200", "29 03:10 +0200"]


def test_a_fire_at_the_end_of_a_gap_and_one_within_it_are_one():
    schedule = Schedule.parse("0,30 2-3 * * *", tz="Europe/Berlin")
    assert shown(schedule, "2026-03-29T00:00", 2) == ["29 03:00 +0200", "29 03:30 +0200"]


@pytest.mark.parametrize("dst", ["debian", "skip", "both"])
def test_a_wildcard_follows_elapsed_time_whatever_dst_says(dst: Dst):
    schedule = Schedule.parse("*/30 * * * *", tz="Europe/Berlin", dst=dst)
    assert schedule.follows == "elapsed"
    autumn = shown(schedule, "2026-10-25T00:00", 4)
    assert autumn == ["25 02:30 +0200", "25 02:00 +0100", "25 02:30 +0100", "25 03:00 +0100"]
    assert shown(schedule, "2026-03-29T00:00", 3) == ["29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200"]


def test_an_expression_with_seconds_follows_elapsed_time():
    schedule = Schedule.parse("0 30 2 * * *", tz="Europe/Berlin", seconds="first")
    assert shown(schedule, "2026-10-24T12:00", 2) == ["25 02:30 +0200", "25 02:30 +0100"]
    assert shown(schedule, "2026-03-28T12:00", 1) == ["30 02:30 +0200"]


def test_in_the_second_pass_of_an_hour_what_has_fired_does_not_fire_again():
    schedule = Schedule.parse("0,20,40 2 * * *", tz="Europe/Berlin")
    assert shown(schedule, "2026-10-25T01:05", 1) == ["26 02:00 +0100"]


def test_a_day_that_a_zone_leaves_out_fires_once_after_it():
    schedule = Schedule.parse("30 2 * * *", tz="Pacific/Apia")
    assert shown(schedule, "2011-12-29T12:00", 3) == ["29 02:30 -1000", "31 00:00 +1400", "31 02:30 +1400"]


def test_a_gap_that_ends_within_a_minute_fires_at_its_very_end():
    schedule = Schedule.parse("10 0 * * *", tz="Africa/Monrovia")
    assert schedule.next_after(instant("1972-01-06T12:00")) == instant("1972-01-07T00:44:30")


def test_a_date_in_a_gap_is_the_end_of_the_gap():
    for text in ("2026-03-29T02:30", "at(2026-03-29T02:30:00)"):
        schedule = Schedule.parse(text, tz="Europe/Berlin")
        assert shown(schedule, "2026-03-01T00:00", 1) == ["29 03:00 +0200"]


def test_a_date_in_an_hour_that_repeats_is_the_first():
    for dst in ("debian", "skip", "both"):
        schedule = Schedule.parse("2026-10-25 02:30", tz="Europe/Berlin", dst=dst)
        assert fires(schedule, instant("2026-01-01T00:00"), instant("2027-01-01T00:00")) == [
            instant("2026-10-25T00:30")
        ]


def test_an_interval_takes_no_notice_of_the_clock():
    schedule = Schedule.parse("every 1d", tz="Europe/Berlin", anchor=instant("2026-03-28T01:30"))
    assert shown(schedule, "2026-03-28T00:00", 3) == ["28 02:30 +0100", "29 03:30 +0200", "30 03:30 +0200"]


@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from([zone for zone, _ in NIGHTS]),
    st.sampled_from(["debian", "skip", "both"]),
    st.datetimes(datetime(1970, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),
    st.timedeltas(timedelta(0), timedelta(days=3)),
)
def test_fires_rise_and_do_not_depend_on_where_one_starts(
    expression: str, zone: str, dst: Dst, start: datetime, later: timedelta
):
    schedule = Schedule.parse(expression, tz=zone, dst=dst)
    first = schedule.next_after(start)
    assert first is not None and first > start
    second = schedule.next_after(start + later)
    assert second is not None and second >= first
    if start + later < first:
        assert second == first
