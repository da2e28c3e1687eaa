"""Where handlers that run in processes meet their test, so that it need not sleep to know what they do."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from jobd.engine.processes import Processes

NEVER = 600.0  # a grace that no test waits for


class Visit:
    """A handler that came to the door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int) -> None:
        self._reader = reader
        self._writer = writer
        self.pid = pid

    def release(self, word: str = "go on") -> None:
        self._writer.write(word.encode())

    async def said(self) -> str:
        return (await self._reader.readline()).decode().strip()

    async def over(self) -> None:
        """Until no process has the connection open any more."""
        with suppress(ConnectionResetError):
            await self._reader.read()


class Door:
    """Where handlers in children meet their test."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._visits: asyncio.Queue[Visit] = asyncio.Queue()

    async def visit(self) -> Visit:
        return await self._visits.get()

    @property
    def nobody_waits(self) -> bool:
        return self._visits.empty()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        writers = []

        async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            pid = int((await reader.readline()).split()[0])
            self._visits.put_nowait(Visit(reader, writer, pid))

        server = await asyncio.start_unix_server(arrive, self.path)
        try:
            yield self
        finally:
            server.close()
            for writer in writers:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()


def children() -> list[str]:
    """The processes of handlers that this process has."""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in shown.stdout.splitlines() if "jobd.engine.child" in line]


@asynccontextmanager
async def running(
    processes: Processes, function: Callable[..., Any], *args: Any
) -> AsyncIterator[asyncio.Task[Any]]:
    """A run under way, which is cancelled at the end."""
    task = asyncio.ensure_future(processes.run(function, args, {}))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
