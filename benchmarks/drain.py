"""Enqueue many no-op jobs, drain them with one `jobd run`, and count what that cost.

Completions are counted in the database and not in the handler. Time runs from the first claim to the
last job's end, by the database's clock, so starting the process does not count. Each store call of a
drain is one statement, one round trip and one transaction, so commits count all three.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg

from benchmarks.handlers import jobs
from jobd.migrate import migrate


@dataclass(frozen=True)
class Drain:
    """What one drain showed."""

    jobs: int
    concurrency: int
    enqueue_per_second: float
    enqueue_wal_bytes_per_job: float
    drain_per_second: float
    succeeded: int
    run_once: int
    commits_per_job: float
    wal_bytes_per_job: float
    worker_cpu_us_per_job: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def drain(url: str, *, count: int, concurrency: int) -> Drain:
    """Measure on an empty schema of the database at `url`, which loses its schema `jobd`."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("drop schema if exists jobd cascade")
        await migrate(url)
        await connection.execute("checkpoint")
        before = await _wal(connection)
        enqueue_seconds = await _enqueue(url, count)
        enqueued = await _wal(connection)
        await connection.execute("vacuum analyze jobd.jobs")
        await connection.execute("checkpoint")
        start = await _wal(connection), await _commits(connection)
        cpu = await asyncio.to_thread(_run_worker, url, concurrency)
        end = await _wal(connection), await _commits(connection)
        row = await connection.fetchrow(
            "select count(*) filter (where state = 'succeeded') as succeeded,"
            " count(*) filter (where attempt = 1 and claim_no = 2) as once,"
            " extract(epoch from max(finished_at) - min(claimed_at))::float8 as seconds"
            " from jobd.job_history"
        )
    finally:
        await connection.close()
    assert row is not None
    return Drain(
        jobs=count,
        concurrency=concurrency,
        enqueue_per_second=count / enqueue_seconds,
        enqueue_wal_bytes_per_job=(enqueued - before) / count,
        drain_per_second=row["succeeded"] / row["seconds"],
        succeeded=row["succeeded"],
        run_once=row["once"],
        commits_per_job=(end[1] - start[1]) / count,
        wal_bytes_per_job=(end[0] - start[0]) / count,
        worker_cpu_us_per_job=cpu / count * 1e6,
    )


async def _enqueue(url: str, count: int) -> float:
    jobs.overrides["database_url"] = url
    async with jobs:
        start = time.perf_counter()
        await jobs.enqueue_many("noop", ({"n": number} for number in range(count)))
        return time.perf_counter() - start


def _run_worker(url: str, concurrency: int) -> float:
    """Run one worker process until nothing is left; return the CPU seconds it used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [
            *(sys.executable, "-m", "jobd", "run", "--app", "benchmarks.handlers:jobs"),
            *(
                "--concurrency",
                str(concurrency),
                "--until-idle",
                "--http-port",
                "0",
                "--log-level",
                "warning",
            ),
        ],
        env={**os.environ, "JOBD_DATABASE_URL": url},
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def _wal(connection: Any) -> int:
    return int(await connection.fetchval("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))


async def _commits(connection: Any) -> int:
    # Statistics reach the view when their session ends or is idle; ours has to look afresh.
    await connection.execute("select pg_stat_force_next_flush()")
    await connection.execute("select pg_stat_clear_snapshot()")
    return int(
        await connection.fetchval(
            "select xact_commit from pg_stat_database where datname = current_database()"
        )
    )
