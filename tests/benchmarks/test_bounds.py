"""Percentiles, and the bound of a median that a verdict rests on."""

from __future__ import annotations

import random
import statistics

import pytest

from benchmarks.bounds import lower_bound, percentile, upper_bound


def test_the_bound_of_ten_values_is_the_third_smallest():
    assert lower_bound([10, 9, 8, 7, 6, 5, 4, 3, 2, 1]) == 3


def test_the_bound_of_four_values_is_the_smallest():
    assert lower_bound([4, 2, 3, 1]) == 1


def test_three_values_have_no_bound():
    assert lower_bound([1, 2, 3]) is None
    assert upper_bound([]) is None


def test_the_upper_bound_mirrors_the_lower_one():
    values = [float(value) for value in range(1, 11)]
    assert upper_bound(values) == 8


@pytest.mark.parametrize("count", [4, 7, 10, 15])
def test_the_bound_lies_below_the_median_at_least_nine_times_in_ten(count: int):
    chance = random.Random(count)
    trials = 4_000
    below = 0
    for _ in range(trials):
        bound = lower_bound([chance.lognormvariate(0, 1) for _ in range(count)])
        assert bound is not None
        below += bound <= 1  # the median of that distribution
    assert below / trials > 0.885


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5], 50, 5),
        ([1, 2], 50, 1),
        (range(1, 101), 50, 50),
        (range(1, 101), 99, 99),
        (range(1, 201), 99, 198),
    ],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float, expected: float):
    assert percentile(list(values), percent) == expected


def test_the_middle_percentile_is_the_median_of_an_odd_number():
    values = [0.3, 0.1, 0.7, 0.2, 0.5]
    assert percentile(values, 50) == statistics.median(values)
