"""A drain while another session holds a REPEATABLE READ transaction open, so that nothing can be vacuumed.

The rate of the last quarter of the jobs against that of the first, by the times the store keeps, or by a
count four times a second for those that keep none. A rival gets a tenth of jobd's jobs and one round.
"""

from __future__ import annotations

import itertools
import time
from functools import partial

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed, Unsupported
from benchmarks.results import Walk
from benchmarks.store import PostgresStore, until_done
from benchmarks.workloads.drain import LONGEST_SECONDS, size

COUNT_SECONDS = 0.25


def run(bench: Bench) -> None:
    jobs = bench.sizes.snapshot_jobs
    own = [each for name in ("jobd", "bare") if (each := bench.get(name))]
    # The pairs are samples of jobd as well.
    rounds = [Case(each) for each in own if each.name != "jobd" or not bench.sizes.pairs]
    bench.rounds("snapshot", rounds, lambda case: _held(bench, case.contestant, jobs))
    if (jobd := bench.get("jobd")) and bench.sizes.pairs:
        _pairs(bench, jobd, jobs)
    for rival in bench.rivals:
        if not rival.durable:
            continue
        try:
            few = min(jobs // bench.sizes.rival_share, size(bench, rival))
        except (Failed, Unsupported) as error:
            bench.note(f"snapshot, {rival.name}: failed: {error}", details=getattr(error, "details", ""))
            continue
        bench.rounds("snapshot", [Case(rival)], partial(_rival, bench, few), rounds=1)


def _rival(bench: Bench, jobs: int, case: Case) -> dict[str, float]:
    return _held(bench, case.contestant, jobs)


def _pairs(bench: Bench, jobd: Contestant, jobs: int) -> None:
    """Each drain is a pair by itself: its last quarter and its first."""
    order: list[tuple[str, float]] = []
    try:
        for number in range(bench.sizes.pairs):
            metrics = _held(bench, jobd, jobs)
            bench.keep("snapshot", Case(jobd), number + 1, metrics)
            pair = [("A", metrics["last_quarter"]), ("B", metrics["first_quarter"])]
            order += pair if number % 2 == 0 else reversed(pair)
    except Failed as error:
        bench.note(f"snapshot: failed: {error}", details=error.details)
    if order:
        bench.results.walks.append(Walk("snapshot", tuple(order)))


def _held(bench: Bench, contestant: Contestant, jobs: int) -> dict[str, float]:
    with bench.store(contestant) as store:
        assert isinstance(store, PostgresStore)
        contestant.run("enqueue", jobs, url=store.url)
        store.settle()
        with bench.postgres.connect(store.database) as holder:
            holder.execute("begin isolation level repeatable read")
            holder.execute("select count(*) from pg_class")
            with bench.working(contestant, store.url) as worker:
                curve = _curve(store, jobs, worker) if "times" not in store.described else []
                if not curve and until_done(store, worker, seconds=2 * LONGEST_SECONDS) is None:
                    raise Failed(f"{jobs} jobs were not done within {2 * LONGEST_SECONDS} s")
                worker.stop()
            holder.execute("rollback")
        times = store.finish_times()
    quarters = quarter_rates(times) if times else quarter_rates_of_curve(curve)
    return {
        "jobs": jobs,
        "drain_per_second": quarters[4],
        "first_quarter": quarters[0],
        "last_quarter": quarters[3],
        "ratio": quarters[3] / quarters[0],
    }


def _curve(store: PostgresStore, jobs: int, worker: object) -> list[tuple[float, int]]:
    """(seconds, completed) until all are, or the time is over."""
    points: list[tuple[float, int]] = []
    deadline = time.monotonic() + LONGEST_SECONDS
    while (asked := time.monotonic()) < deadline:
        completed = store.completed()
        if completed or not points:
            points.append((asked, completed))
        if completed >= jobs:
            break
        time.sleep(COUNT_SECONDS)
    return points


def quarter_rates(times: list[float]) -> list[float]:
    """Jobs a second in each quarter of the jobs, and over all of them, from the ordered times they ended."""
    count = len(times) - 1
    marks = [times[count * quarter // 4] for quarter in range(5)]
    rates = [count / 4 / (later - earlier) for earlier, later in itertools.pairwise(marks)]
    return [*rates, count / (times[-1] - times[0])]


def quarter_rates_of_curve(points: list[tuple[float, int]]) -> list[float]:
    """The same from counts, straight lines between them. Raises Failed where there are too few."""
    points = [point for number, point in enumerate(points) if not number or point[1] > points[number - 1][1]]
    if len(points) < 3:
        raise Failed(f"{len(points)} counts are too few for quarters")
    (start, first), (end, last) = points[0], points[-1]

    def when(completed: float) -> float:
        for (t0, c0), (t1, c1) in itertools.pairwise(points):
            if c0 <= completed <= c1:
                return t0 + (t1 - t0) * (completed - c0) / (c1 - c0)
        return end

    step = (last - first) / 4
    marks = [when(first + step * quarter) for quarter in range(5)]
    rates = [step / (later - earlier) for earlier, later in itertools.pairwise(marks)]
    return [*rates, (last - first) / (end - start)]
