"""A fair queue: what a flood of one tenant does to another, and how even the shares of many are.

flood   tenant A has 100,000 jobs of 5 ms, B sends one every second: from B's enqueue to the
        handler's first line
zipf    100 tenants with backlogs of 1, 1/2, 1/3 ...: Jain's index of what each got while all had some
idle    a claim of 100 jobs of 100 tenants, and beside 9,900 tenants that have no job ready
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

from benchmarks.bench import Bench, Case
from benchmarks.bounds import percentile
from benchmarks.contestant import Contestant, Failed
from benchmarks.store import PostgresStore, until_completed, until_done
from benchmarks.workloads.growth import copies
from benchmarks.workloads.latency import read

NAP_SECONDS = 0.005
SLOTS = 10
TENANTS = 100
IDLE_TENANTS = 9_900
BATCH = 100
FAIR = (
    b"insert into jobd.queues (name, fair) values ('default', true)"
    b" on conflict (name) do update set fair = true"
)
CLAIM = "select count(*) from jobd.claim_governed(%s::uuid, '{default}', array[%s]::int[], '{}', '{}', 1, 2)"
# The databases of a claim alone and beside idle tenants.
ALONE, CROWDED = "bench_alone", "bench_crowded"


def run(bench: Bench) -> None:
    if (jobd := bench.get("jobd")) is None:
        return
    bench.rounds("fairness", [Case(jobd, "flood")], lambda _: _flood(bench, jobd), rounds=1)
    bench.rounds("fairness", [Case(jobd, "zipf")], lambda _: _zipf(bench, jobd))
    try:
        for database, idle in ((ALONE, 0), (CROWDED, IDLE_TENANTS)):
            with bench.store(jobd, database=database) as store:
                assert isinstance(store, PostgresStore)
                _fill(
                    jobd,
                    store,
                    idle=idle,
                    jobs=max(bench.sizes.pairs + 2, 4) * bench.sizes.idle_batches * BATCH,
                )
        times = {database: partial(_claims, bench, jobd, database) for database in (ALONE, CROWDED)}
        for each in times.values():
            each()  # the first ones warm caches
        bench.walk("fairness idle", times[CROWDED], times[ALONE])
    finally:
        for database in (ALONE, CROWDED):
            bench.postgres.drop(database)


def jain(shares: Sequence[float]) -> float:
    """1 where all are alike, 1/n where one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def zipf(total: int, tenants: int) -> list[int]:
    """About `total` in parts of 1, 1/2, 1/3 ..."""
    whole = sum(1 / rank for rank in range(1, tenants + 1))
    return [round(total / rank / whole) for rank in range(1, tenants + 1)]


def _flood(bench: Bench, jobd: Contestant) -> dict[str, float]:
    jobs = bench.sizes.flood_jobs
    with tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder, bench.store(jobd) as store:
        assert isinstance(store, PostgresStore)
        jobd.run("enqueue", 1, url=store.url)
        store.connection.execute(FAIR)
        payload = json.dumps({"seconds": NAP_SECONDS})
        copies(store, jobs, {"kind": "'nap'", "tenant_id": "'a'", "payload": f"'{payload}'"})
        store.connection.execute("vacuum analyze jobd.jobs")
        sent = 0
        with bench.working(
            jobd, store.url, stamps=str(Path(folder) / "stamps"), arguments=f"--concurrency {SLOTS}"
        ) as worker:
            began, _ = until_completed(store, 0, worker)
            while store.value(
                "select exists (select from jobd.jobs where tenant_id = 'a' and state = 'ready')"
            ):
                sent += 1
                time.sleep(max(0.0, began + sent - time.monotonic()))
                told = json.dumps({"seconds": NAP_SECONDS, "sent": time.monotonic_ns()})
                store.connection.execute("select jobd.enqueue('nap', %s::jsonb, tenant_id => 'b')", [told])
            seconds = time.monotonic() - began
            until_done(store, worker, seconds=10)
            worker.stop()
        waits = [stamp.waited / 1e6 for file in Path(folder).iterdir() for stamp in read(file)]
    if len(waits) < sent:
        raise Failed(f"{len(waits)} of {sent} jobs told how long they waited")
    return {
        "jobs": jobs,
        "drain_per_second": jobs / seconds,
        "sent": sent,
        "p50_ms": percentile(waits, 50),
        "p99_ms": percentile(waits, 99),
    }


def _zipf(bench: Bench, jobd: Contestant) -> dict[str, float]:
    with bench.store(jobd) as store:
        assert isinstance(store, PostgresStore)
        jobd.run("enqueue", 1, url=store.url)
        store.connection.execute(FAIR)
        for number, jobs in enumerate(zipf(bench.sizes.zipf_jobs, TENANTS)):
            copies(store, jobs, {"tenant_id": f"'tenant{number}'"})
        store.connection.execute("vacuum analyze jobd.jobs")
        with bench.working(jobd, store.url) as worker:
            if until_done(store, worker, seconds=60) is None:
                raise Failed("the backlogs were not done within 60 s")
            worker.stop()
        # Until the first of them had nothing more waiting: its last job was claimed.
        shares = [
            float(row[0])
            for row in store.connection.execute(
                "select count(*) from jobd.job_history where tenant_id is not null and claimed_at <="
                " (select min(last) from (select max(claimed_at) as last from jobd.job_history"
                "   where tenant_id is not null group by tenant_id) t) group by tenant_id"
            )
        ]
    return {"jobs": sum(shares), "jain": jain(shares + [0.0] * (TENANTS - len(shares)))}


def _fill(jobd: Contestant, store: PostgresStore, *, idle: int, jobs: int) -> None:
    """Ready jobs of the tenants, and `idle` others with a row and a finished job each."""
    jobd.run("past", max(idle, 1), url=store.url)
    store.connection.execute(
        "with numbered as (select id, row_number() over (order by id) as n from jobd.job_history)"
        " update jobd.job_history h set tenant_id = 'idle' || n.n from numbered n where n.id = h.id"
    )
    store.connection.execute(
        "insert into jobd.tenants (id) select 'idle' || n from generate_series(1, %s) n", [idle]
    )
    jobd.run("enqueue", 1, url=store.url)
    store.connection.execute(FAIR)
    copies(store, jobs, {"tenant_id": f"'tenant' || (n % {TENANTS})"})
    store.connection.execute("vacuum analyze")


def _claims(bench: Bench, jobd: Contestant, database: str) -> float:
    """Milliseconds of a claim, the middle of several; what is claimed is gone before the next."""
    taken: list[float] = []
    with bench.open(jobd, database=database) as store:
        worker = uuid4()
        store.connection.execute(
            "insert into jobd.workers (id, host, pid, version, queues, kinds, roles, concurrency, started_at,"
            " beat_at, confirmed_since, lease_until) values (%s, 'bench', 1, '0', '{default}', '{}', '{}', 1,"
            " now(), now(), now(), now() + interval '1 hour')",
            [worker],
        )
        for _ in range(bench.sizes.idle_batches):
            began = time.perf_counter()
            row = store.connection.execute(CLAIM, [worker, BATCH], prepare=True).fetchone()
            taken.append((time.perf_counter() - began) * 1000)
            if row != (BATCH,):
                raise Failed(f"a claim brought {row}, not {BATCH} jobs")
            store.connection.execute("delete from jobd.jobs where state = 'running'")
    return percentile(taken, 50)
