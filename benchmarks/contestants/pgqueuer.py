"""PgQueuer 1.6: asyncpg, one connection for the worker, a pool for producers.

Fast settings, by its guide "Performance Tuning" (docs/guides/performance-tuning.md):
- `pgq autovac` after the installation (install calls optimize_autovacuum());
- a larger batch_size for short jobs: 100 of the default 10. Larger ones gain nothing in a drain: its log
  buffer is as large as the batch;
- a single asyncpg connection for the queue manager, a pool for producers;
- bulk enqueue by lists in one call, 1,000 jobs each;
- durability stays "durable", the default. uvloop as in its own benchmark (tools/benchmark.py).

Finished jobs are rows of pgqueuer_log with status `successful`. Other rows there are the trace of the
same job's earlier states; past() writes all three, as a job that ran leaves them.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from program import URL, Load, burn, program, stamp, until_signal

PINS = ["pgqueuer[asyncpg]==1.6.0", "asyncpg==0.31.0", "uvloop==0.22.1"]
PYTHON = "3.13"
STORE = "postgresql"

CHUNK = 1_000
BATCH = 100


async def _install() -> None:
    connection = await asyncpg.connect(URL)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.optimize_autovacuum()
    await connection.close()


async def _enqueue(count: int) -> float:
    async with asyncpg.create_pool(URL, min_size=1, max_size=2) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        start = time.perf_counter()
        for first in range(0, count, CHUNK):
            numbers = range(first, min(first + CHUNK, count))
            await queries.enqueue(
                ["noop"] * len(numbers), [b"%d" % number for number in numbers], [0] * len(numbers)
            )
        return time.perf_counter() - start


async def _produce(load: Load) -> dict[str, float]:
    async with asyncpg.create_pool(URL, min_size=load.tasks, max_size=load.tasks) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        return await load.run(lambda kind, value: queries.enqueue(kind, b"%d" % value))


async def _work(concurrency: int | None) -> None:
    connection = await asyncpg.connect(URL)
    pgq = PgQueuer(AsyncpgDriver(connection))

    @pgq.entrypoint("noop")
    async def noop(job: Job) -> None:
        burn()

    @pgq.entrypoint("stamp")
    async def stamped(job: Job) -> None:
        stamp(int(job.payload or b"0"))

    running = asyncio.create_task(
        pgq.run(batch_size=BATCH, max_concurrent_tasks=concurrency and max(concurrency, 2 * BATCH))
    )
    await until_signal()
    pgq.shutdown.set()
    await running


async def _fill(sql: str, count: int) -> float:
    connection = await asyncpg.connect(URL)
    start = time.perf_counter()
    await connection.execute(sql, count, timeout=None)
    await connection.execute("analyze")
    seconds = time.perf_counter() - start
    await connection.close()
    return seconds


def describe() -> dict[str, str]:
    return {
        # Jobs of the far future (future()) are not waited for.
        "unfinished": "select count(*) from (select from pgqueuer where status = 'picked'"
        " or (status = 'queued' and entrypoint = any (array['noop', 'stamp'])"
        " and execute_after < now() + interval '1 day') limit 1) t",
        "completed": "select count(*) from pgqueuer_log where status = 'successful'",
    }


FUTURE = """
    with input as (select n, nextval('pgqueuer_id_seq') as id from generate_series(1, $1::int) n), made as (
        insert into pgqueuer (id, priority, entrypoint, payload, execute_after, status)
        select id, 0, 'noop', n::text::bytea, now() + interval '365 days', 'queued' from input
        returning id, entrypoint, priority)
    insert into pgqueuer_log (job_id, status, entrypoint, priority)
    select id, 'queued', entrypoint, priority from made
"""
PAST = """
    insert into pgqueuer_log (job_id, status, entrypoint, priority, aggregated)
    select -n, s.status::pgqueuer_status, 'noop', 0, true
      from generate_series(1, $1::int) n, (values ('queued'), ('picked'), ('successful')) s (status)
"""

if __name__ == "__main__":
    program(
        install=lambda: uvloop.run(_install()),
        enqueue=lambda count: uvloop.run(_enqueue(count)),
        produce=lambda load: uvloop.run(_produce(load)),
        work=lambda concurrency: uvloop.run(_work(concurrency)),
        describe=describe,
        future=lambda count: uvloop.run(_fill(FUTURE, count)),
        past=lambda count: uvloop.run(_fill(PAST, count)),
    )
