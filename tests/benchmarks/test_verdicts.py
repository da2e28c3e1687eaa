"""Which results reach a bar, and when there is nothing to say."""

from __future__ import annotations

from itertools import chain

import pytest

from benchmarks.results import Results, Sample, Walk
from benchmarks.verdicts import (
    FAILS,
    HOLDS,
    NONE,
    at_least,
    at_most,
    ratio_at_least,
    value_at_most,
    verdicts,
)


def walk(a: list[float], b: list[float]) -> Walk:
    """Pairs of these values, in ABBA order."""
    pairs = [(("A", x), ("B", y)) for x, y in zip(a, b, strict=True)]
    turned = [pair if number % 2 == 0 else pair[::-1] for number, pair in enumerate(pairs)]
    return Walk("bar", tuple(chain.from_iterable(turned)))


def test_a_walk_knows_its_pairs_and_its_equal_neighbours():
    steps = walk([10, 20, 30], [5, 5, 10])
    assert [letter for letter, _ in steps.order] == ["A", "B", "B", "A", "A", "B"]
    assert steps.ratios == [2, 4, 3]
    assert steps.same_ratios == [1, 1.5]


def test_pairs_that_all_reach_the_bar_hold():
    assert at_least(0.9, walk([95] * 10, [100] * 10))[1] == HOLDS
    assert at_most(1.1, walk([105] * 10, [100] * 10))[1] == HOLDS


def test_pairs_that_all_miss_the_bar_do_not_hold():
    assert at_least(0.9, walk([80] * 10, [100] * 10))[1] == FAILS
    assert at_most(1.1, walk([120] * 10, [100] * 10))[1] == FAILS


def test_there_is_no_verdict_where_the_bar_lies_between_the_bounds():
    a = [85, 86, 87, 88, 89, 91, 92, 93, 94, 95]
    assert at_least(0.9, walk([float(value) for value in a], [100.0] * 10))[1] == NONE


def test_a_machine_that_spreads_wider_than_the_bar_gives_no_verdict():
    b = [100.0, 70.0] * 5
    measured, judgement = at_least(0.9, walk([value * 0.97 for value in b], b))
    assert judgement == NONE
    assert "wider than the bar" in measured


def test_nine_pairs_are_too_few():
    measured, judgement = at_least(0.9, walk([99] * 9, [100] * 9))
    assert judgement == NONE
    assert "9 pairs" in measured


def test_what_was_not_measured_gets_no_verdict():
    assert at_least(0.9, None)[1] == NONE
    assert ratio_at_least(2, None, 1)[1] == NONE
    assert value_at_most(2, None)[1] == NONE


def test_a_ratio_of_medians_is_held_against_its_bar():
    assert ratio_at_least(2.2, 30_000, 13_000) == ("2.31", HOLDS)
    assert ratio_at_least(2.2, 26_000, 13_000) == ("2.00", FAILS)


def drained(contestant: str, rate: float, number: int = 1) -> Sample:
    return Sample("drain", contestant, "", number, {"drain_per_second": rate})


def test_the_limit_is_the_faster_of_the_bare_forms():
    results = Results(
        samples=[drained("jobd", 30_000), drained("bare", 40_000), drained("bare_fused", 50_000)]
    )
    judged = {verdict.bar: verdict for verdict in verdicts(results)}
    assert judged["drain: at least 0.65 of the bare statements"].measured == "0.60; bare_fused"


@pytest.mark.parametrize(("rival", "judgement"), [(2_000, HOLDS), (4_000, FAILS)])
def test_the_fastest_redis_rival_counts(rival: float, judgement: str):
    stores = {"jobd": "postgresql", "saq": "redis", "taskiq": "redis"}
    samples = [drained("jobd", 30_000), drained("saq", 1_000), drained("taskiq", rival)]
    results = Results(environment={"stores": stores}, samples=samples)
    judged = {verdict.bar: verdict.judgement for verdict in verdicts(results)}
    assert judged["drain: at least 10x any Redis rival"] == judgement


def test_rounds_count_by_their_median():
    rounds = [drained("jobd", rate, number) for number, rate in enumerate([10, 500, 20], 1)]
    assert Results(samples=rounds).median("drain", "jobd", "drain_per_second") == 20


def on_time(contestant: str, p99_ms: float) -> Sample:
    return Sample("latency", contestant, "", 1, {"p99_ms": p99_ms})


def test_a_bar_over_a_group_needs_a_figure_of_each():
    stores = {"jobd": "postgresql", "saq": "redis", "taskiq": "redis", "arq": "redis"}
    samples = [drained("jobd", 30_000), drained("saq", 1_000)]
    results = Results(environment={"stores": stores}, samples=samples)
    judged = {verdict.bar: verdict for verdict in verdicts(results)}
    bar = judged["drain: at least 10x any Redis rival"]
    assert (bar.measured, bar.judgement) == ("no figure of arq, taskiq", NONE)


def test_a_rival_left_out_on_purpose_is_named():
    stores = {"jobd": "postgresql", "saq": "redis", "taskiq": "redis"}
    environment = {"stores": stores, "left out": ["taskiq"]}
    samples = [drained("jobd", 30_000), drained("saq", 1_000)]
    results = Results(environment=environment, samples=samples)
    judged = {verdict.bar: verdict for verdict in verdicts(results)}
    bar = judged["drain: at least 10x any Redis rival"]
    assert bar.measured == "30.00; saq, without taskiq (--contestants)"
    assert bar.judgement == HOLDS


def test_a_limit_with_one_form_missing_gives_no_verdict():
    results = Results(samples=[drained("jobd", 30_000), drained("bare", 40_000)])
    judged = {verdict.bar: verdict for verdict in verdicts(results)}
    bar = judged["drain: at least 0.65 of the bare statements"]
    assert (bar.measured, bar.judgement) == ("no figure of bare_fused", NONE)


@pytest.mark.parametrize(("ours", "judgement"), [(8.0, HOLDS), (10.0, NONE), (12.0, FAILS)])
def test_the_99th_percentile_is_judged_by_pairs_with_the_nearest_rival(ours: float, judgement: str):
    stores = {"jobd": "postgresql", "oban": "postgresql", "chancy": "postgresql"}
    samples = [on_time("jobd", 1), on_time("oban", 10), on_time("chancy", 14)]
    spread = [ours * factor for factor in (0.95, 0.96, 0.97, 0.98, 0.99, 1.01, 1.02, 1.03, 1.04, 1.05)]
    pairs = Walk("latency p99", walk(spread, [10.0] * 10).order)
    results = Results(environment={"stores": stores}, samples=samples, walks=[pairs])
    judged = {verdict.bar: verdict for verdict in verdicts(results)}
    bar = judged["latency: p99 below every PostgreSQL rival"]
    assert bar.judgement == judgement
    assert bar.measured.endswith("; oban")


@pytest.mark.parametrize(
    ("finished", "told"),
    [
        (5_000_000, "growth: claim within 1.3x, 5,000,000 finished (50,000,000 with --full)"),
        (50_000_000, "growth: claim within 1.3x, 50,000,000 finished"),
    ],
)
def test_growth_says_how_much_was_finished(finished: int, told: str):
    bars = [verdict.bar for verdict in verdicts(Results(environment={"growth finished": finished}))]
    assert told in bars
