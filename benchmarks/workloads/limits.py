"""What limits over all daemons cost: drains of the same jobs, plain, with keys, and of a fair queue.

    plain   no limit anywhere: claimed by the plain statement
    keyed   1,000 concurrency keys, of each at most 10 at a time
    fair    100 tenants in a fair queue, weights equal

With --before COMMIT also jobd as of that commit, drained beside this one, without any limit: what those
cost who do not use them, by the CPU of worker and database a job.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed
from benchmarks.store import PostgresStore
from benchmarks.venvs import ROOT
from benchmarks.workloads.drain import drain
from benchmarks.workloads.growth import copies

# By variant: what is said before the jobs come, and what their columns hold.
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("select", {}),
    "keyed": (
        "insert into jobd.kinds (name, key_limit) values ('noop', 10)",
        {"concurrency_key": "'user:' || (n % 1000)"},
    ),
    "fair": (
        "insert into jobd.queues (name, fair) values ('default', true)"
        " on conflict (name) do update set fair = true",
        {"tenant_id": "'tenant' || (n % 100)"},
    ),
}


def run(bench: Bench) -> None:
    if (jobd := bench.get("jobd")) is None:
        return
    plain = Case(jobd, "plain")
    for variant in ("keyed", "fair"):
        bench.pairs(
            f"limits {variant}",
            "limits",
            (Case(jobd, variant), plain),
            lambda case: _measure(bench, case.contestant, case.variant),
            "drain_per_second",
        )
    if bench.options.before is not None:
        before = at(jobd, bench.options.before, bench.options.cache)
        bench.walk("limits unused", partial(_cpu, bench, jobd), partial(_cpu, bench, before))


def at(jobd: Contestant, commit: str, cache: Path) -> Contestant:
    """jobd as it was at a commit, run by the same interpreter."""
    folder = cache / f"tree-{commit}"
    if not folder.exists():
        folder.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=False, capture_output=True)
        if archive.returncode:
            folder.rmdir()
            raise Failed(f"--before {commit}: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "x"], cwd=folder, input=archive.stdout, check=True)
    return replace(jobd, root=folder, edition="_before")


def _cpu(bench: Bench, contestant: Contestant) -> float:
    """Microseconds of CPU a job, in worker and database."""
    metrics = _measure(bench, contestant, "plain")
    variant = "plain, before" if contestant.edition else "plain"
    number = 1 + len(bench.results.values("limits", "jobd", "worker_us", variant))
    bench.keep("limits", Case(contestant, variant), number, metrics)
    return metrics["worker_us"] + metrics["database_us"]


def _measure(bench: Bench, contestant: Contestant, variant: str) -> dict[str, float]:
    jobs = bench.sizes.limits_jobs
    said, columns = VARIANTS[variant]
    with bench.store(contestant) as store:
        assert isinstance(store, PostgresStore)
        contestant.run("enqueue", 1, url=store.url)
        copies(store, jobs - 1, columns)
        store.connection.execute(said.encode())
        store.connection.execute("vacuum analyze jobd.jobs")
        drained = drain(bench, contestant, store, jobs)
    if drained is None or drained.cut:
        raise Failed(f"{jobs} jobs {variant}: " + ("took too long" if drained else "were over at once"))
    return {"jobs": jobs, **drained.as_metrics()}
