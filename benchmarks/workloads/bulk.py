"""`enqueue_many` of a million jobs against a bare COPY of them: time, and the memory it takes.

Memory is what the enqueuing process grew by: its largest resident size at the end less its size before
the call, so that neither Python nor imports count.
"""

from __future__ import annotations

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant

BYTES_A_JOB = 16
BYTES_FIXED = 32 * 2**20


def run(bench: Bench) -> None:
    cases = [Case(each) for name in ("jobd", "bare") if (each := bench.get(name))]
    bench.rounds("bulk", cases, lambda case: _measure(bench, case.contestant))


def _measure(bench: Bench, contestant: Contestant) -> dict[str, float]:
    jobs = bench.sizes.bulk_jobs
    with bench.store(contestant) as store:
        answer = contestant.run("enqueue", jobs, url=store.url)
    metrics = {"enqueue_per_second": jobs / answer["seconds"]}
    if (memory := answer.get("memory_bytes")) is not None:
        metrics["memory_mb"] = memory / 1e6
        metrics["memory_of_allowed"] = memory / (BYTES_A_JOB * jobs + BYTES_FIXED)
    return metrics
