"""taskiq 0.13 on Redis (taskiq-redis 1.2): a stream with acknowledgements, one worker process, uvloop.

Fast settings, by its guide (docs/guide/cli.md, docs/guide/message-format.md) and by measuring:
- RedisStreamBroker, which its README names first: it reads 100 messages a round trip. ListQueueBroker pops
  one at a time, does two thirds of the rate and keeps nothing that says what was done;
- uvloop, which `taskiq worker` takes when it is installed; hiredis parses the answers;
- JSONFormatter, which leaves JSON to pydantic-core, instead of the default by way of the json module;
- --max-async-tasks 100 (the default), --max-prefetch 100 ("for systems with high message rates"), --no-parse;
- --log-level WARNING: a line for each job costs about 15 % of the rate;
- no result backend, which is the default; 32 enqueues at a time, as there is no call for many.

Acknowledged entries stay in the stream, and its consumer group counts them: `completed` is what was read
and acknowledged. Acknowledgements follow the handler. Delayed jobs need a second program, the scheduler,
and the worker never sees them before they are due: future() is not supported.
"""

from __future__ import annotations

import asyncio
import logging
import time

import uvloop
from program import URL, Load, burn, program, stamp
from redis.asyncio import Redis
from taskiq.cli.common_args import LogLevel
from taskiq.cli.worker.args import WorkerArgs
from taskiq.cli.worker.run import start_listen
from taskiq.formatters.json_formatter import JSONFormatter
from taskiq_redis import RedisStreamBroker

PINS = ["taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"]
PYTHON = "3.13"
STORE = "redis"

CONCURRENCY = 100
PREFETCH = 100
ENQUEUES_AT_ONCE = 32

broker = RedisStreamBroker(URL or "redis://").with_formatter(JSONFormatter())


@broker.task(task_name="noop")
async def noop(n: int) -> None:
    burn()


@broker.task(task_name="stamp")
async def stamped(sent: int) -> None:
    stamp(sent)


TASKS = {"noop": noop, "stamp": stamped}


async def _install() -> None:
    async with Redis.from_url(URL) as redis:
        await redis.flushall()
    await broker.startup()
    await broker.shutdown()


async def _enqueue(count: int) -> float:
    await broker.startup()
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await noop.kiq(number)

    start = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(ENQUEUES_AT_ONCE)))
    seconds = time.perf_counter() - start
    await broker.shutdown()
    return seconds


async def _produce(load: Load) -> dict[str, float]:
    await broker.startup()
    produced = await load.run(lambda kind, value: TASKS[kind].kiq(value))
    await broker.shutdown()
    return produced


def work(concurrency: int | None) -> None:
    """What the child of `taskiq worker --workers 1` runs, with its own signal handlers."""
    logging.basicConfig(level=logging.WARNING, format=WorkerArgs.log_format)
    start_listen(
        WorkerArgs(
            broker=broker,  # type: ignore[arg-type]
            modules=[],
            max_async_tasks=concurrency or CONCURRENCY,
            max_prefetch=PREFETCH,
            no_parse=True,
            log_level=LogLevel.WARNING,
        )
    )


async def _past(count: int) -> float:
    """Entries that the group has read; whatever is unread before is passed over as well."""
    start = time.perf_counter()
    await _enqueue(count)
    async with Redis.from_url(URL) as redis:
        await redis.xgroup_setid("taskiq", "taskiq", "$", entries_read=count)
    return time.perf_counter() - start


GROUP = """
local group = {}
local raw = redis.call('XINFO', 'GROUPS', 'taskiq')[1]
for i = 1, #raw, 2 do group[raw[i]] = raw[i + 1] or 0 end
return """


def describe() -> dict[str, list[list[str]]]:
    return {
        "unfinished": [["EVAL", GROUP + "group['lag'] + group['pending']", "0"]],
        "completed": [["EVAL", GROUP + "group['entries-read'] - group['pending']", "0"]],
    }


if __name__ == "__main__":
    program(
        install=lambda: uvloop.run(_install()),
        enqueue=lambda count: uvloop.run(_enqueue(count)),
        produce=lambda load: uvloop.run(_produce(load)),
        work=work,
        describe=describe,
        past=lambda count: uvloop.run(_past(count)),
    )
