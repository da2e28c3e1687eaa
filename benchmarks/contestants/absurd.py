"""Absurd 0.5 (PyPI: absurd-sdk; its SQL ships in absurdctl, whose `init` applies the same text by psql).

Fast settings: a system for durable workflows, whose documentation gives no advice on throughput. By its
code:
- the asynchronous worker with a concurrency of 200, which is also what it claims at once. All jobs share
  one connection and each ends by a statement of its own. Interleaved with the synchronous worker (one thread,
  the same batch) it drained 5 % faster for a quarter more CPU; threads over that one connection were slower;
- there is no notification: poll_interval 0.05 s of the default 0.25 sets the idle latency;
- there is no bulk enqueue: enqueue() spawns one by one on one connection, 1,000 in a transaction, on the
  connection that the documentation lets the caller pass.

A job of the future is a task whose first step is sleep_until(): there is no other way to delay one. future()
writes what such a task leaves after its first run: task, run and checkpoint.
"""

from __future__ import annotations

import asyncio
import time

import psycopg
import uvloop
from absurd_sdk import Absurd, AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL
from program import URL, Load, burn, on_signal, program, stamp

PINS = ["absurd-sdk==0.5.1", "absurdctl==0.5.1", "psycopg[binary]==3.3.9", "uvloop==0.23.0"]
PYTHON = "3.13"
STORE = "postgresql"

QUEUE = "bench"
CHUNK = 1_000
CONCURRENCY = 200
POLL = 0.05


def install() -> None:
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(BUNDLED_SCHEMA_SQL)
        Absurd(connection, queue_name=QUEUE).create_queue()


def enqueue(count: int) -> float:
    with psycopg.connect(URL, autocommit=True) as connection:
        app = Absurd(connection, queue_name=QUEUE)
        start = time.perf_counter()
        for first in range(0, count, CHUNK):
            with connection.transaction():
                for n in range(first, min(first + CHUNK, count)):
                    app.spawn("noop", {"n": n}, queue=QUEUE)
        return time.perf_counter() - start


async def _produce(load: Load) -> dict[str, float]:
    # A client is one connection: one for each task, as there is no pool.
    clients = [AsyncAbsurd(URL, queue_name=QUEUE) for _ in range(load.tasks)]
    for client in clients:
        await client.list_queues()  # connects
    free = list(clients)

    async def send(kind: str, value: int) -> None:
        client = free.pop()
        await client.spawn(kind, {"sent": value} if kind == "stamp" else {"n": value}, queue=QUEUE)
        free.append(client)

    counted = await load.run(send)
    for client in clients:
        await client.close()
    return counted


async def _work(concurrency: int | None) -> None:
    app = AsyncAbsurd(URL, queue_name=QUEUE)

    @app.register_task("noop")
    async def noop(params, ctx):
        burn()

    @app.register_task("stamp")
    async def stamped(params, ctx):
        stamp(params["sent"])

    on_signal(app.stop_worker, loop=asyncio.get_running_loop())
    await app.start_worker(concurrency=concurrency or CONCURRENCY, poll_interval=POLL)
    await app.close()


def _fill(sql: str, count: int) -> float:
    with psycopg.connect(URL, autocommit=True) as connection:
        start = time.perf_counter()
        connection.execute(sql, {"count": count})
        connection.execute("vacuum analyze absurd.t_bench, absurd.r_bench, absurd.c_bench")
        return time.perf_counter() - start


def describe() -> dict[str, str]:
    return {
        # `sleeping` runs (future()) are not waited for.
        "unfinished": "select count(*) from (select from absurd.r_bench where state in ('pending', 'running')"
        " limit 1) t",
        "completed": "select count(*) from absurd.t_bench where state = 'completed'",
    }


ROWS = """
    with input as (
        select n, absurd.portable_uuidv7() as task_id, absurd.portable_uuidv7() as run_id
          from generate_series(1, %(count)s) n)"""
FUTURE = (
    ROWS
    + """, tasks as (
        insert into absurd.t_bench (task_id, task_name, params, max_attempts, first_started_at, state,
                                    attempts, last_attempt_run)
        select task_id, 'noop', jsonb_build_object('n', n), 5, now(), 'sleeping', 1, run_id from input),
    checkpoints as (
        insert into absurd.c_bench (task_id, checkpoint_name, state, owner_run_id)
        select task_id, 'due', to_jsonb(now() + interval '365 days'), run_id from input)
    insert into absurd.r_bench (run_id, task_id, attempt, state, available_at, started_at)
    select run_id, task_id, 1, 'sleeping', now() + interval '365 days', now() from input
"""
)
PAST = (
    ROWS
    + """, tasks as (
        insert into absurd.t_bench (task_id, task_name, params, max_attempts, first_started_at, state,
                                    attempts, last_attempt_run, completed_payload)
        select task_id, 'noop', jsonb_build_object('n', n), 5, now(), 'completed', 1, run_id, 'null'
          from input)
    insert into absurd.r_bench (run_id, task_id, attempt, state, claimed_by, claim_expires_at, available_at,
                                started_at, completed_at, result)
    select run_id, task_id, 1, 'completed', 'host:1', now(), now(), now(), now(), 'null' from input
"""
)

if __name__ == "__main__":
    program(
        install=install,
        enqueue=enqueue,
        produce=lambda load: uvloop.run(_produce(load)),
        work=lambda concurrency: uvloop.run(_work(concurrency)),
        describe=describe,
        future=lambda count: _fill(FUTURE, count),
        past=lambda count: _fill(PAST, count),
    )
