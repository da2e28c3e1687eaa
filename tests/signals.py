"""How tests wait: for an event, or until a question has its answer; never for time to pass.

    async with expect(jobs.events, JobFinished, id=job.id) as finished:
        ...what makes it happen...
    assert finished.event.state == "succeeded"

Every wait has a deadline, and says what it saw when it is over.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, overload

from jobd.events import Events

E = TypeVar("E")
T = TypeVar("T")

POLL_SECONDS = 0.02


class Expected(Generic[E]):
    """The events that were seen, those that fit first."""

    def __init__(self) -> None:
        self.events: list[E] = []
        self.others: list[E] = []

    @property
    def event(self) -> E:
        """The first that fits."""
        return self.events[0]


@asynccontextmanager
async def expect(
    events: Events, type_: type[E], /, *, count: int = 1, timeout: float = 10.0, **fields: Any
) -> AsyncIterator[Expected[E]]:
    """At the end of the block, wait until `count` events of this type with these fields were emitted.

    Events from any thread count, from the beginning of the block on.
    """
    seen: Expected[E] = Expected()
    loop = asyncio.get_running_loop()
    enough = asyncio.Event()

    def look(event: E) -> None:
        if any(getattr(event, name) != value for name, value in fields.items()):
            seen.others.append(event)
            return
        seen.events.append(event)
        if len(seen.events) >= count:
            loop.call_soon_threadsafe(enough.set)

    forget = events.subscribe(type_, look)
    try:
        yield seen
        try:
            async with asyncio.timeout(timeout):
                await enough.wait()
        except TimeoutError:
            raise AssertionError(
                f"{len(seen.events)} of {count} {type_.__name__} with {fields} within {timeout:g} s; "
                f"others: {seen.others[-5:]}"
            ) from None
    finally:
        forget()


@overload
async def eventually(
    ask: Callable[[], Awaitable[T]], *, timeout: float = ..., until: Callable[[T], object] = ...
) -> T: ...


@overload
async def eventually(
    ask: Callable[[], T], *, timeout: float = ..., until: Callable[[T], object] = ...
) -> T: ...


async def eventually(
    ask: Callable[[], Any], *, timeout: float = 10.0, until: Callable[[Any], object] = bool
) -> Any:
    """Ask again and again until the answer, awaited or not, is true, or `until` says so; return it."""
    deadline = time.monotonic() + timeout
    while not until(answer := await answered(ask())):
        assert time.monotonic() < deadline, f"not within {timeout:g} s; the last answer was {answer!r}"
        await asyncio.sleep(POLL_SECONDS)
    return answer


async def answered(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer
