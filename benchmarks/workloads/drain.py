"""Bulk enqueue N no-op jobs, then drain them with one worker process.

    t1  the first count that shows completions: c1 of them
    t2  the first look that finds nothing unfinished: c2 are completed then

The rate is (c2 - c1) / (t2 - t1), so starting the process does not count, and neither does how soon the
first completion was noticed. CPU of worker and database is what they used between t1 and t2. Commits, WAL and
dead tuples are of those on PostgreSQL, round trips of jobd and the bare statements: from before the enqueue
until the worker has stopped, its start and stop included. Round trips come from a run of their own, since
logging statements costs; a COPY counts as one, however long.

A rival drains what takes it about five seconds, by a pilot of two thousand jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf

from benchmarks.bench import Bench, Case, Pilot
from benchmarks.contestant import OWN, Contestant, Failed, Unsupported
from benchmarks.machine import cpu_seconds
from benchmarks.servers import OURS
from benchmarks.statementlog import StatementLog
from benchmarks.store import PostgresStore, RedisStore, until_completed, until_done

PILOT_JOBS = 2_000
LONGEST_SECONDS = 20
ROUND_JOBS = (*(digit * 10**power for power in (3, 4) for digit in (1, 2, 3, 5, 7)), 100_000)


@dataclass(frozen=True)
class Drained:
    """What was seen between the first completions and the end."""

    jobs: int
    seconds: float
    worker_cpu: float
    database_cpu: float
    # It took too long, and ended before the jobs did.
    cut: bool = False

    @property
    def per_second(self) -> float:
        return self.jobs / self.seconds

    def as_metrics(self) -> dict[str, float]:
        return {
            "drain_per_second": self.per_second,
            "worker_us": self.worker_cpu / self.jobs * 1e6,
            "database_us": self.database_cpu / self.jobs * 1e6,
        }


def run(bench: Bench) -> None:
    sizes: dict[str, int] = {}
    cases = []
    for contestant in bench.contestants:
        try:
            sizes[contestant.name] = size(bench, contestant)
        except (Failed, Unsupported) as error:
            bench.note(f"drain, {contestant.name}: failed: {error}", details=getattr(error, "details", ""))
            continue
        cases.append(Case(contestant))
    bench.rounds("drain", cases, lambda case: _measure(bench, case.contestant, sizes[case.contestant.name]))
    for case in cases:
        if case.contestant.name in OWN:
            bench.rounds("round trips", [case], lambda case: _round_trips(bench, case.contestant), rounds=1)


def size(bench: Bench, contestant: Contestant) -> int:
    """As many jobs as take about `drain_seconds`, in round numbers; of ours, all."""
    if contestant.name in OWN:
        return bench.sizes.drain_jobs
    rate = pilot(bench, contestant).drain_per_second
    return size_for(rate, seconds=bench.sizes.drain_seconds, most=bench.sizes.drain_jobs)


def pilot(bench: Bench, contestant: Contestant) -> Pilot:
    """How fast a rival is, by a small drain, made once in a run."""
    if contestant.name not in bench.pilots:
        with bench.store(contestant) as store:
            enqueued = contestant.run("enqueue", PILOT_JOBS, url=store.url)
            drained = drain(bench, contestant, store, PILOT_JOBS)
        bench.pilots[contestant.name] = Pilot(
            enqueue_per_second=PILOT_JOBS / enqueued["seconds"],
            # What is over before the first look is fast.
            drain_per_second=drained.per_second if drained else inf,
        )
    return bench.pilots[contestant.name]


def size_for(rate: float, *, seconds: float, most: int) -> int:
    """The largest round number of jobs that `rate` does in `seconds`, 1,000 at least and `most` at most."""
    return min(most, max([size for size in ROUND_JOBS if size <= rate * seconds], default=ROUND_JOBS[0]))


def _measure(bench: Bench, contestant: Contestant, jobs: int) -> dict[str, float]:
    with bench.store(contestant) as store:
        before = store.counters() if isinstance(store, PostgresStore) else None
        enqueued = contestant.run("enqueue", jobs, url=store.url)
        store.settle()
        drained = drain(bench, contestant, store, jobs)
        if drained is None:
            raise Failed(f"{jobs} jobs were done before the first look: give it more")
        metrics = {"jobs": jobs, "enqueue_per_second": jobs / enqueued["seconds"], **drained.as_metrics()}
        if before is not None and isinstance(store, PostgresStore):
            spent = store.counters() - before
            metrics |= {
                "commits": spent.commits / jobs,
                "wal_bytes": spent.wal_bytes / jobs,
                "dead_tuples": spent.dead_tuples / jobs,
            }
    return metrics


def drain(
    bench: Bench,
    contestant: Contestant,
    store: PostgresStore | RedisStore,
    jobs: int,
    *,
    workers: int = 1,
    arguments: str = "",
    work_us: int = 0,
    begin: Callable[[], None] = lambda: None,
) -> Drained | None:
    """Drain what was enqueued, or what `begin` enqueues once the workers were started; None where it was over
    before it was seen to begin.

    After LONGEST_SECONDS it is cut off: the rate is then of what was done until there. Raises Failed when
    jobs are lost, done twice or never begun.
    """
    baseline = store.completed()
    with ExitStack() as stack:
        running = [
            stack.enter_context(bench.working(contestant, store.url, arguments=arguments, work_us=work_us))
            for _ in range(workers)
        ]

        begin()

        def cpu() -> tuple[float, float]:
            return sum(cpu_seconds(worker.pid) for worker in running), store.cpu_seconds()

        # Counting fifty thousand rows costs as much as doing a hundred jobs: it ends with the first.
        first_at, first = until_completed(store, baseline, *running)
        worker_before, database_before = cpu()
        ended_at = until_done(store, *running, seconds=LONGEST_SECONDS)
        worker_after, database_after = cpu()
        cut_at = time.monotonic()
        last = store.completed()
        for worker in running:
            worker.stop()
    if ended_at is not None and last != baseline + jobs:
        told = f"{last - baseline:,} completions of {jobs:,} jobs in the store"
        # Rivals may promise less than once each; what they count twice is told.
        if contestant.name in OWN or last < baseline + jobs:
            raise Failed(told)
        bench.note(f"drain, {contestant.name}: {told}")
    if last == first or (ended_at is not None and ended_at <= first_at):
        return None
    return Drained(
        jobs=last - first,
        seconds=(ended_at or cut_at) - first_at,
        cut=ended_at is None,
        worker_cpu=worker_after - worker_before,
        database_cpu=database_after - database_before,
    )


def _round_trips(bench: Bench, contestant: Contestant) -> dict[str, float]:
    """Statements that reached the server, from before the enqueue until the worker has stopped."""
    jobs = bench.sizes.drain_jobs
    with bench.store(contestant) as store:
        assert isinstance(store, PostgresStore)
        bench.postgres.log_statements(store.database, on=True)
        log = StatementLog(bench.postgres.log, database=store.database, without=OURS)
        contestant.run("enqueue", jobs, url=store.url)
        store.settle()
        drain(bench, contestant, store, jobs)
        entries = log.read()
    return {"round_trips": sum(entry.is_round_trip for entry in entries) / jobs}
