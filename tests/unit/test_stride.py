"""How many jobs one statement moves, by how long the ones before it took."""

from __future__ import annotations

import pytest

from jobd.stride import FIRST, QUICK_SECONDS, SLOW_SECONDS, Stride


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stride(clock: Clock) -> Stride:
    return Stride(1000, clock=clock)


def take(stride: Stride, clock: Clock, seconds: float, count: int | None = None) -> int:
    with stride.step(stride.size if count is None else count):
        clock.now += seconds
    return stride.size


def test_quick_statements_double_it_up_to_the_most(stride: Stride, clock: Clock):
    assert stride.size == FIRST
    assert [take(stride, clock, 0.01) for _ in range(5)] == [200, 400, 800, 1000, 1000]


def test_a_quick_statement_of_few_says_nothing_of_many(stride: Stride, clock: Clock):
    assert take(stride, clock, 0.01, count=FIRST - 1) == FIRST


def test_what_is_neither_quick_nor_slow_stays(stride: Stride, clock: Clock):
    assert take(stride, clock, (QUICK_SECONDS + SLOW_SECONDS) / 2) == FIRST


def test_slow_ones_halve_it_down_to_one(stride: Stride, clock: Clock):
    sizes = [take(stride, clock, 2 * SLOW_SECONDS) for _ in range(9)]
    assert sizes == [50, 25, 12, 6, 3, 1, 1, 1, 1]


def test_one_that_fails_halves_what_was_tried_and_is_told(stride: Stride, clock: Clock):
    with pytest.raises(ZeroDivisionError), stride.step(60):
        raise ZeroDivisionError
    assert stride.size == 30


def test_it_never_begins_above_the_most():
    assert Stride(7).size == 7
