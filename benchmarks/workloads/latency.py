"""From the enqueue call to the handler's first line, by one clock: on an idle daemon, and at a rate.

    idle     single enqueues 20 to 60 ms apart
    offered  then, to the same worker, 1,000 a second, ten at a time

The producer is a process of its own. The first stamps of either warm connections and plans and are left out.
The rate that was offered is that of the enqueue calls in the stamps, from the first to the last.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Case
from benchmarks.bounds import percentile
from benchmarks.contestant import OWN, Contestant, Failed
from benchmarks.store import until_done

WARM_UP = 10
IDLE_RATE = 25
# What a queue that cannot keep up has not begun by then is not measured.
LATE_SECONDS = 10
RIVAL = "saq"


@dataclass(frozen=True)
class Stamp:
    """One job: when the producer made the call, and how long until the handler began. Nanoseconds."""

    sent: int
    waited: int


def run(bench: Bench) -> None:
    cases = [Case(each) for each in bench.contestants if not each.name.startswith("bare")]
    bench.rounds("latency", cases, lambda case: _measure(bench, case.contestant))
    ours = bench.get("jobd")
    for bar, rival, percent in (("p50", RIVAL, 50), ("p99", nearest(bench), 99)):
        if ours and rival and (theirs := bench.get(rival)):
            idle = partial(_idle, bench, percent=percent)
            bench.walk(f"latency {bar}", partial(idle, ours), partial(idle, theirs))


def nearest(bench: Bench) -> str | None:
    """The PostgreSQL rival whose 99th percentile is the least by the rounds: the one whose bar is close."""
    medians = {
        each.name: value
        for each in bench.contestants
        if each.durable and each.name not in OWN
        if (value := bench.results.median("latency", each.name, "p99_ms")) is not None
    }
    return min(medians, key=lambda name: medians[name], default=None)


def _idle(bench: Bench, contestant: Contestant, *, percent: float) -> float:
    return percentile(_waits(_phases(bench, contestant, offered=False)[0]), percent)


def _measure(bench: Bench, contestant: Contestant) -> dict[str, float]:
    idle, offered = _phases(bench, contestant, offered=True)
    return {
        "p50_ms": percentile(_waits(idle), 50),
        "p99_ms": percentile(_waits(idle), 99),
        "offered_p50_ms": percentile(_waits(offered), 50),
        "offered_p99_ms": percentile(_waits(offered), 99),
        "offered_per_second": rate(offered),
    }


def _phases(bench: Bench, contestant: Contestant, *, offered: bool) -> list[list[Stamp]]:
    """The stamps of the idle phase, and of the other; in the order of the calls, without the first ones."""
    seconds = (bench.sizes.latency_jobs + WARM_UP) / IDLE_RATE
    loads: list[list[object]] = [["--seconds", seconds, "--tasks", 1, "--rate", IDLE_RATE]]
    if offered:
        load = ["--seconds", bench.sizes.offered_seconds, "--tasks", 10, "--rate", bench.sizes.offered_rate]
        loads.append(load)
    begins: list[int] = []
    sent = 0
    with tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder, bench.store(contestant) as store:
        with bench.working(contestant, store.url, stamps=str(Path(folder) / "stamps")) as worker:
            # The worker is awake once it has done something.
            contestant.run("produce", "--seconds", 0.5, "--tasks", 1, "--rate", 10, url=store.url)
            if until_done(store, worker, seconds=60) is None:
                raise Failed("a job of the warm-up was not done within 60 s")
            for load in loads:
                begins.append(time.monotonic_ns())
                sent += contestant.run("produce", *load, "--kind", "stamp", url=store.url)["jobs"]
                until_done(store, worker, seconds=LATE_SECONDS)
            worker.stop()
        stamps = [stamp for file in Path(folder).iterdir() for stamp in read(file)]
    if sent > len(stamps):
        bench.note(
            f"latency, {contestant.name}: what had not begun {LATE_SECONDS} s after the last call is not in"
            " its figures"
        )
    return [between(stamps, begin, end) for begin, end in zip(begins, [*begins[1:], None], strict=True)]


def between(stamps: list[Stamp], begin: int, end: int | None) -> list[Stamp]:
    """Those sent from `begin` until `end`, in that order, without the first. Failed where none are left."""
    found = sorted(
        (stamp for stamp in stamps if begin <= stamp.sent and (end is None or stamp.sent < end)),
        key=lambda stamp: stamp.sent,
    )
    if len(found) <= WARM_UP + 1:
        raise Failed(f"{len(found)} stamps are too few")
    return found[WARM_UP:]


def rate(stamps: list[Stamp]) -> float:
    """Enqueue calls a second, from the first to the last of these."""
    return (len(stamps) - 1) * 1e9 / (stamps[-1].sent - stamps[0].sent)


def _waits(stamps: list[Stamp]) -> list[float]:
    return [stamp.waited / 1e6 for stamp in stamps]


def read(file: Path) -> list[Stamp]:
    """The stamps of one process."""
    return [Stamp(sent, waited) for sent, waited in json.loads(file.read_text())]
