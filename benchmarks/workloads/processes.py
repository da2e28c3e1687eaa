"""More than one process: `jobd run --processes 2` on handlers of 10 ms CPU, and four daemons on one database.

Each job has to be completed once: a drain that ends with another count fails. The daemons are drained as in
`drain`; the processes' rate is by the store's times, from the first claim to the last end.
"""

from __future__ import annotations

import time

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed
from benchmarks.store import PostgresStore
from benchmarks.workloads.drain import drain

WORK_US = 10_000
DAEMONS = 4
START_SECONDS = 60
SPAN = "select extract(epoch from max(finished_at) - min(claimed_at)) from jobd.job_history"


def run(bench: Bench) -> None:
    if (jobd := bench.get("jobd")) is None:
        return
    settings = {"1 process": "", "2 processes": "--processes 2"}
    bench.rounds(
        "processes",
        [Case(jobd, variant) for variant in settings],
        lambda case: _measure(bench, jobd, arguments=settings[case.variant], work_us=WORK_US),
    )
    fleet = {f"{DAEMONS} daemons": DAEMONS, "1 daemon": 1}
    many, one = (Case(jobd, variant) for variant in fleet)
    bench.pairs(
        "fleet",
        "fleet",
        (many, one),
        lambda case: _measure(bench, jobd, workers=fleet[case.variant]),
        "drain_per_second",
    )


def _measure(
    bench: Bench, jobd: Contestant, *, workers: int = 1, arguments: str = "", work_us: int = 0
) -> dict[str, float]:
    jobs = bench.sizes.processes_jobs if work_us else bench.sizes.fleet_jobs
    present = workers * (2 if "--processes" in arguments else 1)
    with bench.store(jobd) as store:
        assert isinstance(store, PostgresStore)

        def begin() -> None:
            # All of them are up before there is anything to do, so that no start counts.
            deadline = time.monotonic() + START_SECONDS
            while store.value("select count(*) from jobd.workers") < present:
                if time.monotonic() > deadline:
                    raise Failed(f"{present} workers were not there within {START_SECONDS} s")
                time.sleep(0.05)
            jobd.run("enqueue", jobs, url=store.url)

        drained = drain(
            bench, jobd, store, jobs, workers=workers, arguments=arguments, work_us=work_us, begin=begin
        )
        again = store.value("select count(*) from jobd.job_history where attempt <> 1 or crashes <> 0")
        # Handlers that keep the loop busy end in lumps, which say little of when they ended.
        seconds = float(store.value(SPAN)) if work_us else 0.0
    if drained is not None and drained.cut:
        raise Failed(f"{jobs} jobs took too long: the drain was cut")
    if work_us and not again:
        return {"drain_per_second": jobs / seconds}
    if drained is None and not again:
        raise Failed(f"{jobs} jobs were done before the first look: give it more")
    if drained is None or again:
        raise Failed(f"{again} jobs ran more than once")
    return drained.as_metrics()
