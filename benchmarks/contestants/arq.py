"""arq 0.28 on Redis: redis-py 5.3 (it wants less than 6) with hiredis, uvloop, one worker process.

arq has no page about speed; its documentation of arq.worker.Worker names what there is, and by measuring:
- max_jobs 100 of the default 10, and poll_delay 1 ms of the default 500: the worker starts no more than
  max_jobs at each poll, so by default it does 200 jobs/s and an idle one takes up to half a second.
  A poll each millisecond costs an idle worker about a fifth of a core;
- hiredis and uvloop; 32 enqueues at a time, as there is no call for many;
- WARNING instead of the command line's INFO (--custom-log-dict): two lines a job cost a quarter of the rate.

arq keeps the result of each job for an hour, the default: `completed` are all keys but the queue's own and
those of jobs in the queue. While jobs run, their two keys each count as well, 200 at most; at the end of a
drain the number is exact.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import uvloop
from arq import create_pool, func
from arq.connections import RedisSettings
from arq.constants import default_queue_name, health_check_key_suffix, result_key_prefix
from arq.jobs import serialize_result
from arq.worker import Worker
from program import URL, Load, burn, program, stamp

PINS = ["arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0"]
PYTHON = "3.13"
STORE = "redis"

CONCURRENCY = 100
POLL_SECONDS = 0.001
ENQUEUES_AT_ONCE = 32
CHUNK = 1_000
DAY_MS = 86_400_000

SETTINGS = RedisSettings.from_dsn(URL or "redis://")


async def noop(context: Any, n: int) -> None:
    burn()


async def stamped(context: Any, sent: int) -> None:
    stamp(sent)


async def _install() -> None:
    redis = await create_pool(SETTINGS)
    await redis.flushall()
    await redis.aclose()


async def _enqueue(count: int, **options: Any) -> float:
    redis = await create_pool(SETTINGS)
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await redis.enqueue_job("noop", number, **options)

    start = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(ENQUEUES_AT_ONCE)))
    seconds = time.perf_counter() - start
    await redis.aclose()
    return seconds


async def _produce(load: Load) -> dict[str, float]:
    redis = await create_pool(SETTINGS)
    produced = await load.run(redis.enqueue_job)
    await redis.aclose()
    return produced


def work(concurrency: int | None) -> None:
    logging.basicConfig(level=logging.WARNING)
    asyncio.set_event_loop(uvloop.new_event_loop())
    # The worker has signal handlers of its own.
    Worker(
        [func(noop, name="noop"), func(stamped, name="stamp")],
        redis_settings=SETTINGS,
        max_jobs=concurrency or CONCURRENCY,
        poll_delay=POLL_SECONDS,
    ).run()


async def _past(count: int) -> float:
    redis = await create_pool(SETTINGS)
    start = time.perf_counter()
    for first in range(0, count, CHUNK):
        pipe = redis.pipeline(transaction=False)
        for number in range(first, min(first + CHUNK, count)):
            now, key = int(time.time() * 1000), uuid4().hex
            result = serialize_result(
                *("noop", (number,), {}, 1, now, True, None, now, now, f"{key}:noop", default_queue_name),
                job_id=key,
            )
            pipe.set(result_key_prefix + key, result, px=3_600_000)
        await pipe.execute()
    seconds = time.perf_counter() - start
    await redis.aclose()
    return seconds


def describe() -> dict[str, list[list[str]]]:
    own = [default_queue_name, default_queue_name + health_check_key_suffix]
    # EXISTS comes first: it removes those that have expired and that DBSIZE would still count.
    results = (
        "local own = redis.call('EXISTS', unpack(KEYS)) "
        "return redis.call('DBSIZE') - own - redis.call('ZCARD', KEYS[1])"
    )
    tomorrow = str(int(time.time() * 1000) + DAY_MS)  # jobs of future() are not waited for
    return {
        "unfinished": [["ZCOUNT", default_queue_name, "-inf", tomorrow]],
        "completed": [["EVAL", results, str(len(own)), *own]],
    }


if __name__ == "__main__":
    program(
        install=lambda: uvloop.run(_install()),
        enqueue=lambda count: uvloop.run(_enqueue(count)),
        produce=lambda load: uvloop.run(_produce(load)),
        work=work,
        describe=describe,
        future=lambda count: uvloop.run(_enqueue(count, _defer_by=timedelta(days=365))),
        past=lambda count: uvloop.run(_past(count)),
    )
