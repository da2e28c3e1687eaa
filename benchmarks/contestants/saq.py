"""SAQ 0.26 on Redis: redis-py with hiredis, uvloop, one worker process.

Fast settings, by its README and its own benchmark (benchmarks/simple.py), and by measuring:
- the `hiredis` extra; uvloop, without which it does a quarter less;
- concurrency 20 of the default 10: the queue lets 20 operations at a time through (max_concurrent_ops),
  more tasks only wait for each other. orjson instead of json gains nothing that can be measured;
- enqueues 20 at a time, as its benchmark does: there is no call for many;
- logging is WARNING, as `saq` starts it. Timers and job time-outs stay at their defaults.

SAQ keeps a finished job for its `ttl`, here an hour and not ten minutes, so that none expires meanwhile:
`completed` are the job keys, which is all keys without the queue's own, that are not incomplete.

SAQ 0.26.4 imports typing_extensions without requiring it: it is one of the pins.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import uvloop
from program import URL, Load, burn, program, stamp
from redis.asyncio import Redis
from saq import Job, Queue, Status, Worker

PINS = [
    "saq==0.26.4",
    "redis==7.4.1",
    "hiredis==3.5.0",
    "uvloop==0.23.0",
    "typing-extensions==4.16.0",
]
PYTHON = "3.13"
STORE = "redis"

CONCURRENCY = 20
ENQUEUES_AT_ONCE = 20
CHUNK = 1_000
KEEP_SECONDS = 3_600
YEAR_SECONDS = 365 * 86_400
WORKER = "bench"


async def noop(context: Any, *, n: int) -> None:
    burn()


async def stamped(context: Any, *, n: int) -> None:
    stamp(n)


async def _install() -> None:
    async with Redis.from_url(URL) as redis:
        await redis.flushall()


async def _enqueue(count: int, **options: Any) -> float:
    queue = Queue.from_url(URL)
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await queue.enqueue("noop", n=number, ttl=KEEP_SECONDS, **options)

    start = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(ENQUEUES_AT_ONCE)))
    seconds = time.perf_counter() - start
    await queue.disconnect()
    return seconds


async def _produce(load: Load) -> dict[str, float]:
    queue = Queue.from_url(URL)
    produced = await load.run(lambda kind, value: queue.enqueue(kind, n=value, ttl=KEEP_SECONDS))
    await queue.disconnect()
    return produced


async def _work(concurrency: int | None) -> None:
    logging.basicConfig(level=logging.WARNING)
    queue = Queue.from_url(URL)
    functions = [("noop", noop), ("stamp", stamped)]
    # The worker has signal handlers of its own.
    await Worker(queue, functions, id=WORKER, concurrency=concurrency or CONCURRENCY).start()
    await queue.disconnect()


async def _past(count: int) -> float:
    queue = Queue.from_url(URL)
    start = time.perf_counter()
    for first in range(0, count, CHUNK):
        pipe = queue.redis.pipeline(transaction=False)
        for number in range(first, min(first + CHUNK, count)):
            now = int(time.time() * 1000)
            job = Job(
                "noop",
                kwargs={"n": number},
                queue=queue,
                ttl=KEEP_SECONDS,
                status=Status.COMPLETE,
                attempts=1,
                progress=1.0,
                queued=now,
                started=now,
                touched=now,
                completed=now,
                worker_id=WORKER,
            )
            pipe.setex(job.id, KEEP_SECONDS, queue.serialize(job))
        await pipe.execute()
    seconds = time.perf_counter() - start
    await queue.disconnect()
    return seconds


def describe() -> dict[str, list[list[str]]]:
    names = ("incomplete", "queued", "active", "schedule", "sweep", "stats", f"worker_info:{WORKER}")
    own = [f"saq:default:{name}" for name in names]
    # EXISTS comes first: it removes those that have expired and that DBSIZE would still count.
    jobs = (
        "local own = redis.call('EXISTS', unpack(KEYS)) "
        "return redis.call('DBSIZE') - own - redis.call('ZCARD', KEYS[1])"
    )
    return {
        "unfinished": [["LLEN", "saq:default:queued"], ["LLEN", "saq:default:active"]],
        "completed": [["EVAL", jobs, str(len(own)), *own]],
    }


if __name__ == "__main__":
    program(
        install=lambda: uvloop.run(_install()),
        enqueue=lambda count: uvloop.run(_enqueue(count)),
        produce=lambda load: uvloop.run(_produce(load)),
        work=lambda concurrency: uvloop.run(_work(concurrency)),
        describe=describe,
        future=lambda count: uvloop.run(_enqueue(count, scheduled=int(time.time()) + YEAR_SECONDS)),
        past=lambda count: uvloop.run(_past(count)),
    )
