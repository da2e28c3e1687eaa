"""More than one process: `jobd run --processes 2` on handlers of 10 ms CPU, and four daemons on one database.

Each job has to be completed once: a drain that ends with another count fails.
"""

from __future__ import annotations

import subprocess
import time

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed
from benchmarks.store import PostgresStore
from benchmarks.venvs import ROOT
from benchmarks.workloads.drain import drain

WORK_US = 10_000
DAEMONS = 4
START_SECONDS = 60


def run(bench: Bench) -> None:
    if (jobd := bench.get("jobd")) is None:
        return
    if _has_processes(jobd):
        settings = {"1 process": "", "2 processes": "--processes 2"}
        cases = [Case(jobd, variant) for variant in settings]
        bench.rounds(
            "processes",
            cases,
            lambda case: _measure(bench, jobd, arguments=settings[case.variant], work_us=WORK_US),
        )
    else:
        bench.note("processes: left out, `jobd run` has no --processes")
    fleet = {f"{count} daemon{'s' * (count > 1)}": count for count in (1, DAEMONS)}
    bench.rounds(
        "fleet",
        [Case(jobd, variant) for variant in fleet],
        lambda case: _measure(bench, jobd, workers=fleet[case.variant]),
    )
    bench.walk(
        "fleet",
        lambda: _measure(bench, jobd, workers=DAEMONS)["drain_per_second"],
        lambda: _measure(bench, jobd, workers=1)["drain_per_second"],
    )


def _has_processes(jobd: Contestant) -> bool:
    done = subprocess.run(
        [str(jobd.interpreter), "-m", "jobd", "run", "--help"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return "--processes" in done.stdout


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
    if drained is None:
        raise Failed(f"{jobs} jobs were done before the first look: give it more")
    if again:
        raise Failed(f"{again} jobs ran more than once")
    return drained.as_metrics()
