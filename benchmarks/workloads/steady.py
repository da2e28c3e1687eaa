"""One producer with single enqueues, ten at a time and as fast as they go, while a worker runs.

What counts are completions a second, and what stays behind: the part of the jobs that is not done when the
producer ends. The bare statements have no worker here: their single inserts alone are the limit.
"""

from __future__ import annotations

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed
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
        produced = contestant.run("produce", *_load(bench), url=store.url)
    return {"produced_per_second": produced["jobs"] / produced["seconds"]}


def _with_worker(bench: Bench, contestant: Contestant) -> dict[str, float]:
    with bench.store(contestant) as store, bench.working(contestant, store.url) as worker:
        contestant.run("produce", "--seconds", 1, "--tasks", 1, "--rate", 10, url=store.url)
        if until_done(store, worker, seconds=60) is None:
            raise Failed("a job of the warm-up was not done within 60 s")
        before = store.completed()
        produced = contestant.run("produce", *_load(bench), url=store.url)
        completed = store.completed() - before
        metrics = {
            "completed_per_second": completed / produced["seconds"],
            "produced_per_second": produced["jobs"] / produced["seconds"],
            "backlog_slope": max(0.0, 1 - completed / produced["jobs"]),
        }
        until_done(store, worker, seconds=60)
        worker.stop()
        # Where the store says when each job ended, the producer's own end does not blur the rate.
        if isinstance(store, PostgresStore) and (times := store.finish_times()):
            times = times[before:]
            metrics["completed_per_second"] = (len(times) - 1) / (times[-1] - times[0])
    return metrics


def _load(bench: Bench) -> list[str]:
    return ["--seconds", str(bench.sizes.steady_seconds), "--tasks", str(TASKS)]
