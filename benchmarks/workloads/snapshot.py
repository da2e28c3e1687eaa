"""A drain while another session holds a REPEATABLE READ transaction open, so that nothing can be vacuumed.

The rate of the last quarter of the jobs against that of the first, by the times the store keeps, or by a
count twice a second for those that keep none.
"""

from __future__ import annotations

import itertools
import time

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed
from benchmarks.results import Walk
from benchmarks.store import PostgresStore, until_done
from benchmarks.workloads.drain import LONGEST_SECONDS, size

COUNT_SECONDS = 0.5


def run(bench: Bench) -> None:
    cases = [Case(each) for each in bench.contenders if each.durable and each.name != "bare_fused"]
    jobs = {
        case.contestant.name: bench.sizes.snapshot_jobs
        if case.contestant.name in ("jobd", "bare")
        else min(bench.sizes.snapshot_jobs, 2 * size(bench, case.contestant))
        for case in cases
    }
    bench.rounds("snapshot", cases, lambda case: _held(bench, case.contestant, jobs[case.contestant.name]))
    if jobd := bench.get("jobd"):
        order: list[tuple[str, float]] = []
        for number in range(bench.sizes.pairs):
            metrics = _held(bench, jobd, jobs["jobd"])
            pair = [("A", metrics["last_quarter"]), ("B", metrics["first_quarter"])]
            order += pair if number % 2 == 0 else reversed(pair)
            bench.say(f"snapshot pair {number + 1}: last to first {metrics['ratio']:.3f}")
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
