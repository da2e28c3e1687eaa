"""Dramatiq 2.2 on Redis: redis-py with hiredis, threads, one worker process.

Fast settings, by the environment variables that its advanced guide documents, and by measuring:
- dramatiq_queue_prefetch=1000: by default two messages a thread are fetched, and the consumer sleeps for
  5 ms and more whenever it holds that many. This alone is a factor of two;
- 8 threads, the default: 2 and 4 do no more. gevent (dramatiq-gevent) is 2.5 times slower here;
- dramatiq_worker_timeout=5 (ms): an idle consumer looks again after 5 ms and not after up to a second;
- the default middleware and no result backend; logging is INFO, as `dramatiq` starts it: no line a job.
- there is no call for many: one thread enqueues, more gain nothing.

Acknowledged messages are deleted and nothing of them is kept. Each acknowledgement is one HDEL, which
happens nowhere else but for a dead letter, and Redis counts its commands: that count is `completed`. Only
differences of it mean something. past() has nothing to write.
"""

from __future__ import annotations

import logging
import os
import threading
import time

os.environ.setdefault("dramatiq_queue_prefetch", "1000")
os.environ.setdefault("dramatiq_worker_timeout", "5")

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from program import URL, Load, burn, on_signal, program, stamp

PINS = ["dramatiq==2.2.1", "redis==8.1.0", "hiredis==3.5.0"]
PYTHON = "3.13"
STORE = "redis"

CONCURRENCY = 8
YEAR_MS = 365 * 86_400_000

broker = RedisBroker(url=URL or "redis://")
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="noop")
def noop(n: int) -> None:
    burn()


@dramatiq.actor(actor_name="stamp")
def stamped(sent: int) -> None:
    stamp(sent)


ACTORS = {"noop": noop, "stamp": stamped}


def install() -> None:
    broker.client.flushall()


def enqueue(count: int) -> float:
    start = time.perf_counter()
    for number in range(count):
        noop.send(number)
    return time.perf_counter() - start


def produce(load: Load) -> dict[str, float]:
    return load.run_threads(lambda kind, value: ACTORS[kind].send(value))


def work(concurrency: int | None) -> None:
    """What the child of `dramatiq --processes 1` runs."""
    logging.basicConfig(level=logging.INFO)
    stopped = threading.Event()
    on_signal(stopped.set)
    worker = dramatiq.Worker(broker, worker_threads=concurrency or CONCURRENCY)
    worker.start()
    while not stopped.wait(1):
        pass
    worker.stop()
    broker.close()


def future(count: int) -> float:
    start = time.perf_counter()
    for number in range(count):
        noop.send_with_options(args=(number,), delay=YEAR_MS)
    return time.perf_counter() - start


def describe() -> dict[str, list[list[str]]]:
    acknowledged = (
        "return tonumber(string.match(redis.call('INFO', 'commandstats'), 'cmdstat_hdel:calls=(%d+)') or 0)"
    )
    return {
        # Delayed messages are in a queue of their own, default.DQ.
        "unfinished": [["HLEN", "dramatiq:default.msgs"]],
        "completed": [["EVAL", acknowledged, "0"]],
    }


if __name__ == "__main__":
    program(
        install=install,
        enqueue=enqueue,
        produce=produce,
        work=work,
        describe=describe,
        future=future,
        past=lambda count: (0, 0.0),
    )
