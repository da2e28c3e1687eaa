"""oban-py 0.7 (PyPI: oban): psycopg with its C speed-ups, on uvloop as its own `oban start` runs it.

Fast settings: its documentation has no guide to performance, so by its code:
- a queue's limit of 500: that is also how many jobs one claim takes and one transaction acknowledges.
  Faster than 100 in each of four interleaved pairs (11 to 27 %); 20 and 1,000, tried once, were slower;
- debounce_interval stays at 5 ms: 50 ms was no faster. The stager's second is only the poll behind NOTIFY;
- bulk enqueue by enqueue_many(), 1,000 jobs each. The free edition inserts and acknowledges job by job within
  one transaction; "automatic bulk inserts, bulk acking" are for sale (Oban Pro).

Metrics are off and no telemetry logger is attached by default, as here. The pruner deletes finished jobs
older than a day, so past() writes younger ones.
"""

from __future__ import annotations

import time

import psycopg
import uvloop
from oban import Job, Oban, worker
from oban.schema import install
from program import URL, Load, burn, program, stamp, until_signal

PINS = [
    "oban==0.7.0",
    "psycopg[binary]==3.3.9",
    "psycopg-pool==3.3.3",
    "orjson==3.13.0",
    "uvloop==0.23.0",
]
PYTHON = "3.12"
STORE = "postgresql"

QUEUE = "bench"
CHUNK = 1_000
LIMIT = 500


@worker(queue=QUEUE)
class Noop:
    async def process(self, job: Job) -> None:
        burn()


@worker(queue=QUEUE)
class Stamp:
    async def process(self, job: Job) -> None:
        stamp(job.args["sent"])


async def _install() -> None:
    pool = await Oban.create_pool(URL)
    await install(pool)
    await pool.close()


async def _enqueue(count: int) -> float:
    pool = await Oban.create_pool(URL)
    oban = Oban(pool=pool)
    start = time.perf_counter()
    for first in range(0, count, CHUNK):
        await oban.enqueue_many(Noop.new({"n": n}) for n in range(first, min(first + CHUNK, count)))
    seconds = time.perf_counter() - start
    await pool.close()
    return seconds


async def _produce(load: Load) -> dict[str, float]:
    pool = await Oban.create_pool(URL, min_size=load.tasks, max_size=load.tasks)
    oban = Oban(pool=pool)
    counted = await load.run(
        lambda kind, value: oban.enqueue(
            Stamp.new({"sent": value}) if kind == "stamp" else Noop.new({"n": value})
        )
    )
    await pool.close()
    return counted


async def _work(concurrency: int | None) -> None:
    pool = await Oban.create_pool(URL)
    async with Oban(pool=pool, queues={QUEUE: concurrency or LIMIT}):
        await until_signal()
    await pool.close()


def _fill(sql: str, count: int) -> float:
    with psycopg.connect(URL, autocommit=True) as connection:
        start = time.perf_counter()
        connection.execute(sql, {"count": count})
        connection.execute("vacuum analyze oban_jobs")
        return time.perf_counter() - start


def describe() -> dict[str, str]:
    return {
        # `scheduled` jobs (future()) are not waited for.
        "unfinished": "select count(*) from (select from oban_jobs where queue = 'bench'"
        " and state in ('available', 'executing', 'retryable') limit 1) t",
        "completed": "select count(*) from oban_jobs where state = 'completed'",
    }


FUTURE = """
    insert into oban_jobs (state, queue, worker, args, scheduled_at)
    select 'scheduled', 'bench', '__main__.Noop', jsonb_build_object('n', n),
           timezone('UTC', now()) + interval '365 days'
      from generate_series(1, %(count)s) n
"""
PAST = """
    insert into oban_jobs (state, queue, worker, attempt, args, attempted_by, attempted_at, completed_at)
    select 'completed', 'bench', '__main__.Noop', 1, jsonb_build_object('n', n),
           array['node', producer.id], timezone('UTC', now()), timezone('UTC', now())
      from generate_series(1, %(count)s) n, (select gen_random_uuid()::text as id) producer
"""

if __name__ == "__main__":
    program(
        install=lambda: uvloop.run(_install()),
        enqueue=lambda count: uvloop.run(_enqueue(count)),
        produce=lambda load: uvloop.run(_produce(load)),
        work=lambda concurrency: uvloop.run(_work(concurrency)),
        describe=describe,
        future=lambda count: _fill(FUTURE, count),
        past=lambda count: _fill(PAST, count),
    )
