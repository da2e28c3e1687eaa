"""How fast jobd is to be, bar by bar, and whether a run's results reach that.

Two ways to judge. A bar further than 1.5x from one is held against the ratio of medians of the interleaved
rounds. A nearer one is held against ABBA pairs, by the one-sided 90 % bound of the pairs' median ratio
(bounds.lower_bound): it holds when even the bound reaches it, it does not when even the opposite bound misses
it, and there is no verdict between. The same bound over A/A pairs is the machine's own spread: where that
alone misses the bar, no verdict is given either, and the line says so.

A bar over a group of rivals has no verdict unless each of them has a figure. Those that --contestants left
out do not count; the line names them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.bounds import lower_bound, upper_bound
from benchmarks.contestant import OWN
from benchmarks.results import Results, Walk

HOLDS, FAILS, NONE = "holds", "does not hold", "no verdict"
PAIRS = 10
# Medians of fewer rounds judge nothing.
ROUNDS = 3
# Finished jobs of a growth with --full.
FULL = 50_000_000


@dataclass(frozen=True)
class Verdict:
    """One bar, what was measured, and the judgement."""

    bar: str
    measured: str
    judgement: str


def at_least(bar: float, walk: Walk | None) -> tuple[str, str]:
    """Judge by pairs whether A is at least `bar` of B."""
    if walk is None:
        return "-", NONE
    found = Interval.of(walk.ratios)
    if found is None or len(walk.ratios) < PAIRS:
        return f"{len(walk.ratios)} pairs, {PAIRS} are needed", NONE
    alone = Interval.of(_both_ways(walk.same_ratios))
    if bar < 1 and (alone is None or alone.low < bar):
        return f"{found}; A/A {alone}: wider than the bar", NONE
    judgement = HOLDS if found.low >= bar else FAILS if found.high < bar else NONE
    return f"{found}; A/A {alone}", judgement


def at_most(bar: float, walk: Walk | None) -> tuple[str, str]:
    """Judge by pairs whether A is at most `bar` of B."""
    if walk is None:
        return "-", NONE
    found = Interval.of(walk.ratios)
    if found is None or len(walk.ratios) < PAIRS:
        return f"{len(walk.ratios)} pairs, {PAIRS} are needed", NONE
    alone = Interval.of(_both_ways(walk.same_ratios))
    if bar > 1 and (alone is None or alone.high > bar):
        return f"{found}; A/A {alone}: wider than the bar", NONE
    judgement = HOLDS if found.high <= bar else FAILS if found.low > bar else NONE
    return f"{found}; A/A {alone}", judgement


@dataclass(frozen=True)
class Interval:
    """A median of ratios, and the one-sided 90 % bound on either side of it."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @classmethod
    def of(cls, ratios: Sequence[float] | tuple[Sequence[float], Sequence[float]]) -> Interval | None:
        """None for too few; of two orders, the outer bounds."""
        orders = ratios if isinstance(ratios, tuple) else (ratios,)
        lows = [bound for each in orders if (bound := lower_bound(each)) is not None]
        highs = [bound for each in orders if (bound := upper_bound(each)) is not None]
        if not lows or not highs:
            return None
        return cls(min(lows), statistics.median(orders[0]), max(highs))


def _both_ways(ratios: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Which of two equal runs came first is chance: the machine's spread counts in both directions."""
    return ratios, [1 / ratio for ratio in ratios]


def ratio_at_least(bar: float, ours: float | None, theirs: float | None) -> tuple[str, str]:
    """Judge a ratio of medians; there is no verdict where either is missing, and it says which."""
    if ours is None or not theirs:
        return f"no figure of {'jobd' if ours is None else 'the other'}", NONE
    return f"{ours / theirs:.2f}", HOLDS if ours / theirs >= bar else FAILS


def value_at_most(bar: float, value: float | None, unit: str = "") -> tuple[str, str]:
    """Judge a median by itself."""
    if value is None:
        return "-", NONE
    return f"{value:,.4g}{unit}", HOLDS if value <= bar else FAILS


def value_at_least(bar: float, value: float | None, unit: str = "") -> tuple[str, str]:
    """Judge a median by itself."""
    if value is None:
        return "-", NONE
    return f"{value:,.4g}{unit}", HOLDS if value >= bar else FAILS


@dataclass(frozen=True)
class Best:
    """The best median of a group. `value` is None, and `told` why, unless each of the group has a figure."""

    name: str | None
    value: float | None
    told: str

    def judged(self, judgement: tuple[str, str]) -> tuple[str, str]:
        """A judgement against this one, or none where the group is not whole."""
        if self.value is None:
            return self.told, NONE
        return f"{judgement[0]}{self.told}", judgement[1]


def best(results: Results, workload: str, names: Sequence[str], metric: str, *, least: bool = False) -> Best:
    """The best of several; those that this run was told to leave out do not count, but are named."""
    every = {name: results.median(workload, name, metric) for name in names}
    # Who has a figure counts, also where it is of an earlier part of the run.
    unasked = {name for name in results.environment.get("left out", []) if every.get(name) is None}
    medians = {name: value for name, value in every.items() if name not in unasked}
    known = {name: value for name, value in medians.items() if value is not None}
    if missing := sorted(medians.keys() - known.keys()):
        return Best(None, None, f"no figure of {', '.join(missing)}")
    if not known:
        return Best(None, None, "none of them was asked for")
    name = (min if least else max)(known, key=lambda each: known[each])
    without = sorted(unasked & set(names))
    told = f"; {name}" + (f", without {', '.join(without)} (--contestants)" if without else "")
    return Best(name, known[name], told if len(names) > 1 else "")


def verdicts(results: Results) -> list[Verdict]:
    """Every bar, in the issue's order."""
    stores = results.environment.get("stores", {})
    rivals = {
        store: [name for name, of in stores.items() if of == store and name not in OWN]
        for store in ("postgresql", "redis")
    }

    def median(workload: str, metric: str, variant: str = "") -> float | None:
        return results.median(workload, "jobd", metric, variant)

    def by_medians(judged: tuple[str, str]) -> tuple[str, str]:
        rounds = results.environment.get("rounds", ROUNDS)
        if rounds >= ROUNDS or judged[1] == NONE:
            return judged
        return f"{judged[0]}; {ROUNDS} rounds are needed", NONE

    limit = best(results, "drain", ("bare", "bare_fused"), "drain_per_second")
    pgqueuer = best(results, "drain", ("pgqueuer",), "drain_per_second")
    redis = best(results, "drain", rivals["redis"], "drain_per_second")
    nearest = best(results, "latency", rivals["postgresql"], "p99_ms", least=True)
    copy = best(results, "bulk", ("bare",), "enqueue_per_second")
    rate = median("drain", "drain_per_second")
    judged: list[tuple[str, tuple[str, str]]] = [
        (
            "drain: at least 2.2x PgQueuer",
            by_medians(pgqueuer.judged(ratio_at_least(2.2, rate, pgqueuer.value))),
        ),
        (
            "drain: at least 10x any Redis rival",
            by_medians(redis.judged(ratio_at_least(10, rate, redis.value))),
        ),
        (
            "drain: at least 0.65 of the bare statements",
            by_medians(limit.judged(ratio_at_least(0.65, rate, limit.value))),
        ),
        ("latency: p50 within 10 % of SAQ on Redis", at_most(1.10, results.walk("latency p50"))),
        (
            "latency: p99 below every PostgreSQL rival",
            nearest.judged(at_most(1.0, results.walk("latency p99"))),
        ),
        (
            "latency: p99 under 15 ms at 1,000 jobs/s offered",
            by_medians(_offered(results, 15)),
        ),
        ("steady: at least 75 % of the bare inserts", at_least(0.75, results.walk("steady"))),
        (
            "steady: backlog flat, at most what came in the last 50 ms",
            by_medians(value_at_most(50, median("steady", "left_ms"), " ms")),
        ),
        (
            "producers: at most 10 % lost to notification, under load",
            at_least(0.90, results.walk("producers load")),
        ),
        (
            "producers: at most 10 % lost to notification, idle",
            at_least(0.90, results.walk("producers idle")),
        ),
        (
            "enqueue_many of a million: at least 60 % of bare COPY",
            by_medians(copy.judged(ratio_at_least(0.60, median("bulk", "enqueue_per_second"), copy.value))),
        ),
        (
            "enqueue_many of a million: at most 16 bytes a job + 32 MB",
            by_medians(value_at_most(1.0, median("bulk", "memory_of_allowed"), " of that")),
        ),
        ("backlog: drain at least 90 % of without", at_least(0.90, results.walk("backlog"))),
        ("held snapshot: last quarter at least 85 % of the first", at_least(0.85, results.walk("snapshot"))),
        (
            "cost: at most 0.02 round trips a job",
            by_medians(value_at_most(0.02, median("round trips", "round_trips"))),
        ),
        ("cost: at most 0.01 commits a job", by_medians(value_at_most(0.01, median("drain", "commits")))),
        (
            "cost: at most 1,500 bytes of WAL a job",
            by_medians(value_at_most(1500, median("drain", "wal_bytes"))),
        ),
        (
            "cost: worker CPU at most 30 us a job",
            by_medians(value_at_most(30, median("drain", "worker_us"), " us")),
        ),
        (
            "cost: database CPU at most 20 us a job",
            by_medians(value_at_most(20, median("drain", "database_us"), " us")),
        ),
        (
            "processes: two on 10 ms of CPU at least 1.8x one",
            by_medians(
                ratio_at_least(
                    1.8,
                    median("processes", "drain_per_second", "2 processes"),
                    median("processes", "drain_per_second", "1 process"),
                )
            ),
        ),
        ("four daemons at least 0.9 of one", at_least(0.90, results.walk("fleet"))),
        *(
            (f"growth: {name} within 1.3x{_grown(results)}", at_most(1.3, results.walk(f"growth {name}")))
            for name in ("claim", "stage", "finish", "rescue", "prune")
        ),
        (
            "schedules: 1,000 of 10,000 in one minute are jobs within 2 s",
            by_medians(value_at_most(2, median("schedules", "minute_seconds"), " s")),
        ),
        (
            "schedules: p99 of the lateness of 1,000 over a minute at most 50 ms",
            by_medians(value_at_most(50, median("schedules", "late_p99_ms"), " ms")),
        ),
        (
            "schedules: at most 1 % of a core while none of 10,000 occurs",
            by_medians(value_at_most(1, median("schedules", "idle_percent"), " %")),
        ),
        (
            "limits: unused, at most 5 % more CPU a job than before (--before)",
            at_most(1.05, results.walk("limits unused")),
        ),
        (
            "limits: ten of each of 1,000 keys, at least 60 % of plain",
            at_least(0.60, results.walk("limits keyed")),
        ),
        (
            "limits: fair over 100 tenants, at least 70 % of plain",
            at_least(0.70, results.walk("limits fair")),
        ),
        (
            "fairness: beside a flood p99 under 100 ms",
            value_at_most(100, median("fairness", "p99_ms", "flood"), " ms"),
        ),
        (
            "fairness: Jain's index of 100 tenants at least 0.95",
            by_medians(value_at_least(0.95, median("fairness", "jain", "zipf"))),
        ),
        (
            "fairness: a claim beside 9,900 idle tenants within 1.5x",
            at_most(1.5, results.walk("fairness idle")),
        ),
        *(
            (
                f"deadlines: ended in time at load {load}, at least 0.9 of what could begin in time",
                by_medians(value_at_least(0.9, median("deadlines", "of_best", f"load {load}"))),
            )
            for load in ("1.2", "2")
        ),
    ]
    return [Verdict(bar, measured, judgement) for bar, (measured, judgement) in judged]


def _offered(results: Results, most_ms: float) -> tuple[str, str]:
    """Latency at a rate means nothing where the producer did not reach the rate, by its own stamps."""
    rate = results.median("latency", "jobd", "offered_per_second")
    measured, judgement = value_at_most(most_ms, results.median("latency", "jobd", "offered_p99_ms"), " ms")
    if rate is not None and rate < 950:
        return f"{measured}, but at {rate:,.0f} jobs/s: the producer or the machine is too slow", NONE
    return measured, judgement


def _grown(results: Results) -> str:
    """How many finished jobs the growth was measured with, since the goal is stated for fifty million."""
    finished = results.environment.get("growth finished")
    if finished is None:
        return ""
    return f", {finished:,} finished" + ("" if finished >= FULL else f" ({FULL:,} with --full)")
