"""Rates: what is read, how it is written back, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.errors import ConfigError
from jobd.rate import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/s", Rate(10, timedelta(seconds=1))),
        ("100/m", Rate(100, timedelta(minutes=1))),
        ("5/2h", Rate(5, timedelta(hours=2))),
        (" 3 / 1 d ".replace("1 d", "1d"), Rate(3, timedelta(days=1))),
        ("1/w", Rate(1, timedelta(weeks=1))),
        ("7/250ms", Rate(7, timedelta(milliseconds=250))),
        ("1000000/366d", Rate(1_000_000, timedelta(days=366))),
    ],
)
def test_a_rate_is_so_many_within_that_time(text: str, rate: Rate):
    assert parse_rate(text) == rate
    assert parse_rate(rate) == rate


@pytest.mark.parametrize(
    ("text", "shortest"),
    [("60/60s", "60/m"), ("5/120m", "5/2h"), ("9/7d", "9/w"), ("1/1500ms", "1/1500ms"), ("2/24h", "2/d")],
)
def test_a_rate_is_written_in_its_shortest_spelling(text: str, shortest: str):
    assert str(parse_rate(text)) == shortest


@given(st.integers(1, 1_000_000), st.integers(1, 366), st.sampled_from(["d", "h", "m", "s", "ms"]))
def test_what_is_written_reads_back_the_same(count: int, number: int, unit: str):
    rate = parse_rate(f"{count}/{number}{unit}")
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "100/minute",
        "/m",
        "1.5/s",
        "-1/s",
        "\N{ARABIC-INDIC DIGIT ONE}/s",
        "10 per s",
        "1/1h30m",
        "9999999999/s",
        100,
        None,
        True,
        b"1/s",
    ],
)
def test_what_is_no_rate_is_refused_by_the_settings_name(text: object):
    with pytest.raises(ConfigError, match=r'^queues\.mail\.rate = .*is not a rate; write it like "10/s"'):
        parse_rate(text, setting="queues.mail.rate")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("0/s", "1 to 1,000,000; nothing at all is what a pause is for"),
        ("1000001/s", "1 to 1,000,000; no limit is None"),
        ("1/0s", "per 1ms to 366d"),
        ("1/367d", "per 1ms to 366d"),
        ("1/999999999w", "per 1ms to 366d"),
    ],
)
def test_a_rate_has_bounds(text: str, remedy: str):
    with pytest.raises(ConfigError, match=remedy):
        parse_rate(text)
