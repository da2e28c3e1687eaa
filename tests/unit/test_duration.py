"""Durations as people write them."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.duration import format_duration, parse_duration
from jobd.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("5s", 5),
        ("15m", 900),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1.5h", 5_400),
        ("250ms", 0.25),
        ("1h30m", 5_400),
        ("1h 30m 5s", 5_405),
        ("1m250ms", 60.25),
        (" 30s ", 30),
        ("0", 0),
        ("0s", 0),
        ("90", 90),
        ("2.5", 2.5),
        (90, 90),
        (0.25, 0.25),
        (timedelta(minutes=2), 120),
    ],
)
def test_a_duration_is_read_in_every_spelling(written: str | float | timedelta, seconds: float) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "written",
    ["", " ", "s", "5x", "5 apples", "30m1h", "1h1h", "1e3", "1,5h", "5S", "\u0665s", "nan", "1" * 200 + "s"],
)
def test_what_is_no_duration_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(ConfigError, match=r"write it like \"30s\""):
        parse_duration(written)


@pytest.mark.parametrize("written", [True, None, float("nan"), b"5s", [5]])
def test_what_is_not_even_text_or_a_number_is_refused(written: object) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        parse_duration(written)  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["-5s", "-1", -1, -0.001, timedelta(seconds=-1)])
def test_a_negative_duration_is_refused(written: str | float | timedelta) -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        parse_duration(written)


@pytest.mark.parametrize("written", ["36526d", 10**400, float("inf"), "9" * 90, timedelta.max])
def test_a_duration_beyond_a_century_is_refused(written: str | float | timedelta) -> None:
    with pytest.raises(ConfigError, match="at most 100 years"):
        parse_duration(written)


def test_the_error_names_the_setting_the_value_and_the_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_duration("soon", setting="JOBD_LEASE")
    assert str(caught.value).startswith("JOBD_LEASE = 'soon': is not a duration; write it like")
    assert (caught.value.setting, caught.value.value) == ("JOBD_LEASE", "soon")


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (5_400, "1h30m"), (0.25, "250ms"), (604_800, "7d"), (61.5, "1m1.5s"), (0.000_001, "0.001ms")],
)
def test_a_duration_is_written_as_a_person_would(seconds: float, written: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == written


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_525)))
def test_what_is_written_is_read_back_exactly(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(max_size=20))
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_duration(text) >= timedelta(0)
