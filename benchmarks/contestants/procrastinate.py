"""Procrastinate 3.10: psycopg with its C speed-ups.

Fast settings: its documentation advises parallelism (howto/production/deployment and howto/advanced/worker,
`concurrency`) and gives no figures. The worker claims one job for each statement and finishes each with
another, whatever the setting:
- concurrency 10 for asynchronous tasks, on a pool of as many connections (psycopg's own default is four);
- LISTEN/NOTIFY on, the default; the polls behind it stay at 5 s, which latency does not feel;
- bulk enqueue by batch_defer_async(), 1,000 jobs each;
- finished jobs are kept (delete_jobs="never", the default), so that they can be counted.

future() and past() write the job and its events as the triggers do, with the triggers off: a million
notifications in one transaction are no part of the library's use. No index finds due jobs among jobs of the
far future; so that polling stays cheap, future() keeps the range of its ids in a table of its own,
bench_future, and `unfinished` looks outside of it by the index (id, lock). future() runs once for a database.
"""

from __future__ import annotations

import time

import psycopg
import uvloop
from procrastinate import App, PsycopgConnector
from program import URL, Load, burn, program, stamp

PINS = ["procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9", "psycopg-pool==3.3.3", "uvloop==0.23.0"]
PYTHON = "3.13"
STORE = "postgresql"

QUEUE = "bench"
CHUNK = 1_000
CONCURRENCY = 10


async def noop(n: int) -> None:
    burn()


async def stamped(sent: int) -> None:
    stamp(sent)


def _app(connections: int) -> App:
    app = App(connector=PsycopgConnector(conninfo=URL, min_size=connections, max_size=connections))
    app.task(name="noop", queue=QUEUE)(noop)
    app.task(name="stamp", queue=QUEUE)(stamped)
    return app


async def _install() -> None:
    app = _app(1)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
    with psycopg.connect(URL) as connection:
        connection.execute("create table bench_future (first bigint not null, last bigint not null)")


async def _enqueue(count: int) -> float:
    app = _app(1)
    async with app.open_async():
        task = app.tasks["noop"]
        start = time.perf_counter()
        for first in range(0, count, CHUNK):
            await task.batch_defer_async(*({"n": n} for n in range(first, min(first + CHUNK, count))))
        return time.perf_counter() - start


async def _produce(load: Load) -> dict[str, float]:
    app = _app(load.tasks)
    async with app.open_async():
        noop_task, stamp_task = app.tasks["noop"], app.tasks["stamp"]
        return await load.run(
            lambda kind, value: (
                stamp_task.defer_async(sent=value) if kind == "stamp" else noop_task.defer_async(n=value)
            )
        )


async def _work(concurrency: int | None) -> None:
    concurrency = concurrency or CONCURRENCY
    app = _app(min(concurrency, 20))
    async with app.open_async():
        await app.run_worker_async(queues=[QUEUE], concurrency=concurrency)  # stops by SIGTERM itself


def _fill(statements: list[str], count: int) -> float:
    with psycopg.connect(URL) as connection:
        start = time.perf_counter()
        connection.execute("set session_replication_role = replica")
        for sql in statements:
            connection.execute(sql, {"count": count})
        connection.commit()
        connection.autocommit = True
        connection.execute("vacuum analyze procrastinate_jobs, procrastinate_events")
        return time.perf_counter() - start


def describe() -> dict[str, str]:
    return {
        "unfinished": "select count(*) from (select from procrastinate_jobs where status in ('todo', 'doing')"
        " and id > (select coalesce(max(last), 0) from bench_future)"
        " union all select from procrastinate_jobs where status in ('todo', 'doing')"
        " and id < (select min(first) from bench_future) limit 1) t",
        "completed": "select count(*) from procrastinate_jobs where status = 'succeeded'",
    }


FUTURE = [
    """
    with made as (
        insert into procrastinate_jobs (queue_name, task_name, args, scheduled_at)
        select 'bench', 'noop', jsonb_build_object('n', n), now() + interval '365 days'
          from generate_series(1, %(count)s) n
        returning id, scheduled_at),
    events as (
        insert into procrastinate_events (job_id, type, at)
        select made.id, e.type::procrastinate_job_event_type,
               case e.type when 'scheduled' then made.scheduled_at else now() end
          from made, (values ('deferred'), ('scheduled')) e (type))
    insert into bench_future select min(id), max(id) from made
    """
]
PAST = [
    """
    with made as (
        insert into procrastinate_jobs (queue_name, task_name, args, status, attempts)
        select 'bench', 'noop', jsonb_build_object('n', n), 'succeeded', 1
          from generate_series(1, %(count)s) n
        returning id)
    insert into procrastinate_events (job_id, type)
    select made.id, e.type::procrastinate_job_event_type
      from made, (values ('deferred'), ('started'), ('succeeded')) e (type)
    """
]

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
