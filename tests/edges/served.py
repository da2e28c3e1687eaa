"""A daemon's condition that a test sets, and an application served on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from jobd.api.server import HttpServer
from jobd.events import Events
from jobd.metrics import Metrics
from jobd.reader import Depth, Stock

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass
class KnownCondition:
    """The other side of `probes.Condition`. `checking` and `counting` run between looking and answering."""

    why_stalled: str | None = None
    why_unready: list[str] = field(default_factory=list)
    queues: list[Depth] | None = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    checking: Callable[[], Awaitable[object]] = anyio.lowlevel.checkpoint
    counting: Callable[[], Awaitable[object]] = anyio.lowlevel.checkpoint
    description: dict[str, Any] = field(default_factory=dict)

    def stalled(self) -> str | None:
        return self.why_stalled

    async def unready(self) -> list[str]:
        reasons = list(self.why_unready)
        await self.checking()
        return reasons

    async def depths(self) -> Stock | None:
        queues = self.queues
        await self.counting()
        return None if queues is None else Stock(queues)

    def gauges(self) -> Mapping[str, float]:
        return self.numbers

    def describe(self) -> Mapping[str, Any]:
        return self.description


def new_metrics(events: Events | None = None) -> Metrics:
    return Metrics(events or Events(), version="1.2.3")


def depth(queue: str = "default", **counts: Any) -> Depth:
    known: dict[str, Any] = {
        "ready": 0,
        "scheduled": 0,
        "running": 0,
        "oldest_ready_seconds": None,
        "paused_at": None,
        "paused_by": None,
    }
    return Depth(queue=queue, **(known | counts))


class Arrivals:
    """Passes requests on to `app` and knows how many have come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._count = 0
        self._more = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._more:
            self._count += 1
            self._more.notify_all()
        await self._app(scope, receive, send)

    async def reach(self, count: int) -> None:
        async with self._more:
            await self._more.wait_for(lambda: self._count >= count)


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[HttpServer]:
    server = HttpServer(app, host="127.0.0.1", port=0)
    server.bind()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.run())
        try:
            yield server
        finally:
            serving.cancel()
    server.close()  # a task that is cancelled before its first step never ran


@asynccontextmanager
async def client_of(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    async with served(app) as server, httpx.AsyncClient(base_url=server.address) as client:
        yield client
