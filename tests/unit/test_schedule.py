"""Schedules: what texts say, and when they fire; nights that change the clock are in test_schedule_dst.py."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import jobd
from jobd import ConfigError, Schedule

# A Thursday.
START = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)


def fires(text: str, count: int = 3, after: datetime = START, **options: object) -> list[str]:
    schedule = Schedule.parse(text, **options)  # type: ignore[arg-type]
    found = []
    fire: datetime | None = after
    for _ in range(count):
        assert fire is not None
        fire = schedule.next_after(fire)
        if fire is None:
            break
        found.append(f"{fire:%m-%d %H:%M}" + (f":{fire:%S}" if fire.second else ""))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 2 * * *", ["01-01 02:30", "01-02 02:30", "01-03 02:30"]),
        ("  30  2 * * *  ", ["01-01 02:30", "01-02 02:30", "01-03 02:30"]),
        ("*/20 * * * *", ["01-01 00:20", "01-01 00:40", "01-01 01:00"]),
        ("10-30/10 9 * * *", ["01-01 09:10", "01-01 09:20", "01-01 09:30"]),
        ("5/20 0 * * *", ["01-01 00:25", "01-01 00:45", "01-02 00:05"]),
        ("0 22-2/2 * * *", ["01-01 02:00", "01-01 22:00", "01-02 00:00"]),
        ("0 0 1 jan,Mar-APR *", ["03-01 00:00", "04-01 00:00", "01-01 00:00"]),
        ("0 0 * * mon-wed", ["01-05 00:00", "01-06 00:00", "01-07 00:00"]),
        ("0 0 * * 7", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * 5-7", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("0 0 * * 0-7", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 1,L * *", ["01-31 00:00", "02-01 00:00", "02-28 00:00"]),
        ("0 0 30-L 4,5 *", ["04-30 00:00", "05-30 00:00", "05-31 00:00"]),
        ("0 0 15W 1,8 *", ["01-15 00:00", "08-14 00:00", "01-15 00:00"]),
        ("0 0 * * FRI#2", ["01-09 00:00", "02-13 00:00", "03-13 00:00"]),
        ("0 0 * * 5#1,5#3", ["01-02 00:00", "01-16 00:00", "02-06 00:00"]),
        ("0 0 * * MON-TUE#2", ["01-12 00:00", "01-13 00:00", "02-09 00:00"]),
        ("0 0 * * L5", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * * 5L", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * * FRIL", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 ? * MON", ["01-05 00:00", "01-12 00:00", "01-19 00:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        ("@hourly", ["01-01 01:00", "01-01 02:00", "01-01 03:00"]),
        ("@Daily", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("@midnight", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("@weekly", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("@monthly", ["02-01 00:00", "03-01 00:00", "04-01 00:00"]),
        ("@yearly", ["01-01 00:00", "01-01 00:00", "01-01 00:00"]),
        ("@annually", ["01-01 00:00", "01-01 00:00", "01-01 00:00"]),
        ("cron(0 0 * * ? *)", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("cron(0 0 ? * 1 *)", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("cron(0 0 ? * SUN *)", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("cron(0 0 ? * 6L *)", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("cron(0 0 ? * 6#2 *)", ["01-09 00:00", "02-13 00:00", "03-13 00:00"]),
        ("cron(0 0 ? * L *)", ["01-03 00:00", "01-10 00:00", "01-17 00:00"]),
        ("CRON( 5 8 1 JUL ? 2027 )", ["07-01 08:05"]),
        ("rate(5 minutes)", ["01-01 00:15", "01-01 00:20", "01-01 00:25"]),
        ("rate(1 hour)", ["01-01 01:00", "01-01 02:00", "01-01 03:00"]),
        ("rate(2 days)", ["01-03 00:00", "01-05 00:00", "01-07 00:00"]),
        ("every 15m", ["01-01 00:15", "01-01 00:30", "01-01 00:45"]),
        ("Every 1h30m", ["01-01 01:30", "01-01 03:00", "01-01 04:30"]),
        ("every 90", ["01-01 00:10:30", "01-01 00:12", "01-01 00:13:30"]),
        ("at(2026-07-01T08:00:00)", ["07-01 08:00"]),
        ("2026-07-01T08:00", ["07-01 08:00"]),
        ("2026-07-01 08:00:30", ["07-01 08:00:30"]),
        ("2026-07-01T08:00+02:00", ["07-01 06:00"]),
        ("2026-07-01t08:00z", ["07-01 08:00"]),
        ("2026-07-01", ["07-01 00:00"]),
        ("2025-12-31T08:00", []),
    ],
)
def test_a_text_fires_when_it_says(text: str, expected: list[str]):
    assert fires(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # One of the two begins with a star: both have to match.
        ("0 0 1-7 * */7", ["01-04 00:00", "02-01 00:00", "03-01 00:00"]),
        ("0 0 */2 * MON", ["01-05 00:00", "01-19 00:00", "02-09 00:00"]),
        ("0 0 *,13 * FRI", ["01-02 00:00", "01-09 00:00", "01-16 00:00"]),
        ("0 0 ? * FRI", ["01-02 00:00", "01-09 00:00", "01-16 00:00"]),
        # None does: either is enough.
        ("0 0 13 * FRI", ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),
        ("0 0 1-31 * FRI", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("0 0 13 * 0-6", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("0 0 31 2 MON", ["02-02 00:00", "02-09 00:00", "02-16 00:00"]),
        # Also beside what croniter keeps apart from the two fields.
        ("0 0 13 * FRI#2", ["01-09 00:00", "01-13 00:00", "02-13 00:00"]),
        ("0 0 15W * MON", ["01-05 00:00", "01-12 00:00", "01-15 00:00"]),
        ("0 0 L * L5", ["01-30 00:00", "01-31 00:00", "02-27 00:00"]),
        ("0 0 */1 * FRI#2", ["01-09 00:00", "02-13 00:00", "03-13 00:00"]),
    ],
)
def test_the_two_kinds_of_days_combine_as_in_debians_cron(text: str, expected: list[str]):
    assert fires(text) == expected


def test_a_range_from_a_value_to_itself_is_that_value():
    assert fires("5-5 1-1 * * *") == ["01-01 01:05", "01-02 01:05", "01-03 01:05"]


def test_seconds_stand_where_the_schedule_says():
    assert fires("*/30 5 0 * * *", seconds="first") == ["01-02 00:05", "01-02 00:05:30", "01-03 00:05"]
    assert fires("5 0 * * * */30", seconds="last") == ["01-02 00:05", "01-02 00:05:30", "01-03 00:05"]


def test_an_interval_counts_from_its_anchor_which_is_its_first_fire():
    anchor = datetime(2026, 1, 1, 0, 17, tzinfo=UTC)
    assert fires("every 15m", anchor=anchor) == ["01-01 00:17", "01-01 00:32", "01-01 00:47"]
    assert fires("rate(7 days)", 1, anchor, anchor=anchor) == ["01-08 00:17"]
    late = anchor + timedelta(days=3650, seconds=1)
    assert Schedule.parse("every 7m", anchor=anchor).next_after(late) == anchor + 750_858 * timedelta(
        minutes=7
    )


def test_clock_faces_are_those_of_the_zone_and_fires_are_in_utc():
    fire = Schedule.parse("30 2 * * *", tz="Asia/Kathmandu").next_after(START)
    assert fire == datetime(2026, 1, 1, 20, 45, tzinfo=UTC)
    assert fire.tzinfo is UTC


def test_where_one_starts_may_be_in_any_zone_and_have_fractions():
    schedule = Schedule.parse("* * * * *")
    at = datetime(2026, 1, 1, 12, 0, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert schedule.next_after(at) == datetime(2026, 1, 1, 6, 31, tzinfo=UTC)
    assert schedule.next_after(datetime(2026, 1, 1, 12, tzinfo=UTC)) == datetime(
        2026, 1, 1, 12, 1, tzinfo=UTC
    )
    every_second = Schedule.parse("* * * * * *", seconds="first")
    assert every_second.next_after(at) == datetime(2026, 1, 1, 6, 31, tzinfo=UTC)


def test_h_takes_its_place_from_the_id_and_stays_there():
    assert fires("H H * * *", id="backup") == fires("h h * * *", id="backup")
    minutes = {fires("H 0 * * *", 1, id=f"job-{number}")[0][-2:] for number in range(200)}
    assert len(minutes) > 45
    days = {fires("0 12 H * *", 1, id=f"job-{number}")[0] for number in range(200)}
    assert (min(days), max(days)) == ("01-01 12:00", "01-28 12:00")


def test_the_same_wrong_field_is_told_of_each_expression():
    for text in ("61 0 * * *", "61 1 * * *"):
        with pytest.raises(ConfigError, match=f"minute of schedule '{re.escape(text)}'"):
            Schedule.parse(text)


def test_schedules_that_share_their_days_keep_their_times():
    after = datetime(2026, 1, 1, 12, tzinfo=UTC)
    hours = [Schedule.parse(f"0 {hour} 13 * FRI").next_after(after) for hour in range(24)]
    assert hours == [datetime(2026, 1, 2, hour, tzinfo=UTC) for hour in range(24)]


def test_h_keeps_to_its_range_and_its_step():
    for number in range(50):
        fire = fires("H(10-19) H(0-3)/2 * * *", 4, id=f"job-{number}")
        assert all("10" <= text[-2:] <= "19" and text[6:8] in {"00", "01", "02", "03"} for text in fire)
        minutes = [int(text[-2:]) for text in fires("H/15 * * * *", 5, id=f"job-{number}")]
        assert {(later - sooner) % 60 for sooner, later in pairwise(minutes)} == {15}


def test_places_that_h_chose_never_move():
    assert fires("H H * * *", 1, id="nightly-backup") == ["01-01 20:35"]
    assert fires("H(0-29)/10 H H * H", 1, id="reminder_exchange_42_1") == ["01-01 00:11"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30 2 * * *", "At 02:30 (UTC)"),
        ("0 9 * * MON-FRI", "At 09:00, Monday through Friday (UTC)"),
        ("*/15 * * * *", "Every 15 minutes (UTC)"),
        ("0 0 1,L * *", "At 00:00, on day 1 and the last of the month (UTC)"),
        ("0 0 13 * 5", "At 00:00, on day 13 of the month, or on Friday (UTC)"),
        ("0 0 1-7 * */7", "At 00:00, between day 1 and 7 of the month, but only on Sunday (UTC)"),
        (
            "0 0 1 6 FRI#2",
            "At 00:00, on day 1 of the month, or on the second Friday of the month, only in June (UTC)",
        ),
        ("0 0 1-31 * 5", "At 00:00 (UTC)"),
        ("0,30 */7 * * *", "At 0 and 30 minutes past the hour, at 00:00, 07:00, 14:00, and 21:00 (UTC)"),
        ("cron(0 8 ? * MON 2027)", "At 08:00, only on Monday, only in 2027 (UTC)"),
        ("every 90m", "Every 1h30m, counted from 1970-01-01 00:00:00 UTC"),
        ("2026-07-01T08:00", "Once, at 2026-07-01 08:00:00 (UTC)"),
        (
            "0 0 * * MON-WED#1",
            "At 00:00, on the first Monday, the first Tuesday, and the first Wednesday of the month (UTC)",
        ),
        ("0 0 * * FRI#1,FRI#3", "At 00:00, on the first Friday and the third Friday of the month (UTC)"),
        ("0 0 * * L5,FRI#1", "At 00:00, on the last Friday and the first Friday of the month (UTC)"),
        ("0 0 * * 0#1,7#1", "At 00:00, on the first Sunday of the month (UTC)"),
        (
            "0 0 1 * 5#1,1#1",
            "At 00:00, on day 1 of the month, or on the first Friday and the first Monday of the month (UTC)",
        ),
        ("*,5 * * * *", "Every minute (UTC)"),
        ("0 *,3 * * *", "Every hour (UTC)"),
        ("0 0 1-31 1-12,*/2 *", "At 00:00 (UTC)"),
        ("*/20,5 * * * *", "At 0, 5, 20, and 40 minutes past the hour (UTC)"),
    ],
)
def test_a_schedule_says_in_words_what_it_means(text: str, words: str):
    assert Schedule.parse(text).describe() == words


def test_words_are_english_whatever_the_locale(monkeypatch: pytest.MonkeyPatch):
    for variable in ("LANG", "LC_ALL", "LANGUAGE"):
        monkeypatch.setenv(variable, "de_DE.UTF-8")
    assert (
        Schedule.parse("0 9 * * 1", tz="Europe/Berlin").describe()
        == "At 09:00, only on Monday (Europe/Berlin)"
    )


def test_a_schedule_says_what_it_is_bound_to():
    for text, follows in (("30 2 * * *", "clock"), ("*/5 2 * * *", "elapsed"), ("every 5m", "elapsed")):
        assert Schedule.parse(text).follows == follows
    assert Schedule.parse("2026-07-01").follows == "once"


def test_schedules_that_were_written_equally_are_equal():
    assert Schedule.parse(" 30 2 * * *") == Schedule.parse("30 2 * * * ")
    assert Schedule.parse("30 2 * * *") != Schedule.parse("30 2 * * *", tz="Europe/Berlin")
    assert len({Schedule.parse("@daily"), Schedule.parse("@daily"), Schedule.parse("@hourly")}) == 2
    assert jobd.Schedule is Schedule


def test_with_now_a_schedule_has_to_fire_within_eight_years():
    now = datetime(2026, 11, 22, tzinfo=UTC)
    for text in ("0 0 29 2 *", "2034-11-01", "every 2900d"):
        assert Schedule.parse(text, now=now)
    # February 29th is a Friday in 2036 next.
    for text, problem in (
        ("0 0 29 2 */5", None),
        ("cron(0 0 29 2 ? 2096)", "fires next on 2096-02-29, and a schedule has to fire within 8 years"),
        ("cron(0 0 1 1 ? 2026)", "never fires again"),
        ("2026-11-21T23:59", "is over; write a date to come"),
        ("2035-01-01", "is more than 8 years away"),
    ):
        assert Schedule.parse(text)
        if problem:
            with pytest.raises(ConfigError, match=problem):
                Schedule.parse(text, now=now)


def test_a_leap_day_that_falls_out_is_waited_for():
    schedule = Schedule.parse("0 0 29 2 *", tz="Europe/Berlin")
    at = datetime(2096, 3, 1, tzinfo=UTC)
    assert schedule.next_after(at) == datetime(2104, 2, 28, 23, tzinfo=UTC)
    assert Schedule.parse("0 0 29 2 *", now=at)


def test_there_is_an_end_of_time():
    for text in ("* * * * *", "every 1h", "cron(0 0 1 1 ? 2099)"):
        assert Schedule.parse(text).next_after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) is None
    ancient = datetime(1, 1, 1, tzinfo=UTC)
    assert Schedule.parse("0 0 * * *").next_after(ancient) == datetime(1900, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("after", [datetime(2026, 1, 1), "2026-01-01", None])
def test_where_one_starts_has_a_time_zone(after: object):
    with pytest.raises(ConfigError, match=r"after = .*must be a datetime with a time zone"):
        Schedule.parse("@daily").next_after(after)  # type: ignore[arg-type]


def test_the_error_names_the_setting_that_it_was_given():
    with pytest.raises(ConfigError) as caught:
        Schedule.parse("0 25 * * *", setting="schedules.nightly.cron")
    assert str(caught.value).startswith(
        "hour of schedules.nightly.cron '0 25 * * *' = '25': is no value from 0 to 23"
    )


@given(st.text(alphabet="0123456789*,/-#?LWHRMONFEB @():+.TZevryatc", max_size=40))
@example("@")
@example("every ")
@example("rate()")
@example("at()")
@example("cron()")
@example("0 0 0W * *")
@example("0 0 * * 9#1")
@example("0 0 * * 8L")
@example("0 0 L/2 * *")
@example("H/0 * * * *")
@example("2026-02-29")
@example("9999-12-31T23:59-12:00")
@example("every 100000d")
@example("rate(999999999 days)")
def test_no_text_raises_anything_but_a_config_error(text: str):
    with contextlib.suppress(ConfigError):
        schedule = Schedule.parse(text, tz="Europe/Berlin", id="x")
        assert schedule.describe()
        fire = schedule.next_after(START)
        assert fire is None or fire > START
