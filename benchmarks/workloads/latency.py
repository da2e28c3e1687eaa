"""From the enqueue call to the handler's first line, by one clock: on an idle daemon, and at a rate.

    idle     single enqueues 30 to 50 ms apart
    offered  1,000 a second for ten seconds, ten at a time

The producer is a process of its own. The first stamps warm connections and plans and are left out.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Case
from benchmarks.bounds import percentile
from benchmarks.contestant import Contestant, Failed
from benchmarks.store import until_done

WARM_UP = 10
IDLE_RATE = 25
RIVAL = "saq"


def run(bench: Bench) -> None:
    cases = [Case(each) for each in bench.contestants if not each.name.startswith("bare")]
    bench.rounds("latency", cases, lambda case: _both(bench, case.contestant))
    ours, rival = bench.get("jobd"), bench.get(RIVAL)
    if ours and rival:
        median = partial(_idle_median, bench)
        bench.walk("latency p50", lambda: median(ours), lambda: median(rival))


def _idle_median(bench: Bench, contestant: Contestant) -> float:
    return percentile(_stamps(bench, contestant, _idle(bench)), 50)


def _idle(bench: Bench) -> list[str]:
    seconds = (bench.sizes.latency_jobs + WARM_UP) / IDLE_RATE
    return ["--seconds", f"{seconds:.1f}", "--tasks", "1", "--rate", str(IDLE_RATE)]


def _both(bench: Bench, contestant: Contestant) -> dict[str, float]:
    idle = _stamps(bench, contestant, _idle(bench))
    rate = bench.sizes.offered_rate
    flags = ["--seconds", str(bench.sizes.offered_seconds), "--tasks", "10", "--rate", str(rate)]
    offered = _stamps(bench, contestant, flags)
    return {
        "p50_ms": percentile(idle, 50),
        "p99_ms": percentile(idle, 99),
        "offered_p50_ms": percentile(offered, 50),
        "offered_p99_ms": percentile(offered, 99),
        "offered_per_second": len(offered) / bench.sizes.offered_seconds,
    }


def _stamps(bench: Bench, contestant: Contestant, load: list[str]) -> list[float]:
    """Milliseconds of each job, in no order, without the first ones."""
    with tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder, bench.store(contestant) as store:
        path = Path(folder) / "stamps"
        with bench.working(contestant, store.url, stamps=str(path)) as worker:
            # The worker is awake once it has done something.
            contestant.run("produce", "--seconds", 0.5, "--tasks", 1, "--rate", 10, url=store.url)
            if until_done(store, worker, seconds=60) is None:
                raise Failed("a job of the warm-up was not done within 60 s")
            contestant.run("produce", *load, "--kind", "stamp", url=store.url)
            # A queue that cannot keep up is measured by what it has done by then.
            until_done(store, worker, seconds=30)
            worker.stop()
        stamps = [nanoseconds for file in sorted(Path(folder).iterdir()) for nanoseconds in _read(file)]
    if len(stamps) <= WARM_UP:
        raise Failed(f"{len(stamps)} stamps are too few")
    return [nanoseconds / 1e6 for nanoseconds in stamps[WARM_UP:]]


def _read(file: Path) -> list[int]:
    return list(json.loads(file.read_text()))
