"""Calls one handler where it belongs: on the loop, in a thread, or in a process of its own.

Coroutines can be cancelled and processes killed. A thread can only be asked (`ctx.cancelled`): it is
left running when its run ends without it, and whoever counts slots is told when it is done.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jobd.engine.holdings import Context, Run
from jobd.engine.processes import Processes
from jobd.payload import decode_stored
from jobd.registry import Handler, Middleware


class Caller:
    """Turns a claim into a call of its handler."""

    def __init__(
        self,
        *,
        make_context: Callable[[Run, Handler, float], Context],
        resources: Mapping[type, Any],
        middlewares: Sequence[Middleware],
        threads: int,
        processes: int,
    ) -> None:
        self._make_context = make_context
        self._resources = resources
        self._middlewares = middlewares
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="jobd-handler")
        self._processes = Processes(limit=processes)
        self._in_threads: dict[Run, Future[Any]] = {}

    def call(self, run: Run, handler: Handler, *, timeout: float) -> Awaitable[Any]:
        """What to await for the handler's end, with its middleware around it. Raises PayloadError."""
        if self._middlewares or handler.takes_context(self._resources):
            run.context = self._make_context(run, handler, timeout)
        arguments, keywords = handler.bind(run.context, decode_stored(run.claim.payload), self._resources)
        if self._middlewares:
            return self._through(0, run.context, lambda: self._invoke(run, handler, arguments, keywords))
        return self._invoke(run, handler, arguments, keywords)

    async def _through(self, depth: int, context: Any, innermost: Callable[[], Any]) -> Any:
        if depth == len(self._middlewares):
            return await innermost()
        return await self._middlewares[depth](context, lambda: self._through(depth + 1, context, innermost))

    def _invoke(
        self, run: Run, handler: Handler, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Awaitable[Any]:
        match handler.runs_in:
            case "loop":
                return handler.function(*arguments, **keywords)  # type: ignore[no-any-return]
            case "process":
                return self._processes.run(handler.function, arguments, keywords)
            case "thread":
                return self._in_thread(run, handler, arguments, keywords)

    async def _in_thread(
        self, run: Run, handler: Handler, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        inherited = contextvars.copy_context()
        future = self._threads.submit(inherited.run, _plainly, handler.function, arguments, keywords)
        self._in_threads[run] = future
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.done():
                self._in_threads.pop(run, None)

    def in_thread(self, run: Run) -> bool:
        """Whether the handler is in a thread now, where it cannot be stopped."""
        future = self._in_threads.get(run)
        return future is not None and not future.done()

    def still_in_thread(self, run: Run, ended: Callable[[], None]) -> bool:
        """Whether the handler's thread outlives its run; `ended` is called on this loop when it stops."""
        future = self._in_threads.get(run)
        if future is None or future.done():
            self._in_threads.pop(run, None)
            return False
        loop = asyncio.get_running_loop()

        def on_end() -> None:
            self._in_threads.pop(run, None)
            ended()

        def from_thread(_: Future[Any]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(on_end)

        future.add_done_callback(from_thread)
        return True

    def kill(self) -> None:
        """Kill the processes of handlers, from any thread."""
        self._processes.kill()

    async def close(self) -> bool:
        """End idle threads and processes; False when a handler's thread is still running."""
        await self._processes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not any(not future.done() for future in self._in_threads.values())


def _plainly(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    try:
        return function(*arguments, **keywords)
    except StopIteration as stop:
        # As a coroutine would; a future does not take it, and whoever awaits it would wait for ever.
        raise RuntimeError("the handler raised StopIteration") from stop
