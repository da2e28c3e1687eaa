"""Celery 5.7 on Redis: redis-py with hiredis, the solo pool, one worker process.

Fast settings, by its guide "Optimizing" (docs/userguide/optimizing.rst) and by measuring:
- --pool solo: for jobs as short as these the way to a child process or a thread costs more than the job;
  prefork with two children and threads do no more and use more CPU, gevent does less than half;
- worker_prefetch_multiplier=128 ("many short-running tasks ... say 64, or 128");
- ignore_result without a result backend, no task events (the default), no rate limits
  (worker_disable_rate_limits), and --without-gossip --without-mingle;
- logging is WARNING, as `celery worker` starts it: no line a job;
- one producer from the pool for all of a bulk enqueue: there is no call for many.

Acknowledged messages are deleted and nothing of them is kept. Each acknowledgement is one HDEL of the
unacknowledged messages, and Redis counts its commands: that count is `completed`. Only differences of it
mean something. task_acks_late, so that the count follows the handler; early acknowledgements
were not faster.

A job of the future is fetched at once and waits in the worker's memory, unacknowledged: the store cannot
tell it from one that runs, and future() is not supported. past() has nothing to write.
"""

from __future__ import annotations

import time

from celery import Celery
from program import URL, Load, burn, program, stamp

PINS = ["celery[redis]==5.7.0", "kombu==5.7.0", "redis==8.1.0", "hiredis==3.5.0"]
PYTHON = "3.13"
STORE = "redis"

PREFETCH = 128

app = Celery("bench", broker=URL or "redis://")
app.conf.update(
    worker_prefetch_multiplier=PREFETCH,
    worker_disable_rate_limits=True,
    task_ignore_result=True,
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(n: int) -> None:
    burn()


@app.task(name="stamp")
def stamped(sent: int) -> None:
    stamp(sent)


TASKS = {"noop": noop, "stamp": stamped}


def install() -> None:
    with app.connection_for_write() as connection:
        connection.default_channel.client.flushall()


def enqueue(count: int) -> float:
    with app.producer_pool.acquire(block=True) as producer:
        start = time.perf_counter()
        for number in range(count):
            noop.apply_async((number,), producer=producer)
        return time.perf_counter() - start


def produce(load: Load) -> dict[str, float]:
    return load.run_threads(lambda kind, value: TASKS[kind].delay(value))


def work(concurrency: int | None) -> None:
    """`celery worker`, which has signal handlers of its own; the solo pool runs one job at a time."""
    try:
        app.worker_main(["worker", "--pool", "solo", "--without-gossip", "--without-mingle"])
    except SystemExit as stopped:
        if stopped.code:
            raise


def describe() -> dict[str, list[list[str]]]:
    acknowledged = (
        "return tonumber(string.match(redis.call('INFO', 'commandstats'), 'cmdstat_hdel:calls=(%d+)') or 0)"
    )
    return {
        "unfinished": [["LLEN", "celery"], ["HLEN", "unacked"]],
        "completed": [["EVAL", acknowledged, "0"]],
    }


if __name__ == "__main__":
    program(
        install=install,
        enqueue=enqueue,
        produce=produce,
        work=work,
        describe=describe,
        past=lambda count: (0, 0.0),
    )
