"""A server that goes away for a while, under daemons that are used to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobd.embedded import StopMode
from tests.postgres import PostgresServer

DATABASE = "outage"


def prepare(server: PostgresServer) -> str:
    """The URL of a migrated database on a server of one's own."""
    server.execute(f"create database {DATABASE}")
    server.migrate(DATABASE)
    return server.dsn(DATABASE)


@asynccontextmanager
async def outage(
    server: PostgresServer, *, seconds: float, mode: StopMode = "immediate"
) -> AsyncIterator[None]:
    """Stop the server for the block, and for `seconds` at least; it runs again at the end."""
    began = time.monotonic()
    await asyncio.to_thread(server.stop, mode)
    try:
        yield
        await asyncio.sleep(max(began + seconds - time.monotonic(), 0))
    finally:
        await asyncio.to_thread(server.start)
