"""One producer with single enqueues, ten at a time and as fast as they go, while a worker runs.

What counts are completions a second, and what stays behind: the jobs that are not done when the producer's
time is over, told as the time in which that many came. The bare statements have no worker here: their
single inserts alone are the limit.
"""

from __future__ import annotations

import json
import tempfile
import time
from bisect import bisect
from pathlib import Path

from benchmarks.bench import Bench, Case
from benchmarks.contestant import OWN, VERB_SECONDS, Contestant, Failed, Running
from benchmarks.store import PostgresStore, until_done

TASKS = 10


def run(bench: Bench) -> None:
    cases = [Case(each) for each in bench.contenders if each.name != "bare_fused"]
    bench.rounds("steady", cases, lambda case: _measure(bench, case.contestant))
    ours, bare = bench.get("jobd"), bench.get("bare")
    if ours and bare:
        bench.walk(
            "steady",
            lambda: _with_worker(bench, ours)["completed_per_second"],
            lambda: _inserts(bench, bare)["produced_per_second"],
        )


def _measure(bench: Bench, contestant: Contestant) -> dict[str, float]:
    return _inserts(bench, contestant) if contestant.name == "bare" else _with_worker(bench, contestant)


def _inserts(bench: Bench, contestant: Contestant) -> dict[str, float]:
    with bench.store(contestant) as store:
        produced = contestant.run("produce", *_load(bench, contestant), url=store.url)
    return {"produced_per_second": produced["jobs"] / produced["seconds"]}


def _with_worker(bench: Bench, contestant: Contestant) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder,
        bench.store(contestant) as store,
        bench.working(contestant, store.url) as worker,
    ):
        contestant.run("produce", "--seconds", 1, "--tasks", 1, "--rate", 10, url=store.url)
        if until_done(store, worker, seconds=60) is None:
            raise Failed("a job of the warm-up was not done within 60 s")
        before = store.completed()
        ended = Path(folder) / "ended"
        producer = contestant.start(
            "produce", *_load(bench, contestant), url=store.url, BENCH_ENDED=str(ended)
        )
        try:
            produced = _load_ended(ended, producer, worker)
            # Now, while the producer still closes its connections.
            completed = store.completed() - before
            producer.wait(seconds=60)
        finally:
            producer.kill()
        if isinstance(store, PostgresStore) and (times := store.finish_times()):
            # Where the store says when each job ended, counting takes no time.
            completed = bisect(times, produced["at"]) - before
        worker.stop()
    return {
        "completed_per_second": completed / produced["seconds"],
        "produced_per_second": produced["jobs"] / produced["seconds"],
        # As the time in which that many came.
        "left_ms": max(0.0, 1 - completed / produced["jobs"]) * produced["seconds"] * 1000,
    }


def _load_ended(path: Path, producer: Running, worker: Running) -> dict[str, float]:
    """What the producer says of its load, at the moment that the load is over."""
    deadline = time.monotonic() + VERB_SECONDS
    while not path.exists():
        worker.check()
        if producer.process.poll() is not None and not path.exists():
            raise Failed(f"{producer.contestant.name} produce ended without a word")
        if time.monotonic() > deadline:
            raise Failed(f"{producer.contestant.name} produce: no end after {VERB_SECONDS} s")
        time.sleep(0.002)
    return dict(json.loads(path.read_text()))


def _load(bench: Bench, contestant: Contestant) -> list[str]:
    sizes = bench.sizes
    seconds = sizes.steady_seconds if contestant.name in OWN else sizes.rival_steady_seconds
    return ["--seconds", str(seconds), "--tasks", str(TASKS)]
