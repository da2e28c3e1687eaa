"""streaQ 7.2 on Redis: coredis, uvloop, one worker process.

Fast settings, by its documentation (docs/worker.rst), its own benchmark and by measuring:
- anyio_kwargs={"use_uvloop": True}: a quarter more; pickle stays, the default;
- concurrency and prefetch stay at 16, the default. 32, as in its benchmark, is as fast, 100 is slower;
- enqueue_many(), 1,000 jobs each;
- silent=True on the tasks: no two log lines a job.

A finished job leaves the stream and is a member of the index of results for its `ttl`, here an hour and
not five minutes, so that none expires meanwhile.
"""

from __future__ import annotations

import logging.config
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import uvloop
from program import URL, Load, burn, program, stamp
from streaq import Worker
from streaq.constants import REDIS_QUEUE, REDIS_RESULT, REDIS_RESULTS_SET, REDIS_STREAM
from streaq.utils import default_log_config

PINS = ["streaq==7.2.0", "coredis==6.9.0", "anyio==4.16.0", "uvloop==0.23.0"]
PYTHON = "3.13"
STORE = "redis"

CONCURRENCY = 16
CHUNK = 1_000
KEEP_SECONDS = 3_600
PREFIX = "streaq:default"


def _worker(concurrency: int | None = None) -> tuple[Worker[Any], dict[str, Any]]:
    worker: Worker[Any] = Worker(
        URL, concurrency=concurrency or CONCURRENCY, anyio_kwargs={"use_uvloop": True}
    )

    @worker.task(name="noop", ttl=KEEP_SECONDS, silent=True)
    async def noop(n: int) -> None:
        burn()

    @worker.task(name="stamp", ttl=KEEP_SECONDS, silent=True)
    async def stamped(sent: int) -> None:
        stamp(sent)

    return worker, {"noop": noop, "stamp": stamped}


async def _install() -> None:
    worker, _ = _worker()
    async with worker:
        await worker.redis.flushall()


async def _enqueue(count: int, *, delay: timedelta | None = None) -> float:
    worker, tasks = _worker()
    async with worker:
        start = time.perf_counter()
        for first in range(0, count, CHUNK):
            made = [tasks["noop"].enqueue(number) for number in range(first, min(first + CHUNK, count))]
            if delay:
                made = [task.start(delay=delay) for task in made]
            await worker.enqueue_many(made)
        return time.perf_counter() - start


async def _produce(load: Load) -> dict[str, float]:
    worker, tasks = _worker()

    async def send(kind: str, value: int) -> None:
        await tasks[kind].enqueue(value)

    async with worker:
        return await load.run(send)


def work(concurrency: int | None) -> None:
    worker, _ = _worker(concurrency)
    logging.config.dictConfig(default_log_config(worker.tz, False))
    worker.run_sync()  # with signal handlers of its own


async def _past(count: int) -> float:
    worker, _ = _worker()
    async with worker:
        start = time.perf_counter()
        for first in range(0, count, CHUNK):
            now = int(time.time() * 1000)
            run = {"f": "noop", "ct": now, "et": now, "s": True, "r": None, "st": now, "ft": now}
            result = await worker.serialize(run | {"t": 1, "w": worker.id})
            ids = [uuid4().hex for _ in range(first, min(first + CHUNK, count))]
            async with worker.redis.pipeline(transaction=False) as pipe:
                pipe.zadd(PREFIX + REDIS_RESULTS_SET, dict.fromkeys(ids, now + KEEP_SECONDS * 1000))
                for each in ids:
                    pipe.set(PREFIX + REDIS_RESULT + each, result, ex=KEEP_SECONDS)
        return time.perf_counter() - start


def describe() -> dict[str, list[list[str]]]:
    tomorrow = str(int(time.time() * 1000) + 86_400_000)  # jobs of future() are not waited for
    return {
        "unfinished": [
            ["XLEN", PREFIX + REDIS_STREAM + "normal"],
            ["ZCOUNT", PREFIX + REDIS_QUEUE + "normal", "-inf", tomorrow],
        ],
        "completed": [["ZCARD", PREFIX + REDIS_RESULTS_SET]],
    }


if __name__ == "__main__":
    program(
        install=lambda: uvloop.run(_install()),
        enqueue=lambda count: uvloop.run(_enqueue(count)),
        produce=lambda load: uvloop.run(_produce(load)),
        work=work,
        describe=describe,
        future=lambda count: uvloop.run(_enqueue(count, delay=timedelta(days=365))),
        past=lambda count: uvloop.run(_past(count)),
    )
