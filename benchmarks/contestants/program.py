"""What every contestant program has in common: verbs, load, stamps, signals and one JSON line.

A contestant is a stand-alone program that its own interpreter runs, so this module knows the standard
library only. The harness starts it through this file, so that `import pgqueuer` in contestants/pgqueuer.py
finds the library and not itself, while `import program` finds this file, for the folder comes last:

    BENCH_URL=... venv/bin/python -P benchmarks/contestants/program.py pgqueuer enqueue 1000

It hands its functions over, by the name of the verb:

    if __name__ == "__main__":
        program(install=install, enqueue=enqueue, produce=produce, work=work, describe=describe,
                future=future, past=past)

    install()            -> None
    enqueue(count)       -> seconds that the library's calls took
    produce(load)        -> load.run(send) or load.run_threads(send), unchanged
    work(concurrency)    -> None, after SIGTERM or SIGINT; see until_signal() and on_signal()
    describe()           -> {"unfinished": ..., "completed": ...}
    future(count), past(count) -> seconds, or (jobs, seconds) where the count is another,
                            or the whole line as a dict, like enqueue with more to tell

Functions may be coroutine functions: they run by asyncio.run(). A verb that is left out, or that raises
Unsupported, ends the program with code 2. Standard output carries nothing but the JSON line: what a
library prints goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import random
import runpy
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

URL = os.environ.get("BENCH_URL", "")
WORK_US = float(os.environ.get("BENCH_WORK_US", "0"))

_stamps: list[tuple[int, int]] = []


class Unsupported(Exception):
    """The library cannot do what the verb asks for; the table says "-"."""


def burn() -> None:
    """The no-op handler's body: use BENCH_WORK_US microseconds of CPU, by default none."""
    if WORK_US:
        end = time.thread_time() + WORK_US / 1e6
        while time.thread_time() < end:
            pass


def stamp(sent: int) -> None:
    """The stamp handler's first line: keep `sent` (time.monotonic_ns()) and how long ago that was."""
    _stamps.append((sent, time.monotonic_ns() - sent))


def save_stamps() -> None:
    """Write the stamps of this process, pairs of nanoseconds as a JSON list, to BENCH_STAMPS.<pid>.

    program() does it where `work` returns. A library whose handlers run in child processes calls it when
    such a child ends; the harness reads every file of that name.
    """
    if _stamps and (path := os.environ.get("BENCH_STAMPS")):
        with open(f"{path}.{os.getpid()}", "w") as file:
            json.dump(_stamps, file)


async def until_signal() -> None:
    """Wait in a running loop for SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    on_signal(stopped.set, loop=asyncio.get_running_loop())
    await stopped.wait()


def on_signal(stop: Callable[[], object], *, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Call `stop` at SIGTERM or SIGINT, inside `loop` where one is given."""
    for number in (signal.SIGTERM, signal.SIGINT):
        if loop is not None:
            loop.add_signal_handler(number, stop)
        else:
            signal.signal(number, lambda *_: stop())


class Load:
    """Single enqueues, `tasks` at a time in one process, for `seconds`: as they go, or at `rate` in all.

    With a rate, each task has slots of its own, `tasks / rate` apart and moved by up to a quarter of that
    either way, so that nothing locks to a poll's phase. A task that is late goes on at once.
    """

    def __init__(self, *, seconds: float, tasks: int, rate: float | None, kind: str) -> None:
        self.seconds = seconds
        self.tasks = tasks
        self.rate = rate
        self.kind = kind
        self._start = 0.0

    async def run(self, send: Callable[[str, int], Awaitable[object]]) -> dict[str, float]:
        """Await `send(kind, value)` for each job; `value` is a number, for stamps the time right before."""
        self._start = time.perf_counter()
        counts = await asyncio.gather(*(self._task(number, send) for number in range(self.tasks)))
        return self._counted(counts)

    def run_threads(self, send: Callable[[str, int], object]) -> dict[str, float]:
        """The same for a library that blocks: one thread a task."""
        counts = [0] * self.tasks

        def thread(number: int) -> None:
            for at in self._slots(number):
                time.sleep(max(0.0, at - time.perf_counter()))
                send(self.kind, self._value(counts[number]))
                counts[number] += 1

        self._start = time.perf_counter()
        threads = [threading.Thread(target=thread, args=(number,)) for number in range(self.tasks)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return self._counted(counts)

    async def _task(self, number: int, send: Callable[[str, int], Awaitable[object]]) -> int:
        done = 0
        for at in self._slots(number):
            if (early := at - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            await send(self.kind, self._value(done))
            done += 1
        return done

    def _slots(self, number: int) -> Any:
        """When each enqueue of this task is due, by time.perf_counter(); ends when the time is over."""
        end = self._start + self.seconds
        if self.rate is None:
            while time.perf_counter() < end:
                yield 0.0
            return
        step = self.tasks / self.rate
        for count in range(int(self.seconds / step)):
            at = self._start + step * (count + number / self.tasks + random.uniform(0, 0.5))
            if max(at, time.perf_counter()) >= end:
                return
            yield at

    def _value(self, done: int) -> int:
        return time.monotonic_ns() if self.kind == "stamp" else done

    def _counted(self, counts: list[int]) -> dict[str, float]:
        counted = {"jobs": sum(counts), "seconds": time.perf_counter() - self._start}
        if path := os.environ.get("BENCH_ENDED"):
            # Told at once, since the library still has to close its connections. By rename, so that whoever
            # waits for the file finds it whole.
            with open(f"{path}.new", "w") as file:
                json.dump(counted | {"at": time.time()}, file)
            os.replace(f"{path}.new", path)
        return counted


def program(**verbs: Callable[..., Any]) -> None:
    """Run the verb that the command line names, print its JSON line and end the process."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not spoil the line
    arguments = _parser().parse_args()
    verb = verbs.get(arguments.verb)
    try:
        if verb is None:
            raise Unsupported(f"{arguments.verb}: not supported by this library")
        answer = _run(arguments, verb)
    except Unsupported as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    print(json.dumps(answer), file=output, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("install", "describe"):
        verbs.add_parser(name)
    for name in ("enqueue", "future", "past"):
        verbs.add_parser(name).add_argument("count", type=int)
    produce = verbs.add_parser("produce")
    produce.add_argument("--seconds", type=float, required=True)
    produce.add_argument("--tasks", type=int, required=True)
    produce.add_argument("--rate", type=float)
    produce.add_argument("--kind", choices=["noop", "stamp"], default="noop")
    verbs.add_parser("work").add_argument("--concurrency", type=int)
    return parser


def _run(arguments: argparse.Namespace, verb: Callable[..., Any]) -> Any:
    if arguments.verb in ("enqueue", "future", "past"):
        answer = _result(verb(arguments.count))
        if isinstance(answer, dict):
            return answer
        jobs, seconds = answer if isinstance(answer, tuple) else (arguments.count, answer)
        return {"jobs": jobs, "seconds": seconds}
    if arguments.verb == "produce":
        load = Load(
            seconds=arguments.seconds, tasks=arguments.tasks, rate=arguments.rate, kind=arguments.kind
        )
        return _result(verb(load))
    if arguments.verb == "work":
        _result(verb(arguments.concurrency))
        save_stamps()
        return {}
    return _result(verb()) or {}


def _result(value: Any) -> Any:
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path.append(str(folder))
    del sys.argv[0]
    runpy.run_path(str(folder / f"{sys.argv[0]}.py"), run_name="__main__")
