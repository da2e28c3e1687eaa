"""Chancy 0.26: psycopg with its C speed-ups, the asyncio executor.

Fast settings, by the docstrings of Queue, AsyncExecutor and Worker, the only advice that it gives:
- AsyncExecutor, "for running large numbers of IO-bound jobs", at a concurrency of 5,000: that is also how
  many jobs one claim takes. 200 was slower; 1,000 and 5,000, interleaved,
  cannot be told apart;
- eager_polling, so that a finished job wakes the claim; without it a drain waits for the poll, of 1 second
  here (5 by default, and no less than 1). NOTIFY is on by default;
- Worker.send_outgoing_interval 0.1 s of the default 1, so that results reach the store sooner;
- bulk enqueue by push_many() in its default batches of 1,000.

Its INFO log line for each job is the default and stays. The default plugins stay on, pruning among them: it
deletes finished jobs older than a day, so past() writes younger ones.
"""

from __future__ import annotations

import time

import psycopg
import uvloop
from chancy import Chancy, Job, Queue, Worker, job
from program import URL, Load, burn, program, stamp

PINS = ["chancy==0.26.0", "psycopg[binary,pool]==3.3.9", "psycopg-pool==3.3.3", "uvloop==0.23.0"]
PYTHON = "3.13"
STORE = "postgresql"

QUEUE = "bench"
CONCURRENCY = 5_000
OUTGOING = 0.1


@job(queue=QUEUE)
async def noop(*, n: int) -> None:
    burn()


@job(queue=QUEUE)
async def stamped(*, sent: int) -> None:
    stamp(sent)


def _job(kind: str, value: int) -> Job:
    if kind == "stamp":
        return stamped.job.with_kwargs(sent=value)
    return noop.job.with_kwargs(n=value)


def _queue(concurrency: int | None = None) -> Queue:
    return Queue(
        QUEUE,
        concurrency=concurrency or CONCURRENCY,
        executor=Chancy.Executor.Async,
        polling_interval=1,
        eager_polling=True,
    )


async def _install() -> None:
    async with Chancy(URL) as chancy:
        await chancy.migrate()
        await chancy.declare(_queue())


async def _enqueue(count: int) -> float:
    async with Chancy(URL) as chancy:
        start = time.perf_counter()
        async for _ in chancy.push_many([_job("noop", n) for n in range(count)]):
            pass
        return time.perf_counter() - start


async def _produce(load: Load) -> dict[str, float]:
    async with Chancy(
        URL, min_connection_pool_size=load.tasks, max_connection_pool_size=load.tasks
    ) as chancy:
        return await load.run(lambda kind, value: chancy.push(_job(kind, value)))


async def _work(concurrency: int | None) -> None:
    async with Chancy(URL) as chancy:
        await chancy.declare(_queue(concurrency), upsert=True)
        async with Worker(chancy) as worker:  # stops by SIGTERM itself
            worker.send_outgoing_interval = OUTGOING
            await worker.wait_for_shutdown()


def _fill(sql: str, count: int) -> float:
    with psycopg.connect(URL, autocommit=True) as connection:
        start = time.perf_counter()
        connection.execute(sql, {"count": count})
        connection.execute("vacuum analyze chancy_jobs")
        return time.perf_counter() - start


def describe() -> dict[str, str]:
    return {
        # Jobs of the far future (future()) are not waited for; every job here has one attempt.
        "unfinished": "select count(*) from (select from chancy_jobs where queue = 'bench'"
        " and (state = 'running' or (state = 'pending' and attempts = 0"
        " and scheduled_at < now() + interval '1 day')) limit 1) t",
        "completed": "select count(*) from chancy_jobs where state = 'succeeded'",
    }


FUTURE = """
    insert into chancy_jobs (id, queue, func, kwargs, limits, meta, scheduled_at)
    select uuidv7(), 'bench', '__main__.noop', jsonb_build_object('n', n), '[]', '{}',
           now() + interval '365 days'
      from generate_series(1, %(count)s) n
"""
PAST = """
    insert into chancy_jobs (id, queue, func, kwargs, limits, meta, state, attempts, taken_by, created_at,
                             started_at, completed_at, scheduled_at, claim_id)
    select uuidv7(), 'bench', '__main__.noop', jsonb_build_object('n', n), '[]', '{}', 'succeeded', 1,
           worker.id, now(), now(), now(), now(), gen_random_uuid()
      from generate_series(1, %(count)s) n, (select gen_random_uuid()::text as id) worker
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
