"""The second thread of a worker process: a loop of its own, so that no handler can stop it.

    heartbeat, its watch   lease, fence                 always
    last resort            an end without the work loop a process of its own
    pulse                  how late the work loop is    always
    notifier               hints                        worker, scheduler
    maintenance            stage, expire, rescue        worker, scheduler
    leader                 partitions, pruning          scheduler
    scheduler              jobs of schedules            scheduler
    http                   probes, metrics              http

They end in the order of the daemon's shutdown: everything else first, the heartbeat after the last
result is durable, HTTP last.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from jobd.errors import JobdError

T = TypeVar("T")
PULSE_SECONDS = 0.25
START_SECONDS = 30.0


class ControlEnded(JobdError):
    """There is no control thread any more to do what was asked."""


class ControlThread:
    """Runs coroutines on a loop in a thread of its own, each under a name by which it can be stopped."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        """`on_failure` is called on this thread when a service ends by a bug; all others end with it."""
        self._on_failure = on_failure
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._main, name="jobd-control", daemon=True)
        self._started: Future[None] = Future()
        self._services: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._ended: asyncio.Event | None = None

    def start(self) -> None:
        """Start the thread; return when its loop runs."""
        self._thread.start()
        self._started.result(START_SECONDS)

    def spawn(self, name: str, service: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a service until it is stopped. From any thread."""

        async def begin() -> None:
            assert self._tasks is not None
            self._services[name] = self._tasks.create_task(service(), name=f"jobd-control:{name}")

        self.call(begin()).result(START_SECONDS)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on this thread's loop. From any thread."""
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def asked(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """`call`, awaited from another loop. Raises ControlEnded when a bug has ended this thread."""
        if not self._thread.is_alive() or self.loop is None or self.loop.is_closed():
            coroutine.close()
            raise ControlEnded("the control thread has ended")
        return await asyncio.wrap_future(self.call(coroutine))

    async def stop(self, *names: str) -> None:
        """Cancel these services and wait for their ends; from another loop. Unknown names are fine."""
        with contextlib.suppress(ControlEnded):
            await self.asked(self.stopped(*names))

    async def end(self) -> None:
        """Stop every service and the thread; from another loop."""
        if self._ended is None or self.loop is None or not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self._ended.set)
        await asyncio.to_thread(self._thread.join, 10)

    async def stopped(self, *names: str) -> None:
        """`stop`, from this thread's loop."""
        tasks = [task for name in names if (task := self._services.pop(name, None)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # told to the daemon, which ends with it
            if not self._started.done():
                self._started.set_exception(error)
            else:
                self._on_failure(error)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        async with asyncio.TaskGroup() as self._tasks:
            self._started.set_result(None)
            await self._ended.wait()
            for task in self._services.values():
                task.cancel()


class Pulse:
    """Measures from the control thread how late the work loop is."""

    def __init__(self, work_loop: asyncio.AbstractEventLoop) -> None:
        self._work_loop = work_loop
        self._asked_at: float | None = None
        self._last = 0.0

    @property
    def lag(self) -> float:
        """Seconds by which the work loop is late now."""
        asked = self._asked_at
        return self._last if asked is None else max(time.monotonic() - asked, self._last)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            if self._asked_at is None:
                self._asked_at = time.monotonic()
                self._work_loop.call_soon_threadsafe(self._answer)
            await asyncio.sleep(PULSE_SECONDS)

    def _answer(self) -> None:
        if (asked := self._asked_at) is not None:
            self._last = time.monotonic() - asked
            self._asked_at = None


class LastResort:
    """Ends a process that was told to, when a handler blocks the work loop for good.

    The loop then never learns of the signal; this is told by Python's own signal handler, which runs
    between two instructions of whatever the main thread does.
    """

    def __init__(
        self, pulse: Pulse, *, grace: float, patience: float, end: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """`end` is called when handlers had their `grace` (a second signal cuts it), then `patience` to be
        cancelled, and the loop has not turned for all of the latter."""
        self._pulse = pulse
        self._grace = grace
        self._patience = patience
        self._end = end
        self._due: float | None = None

    def told(self) -> None:
        """SIGTERM or SIGINT came. From a signal handler."""
        now = time.monotonic()
        due = now + self._patience + (self._grace if self._due is None else 0.0)
        self._due = due if self._due is None else min(self._due, due)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            if self._due is not None and time.monotonic() >= self._due and self._pulse.lag >= self._patience:
                await self._end()
