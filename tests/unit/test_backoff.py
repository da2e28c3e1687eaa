"""How long a failed job waits."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.backoff import Backoff
from jobd.errors import ConfigError

SECONDS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30))


@st.composite
def policies(draw: st.DrawFn) -> Backoff:
    shortest, longest = sorted((draw(SECONDS), draw(SECONDS)))
    return Backoff(
        kind=draw(st.sampled_from(["exponential", "linear", "constant"])),
        base=draw(SECONDS),
        factor=draw(st.one_of(st.integers(1, 1_000), st.floats(1, 1_000))),
        minimum=shortest,
        maximum=longest,
        jitter=draw(st.sampled_from(["full", "none"])),
    )


def delays(policy: Backoff, attempts: range = range(1, 6)) -> list[float]:
    return [policy.delay(attempt, rng=random.Random(1)).total_seconds() for attempt in attempts]


def test_exponential_backoff_doubles_up_to_its_maximum() -> None:
    assert delays(Backoff(jitter="none")) == [5, 10, 20, 40, 80]
    assert delays(Backoff(jitter="none", maximum=timedelta(seconds=30))) == [5, 10, 20, 30, 30]


def test_linear_backoff_grows_by_its_base() -> None:
    assert delays(Backoff("linear", jitter="none")) == [5, 10, 15, 20, 25]


def test_constant_backoff_stays() -> None:
    assert delays(Backoff("constant", jitter="none")) == [5, 5, 5, 5, 5]


def test_minimum_is_kept_even_by_a_short_base() -> None:
    assert delays(Backoff("linear", minimum=timedelta(seconds=12), jitter="none")) == [12, 12, 15, 20, 25]


def test_full_jitter_spreads_over_the_whole_range() -> None:
    rng = random.Random(7)
    policy = Backoff("constant", base=timedelta(seconds=100), minimum=timedelta(seconds=20))
    drawn = [policy.delay(1, rng=rng).total_seconds() for _ in range(2_000)]
    assert 20 <= min(drawn) < 25
    assert 95 < max(drawn) <= 100
    assert 57 < sum(drawn) / len(drawn) < 63


@given(policies(), st.integers(-3, 10**9), st.randoms(use_true_random=False))
def test_a_delay_is_always_within_minimum_and_maximum(
    policy: Backoff, attempt: int, rng: random.Random
) -> None:
    assert policy.minimum <= policy.delay(attempt, rng=rng) <= policy.maximum


@pytest.mark.parametrize("kind", ["exponential", "linear", "constant"])
@pytest.mark.parametrize("attempt", [10**6, 10**400])
def test_no_number_of_attempts_overflows(kind: Any, attempt: int) -> None:
    policy = Backoff(kind, jitter="none")
    expected = timedelta(seconds=5) if kind == "constant" else timedelta(hours=1)
    assert policy.delay(attempt, rng=random.Random(1)) == expected


def test_a_factor_of_one_never_grows_and_a_base_of_zero_never_waits() -> None:
    assert Backoff(factor=1, jitter="none").delay(10**400, rng=random.Random(1)) == timedelta(seconds=5)
    assert Backoff(base=timedelta(0)).delay(10**400, rng=random.Random(1)) == timedelta(0)


@given(policies())
def test_a_policy_is_read_back_from_json_as_it_was(policy: Backoff) -> None:
    assert Backoff.from_json(policy.to_json()) == policy


def test_a_function_decides_by_itself_and_is_not_jittered() -> None:
    policy = Backoff.of(lambda attempt: attempt * 7_200)
    assert delays(policy, range(1, 3)) == [7_200, 14_400]
    assert delays(Backoff.of(lambda attempt: timedelta(seconds=attempt)), range(1, 3)) == [1, 2]


@pytest.mark.parametrize("answer", [None, "soon", -5, float("nan"), float("inf"), ZeroDivisionError])
def test_a_function_that_fails_gets_the_default_delay_and_a_log_line(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(attempt: int) -> float:
        if answer is ZeroDivisionError:
            raise ZeroDivisionError
        return answer

    delay = Backoff.of(broken).delay(10**6, rng=random.Random(1))
    assert delay == Backoff().delay(10**6, rng=random.Random(1))
    assert "broken failed after attempt 1000000" in caplog.text


def test_a_function_cannot_be_stored_with_a_job() -> None:
    with pytest.raises(ConfigError, match="give it to the handler"):
        Backoff.of(lambda attempt: 5).to_json()


def test_of_takes_what_a_decorator_may_be_given() -> None:
    policy = Backoff("linear")
    assert Backoff.of(policy) is policy
    assert Backoff.of(None) == Backoff()
    assert Backoff.of("constant") == Backoff("constant")
    assert Backoff.of({"kind": "linear", "base": "10s"}) == Backoff("linear", base=timedelta(seconds=10))


def test_durations_may_be_written_as_text() -> None:
    assert Backoff(base="90s", maximum="2h") == Backoff(  # type: ignore[arg-type]
        base=timedelta(seconds=90), maximum=timedelta(hours=2)
    )


def test_names_of_async_jobs_are_read_too() -> None:
    stored = {"type": "exponential", "base_delay_seconds": 2, "max_delay_seconds": 60.5}
    assert Backoff.from_json(stored) == Backoff(base=timedelta(seconds=2), maximum=timedelta(seconds=60.5))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"kind": "quadratic"}, "backoff.kind = 'quadratic': must be one of \"exponential\""),
        ({"jitter": "some"}, "backoff.jitter = 'some'"),
        ({"base": "soon"}, "backoff.base = 'soon': is not a duration"),
        ({"factor": 0.5}, "backoff.factor = 0.5: must be a number from 1"),
        ({"factor": True}, "backoff.factor = True"),
        ({"factor": "2"}, "backoff.factor = '2'"),
        ({"bass": "5s"}, "backoff.bass = '5s': is not a part of a backoff; did you mean base"),
        ({"base": 1, "base_delay_seconds": 1}, "second time"),
        ({"minimum": "2h"}, r"backoff.minimum = '2h': must not be longer than backoff.maximum \(1h\)"),
        ("cubic", "must be one of"),
        (5, "must be a Backoff, a function or one of"),
    ],
)
def test_nonsense_is_refused_with_the_part_that_is_wrong(given_: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Backoff.of(given_)


def test_a_stored_policy_that_is_no_object_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be an object"):
        Backoff.from_json(["linear"])  # type: ignore[arg-type]
