"""Daemons as processes of their own, started as an operator starts them: `jobd run`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

APP = "tests.daemon.handlers:jobs"
ROOT = Path(__file__).parents[2]

# How long to wait for what a process says or does: a busy machine takes seconds to start one.
PATIENCE = 45.0

Line = dict[str, Any]


class DaemonProcess:
    """One `jobd run`, and every line that it logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._more = asyncio.Condition()
        self._reading = asyncio.ensure_future(self._read())
        self.lines: list[Line] = []
        self.pid = process.pid

    @property
    def address(self) -> str:
        """Where it serves HTTP."""
        return str(self._first("started")["address"])

    @property
    def worker(self) -> str:
        """The identity that it started with."""
        return str(self._first("started")["worker"])

    async def logged(self, text: str, *, timeout: float = PATIENCE, times: int = 1) -> Line:
        """Wait until `times` lines have `text` in their message or detail; return the last of them."""
        found: list[Line] = []

        def enough() -> bool:
            found[:] = [line for line in self.lines if text in f"{line['event']} {line.get('detail')}"]
            return len(found) >= times or self._reading.done()

        try:
            async with asyncio.timeout(timeout), self._more:
                await self._more.wait_for(enough)
        except TimeoutError:
            raise AssertionError(f"no {text!r} within {timeout:g} s in:\n{self.output}") from None
        assert len(found) >= times, f"it ended without {text!r}:\n{self.output}"
        return found[times - 1]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        with suppress(ProcessLookupError):
            self._process.kill()

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def died_within(self, seconds: float) -> bool:
        """Wait for its end for so long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    async def ended(self, *, timeout: float = PATIENCE) -> int:
        """Wait for its end; return the exit code."""
        try:
            async with asyncio.timeout(timeout):
                code = await self._process.wait()
                await self._reading
        except TimeoutError:
            raise AssertionError(f"it still runs after {timeout:g} s:\n{self.output}") from None
        return code

    @property
    def output(self) -> str:
        return "\n".join(json.dumps(line) for line in self.lines)

    def _first(self, text: str) -> Line:
        return next(line for line in self.lines if text in line["event"])

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            text = raw.decode(errors="replace").rstrip()
            try:
                line = json.loads(text)
            except ValueError:
                line = {"event": text}
            async with self._more:
                self.lines.append(line if isinstance(line, dict) else {"event": text})
                self._more.notify_all()
        async with self._more:
            self._more.notify_all()


class CrewProcess(DaemonProcess):
    """One `jobd run --processes N`: the supervisor, whose children log into the same stream."""

    @property
    def address(self) -> str:
        """Where the supervisor serves HTTP."""
        return str(self._told("started")[0]["address"])

    @property
    def pids(self) -> dict[int, int]:
        """The children as they were told last, by their places."""
        return {line["process"]: line["pid"] for line in self._told("process started")}

    async def complete(self) -> None:
        """Wait until every place has had a child that works."""
        await self.told("started")

    async def told(self, event: str, *, times: int = 1, timeout: float = PATIENCE) -> Line:
        """Wait until the supervisor itself has logged this event so often; return the last of them."""
        try:
            async with asyncio.timeout(timeout), self._more:
                await self._more.wait_for(lambda: len(self._told(event)) >= times or self._reading.done())
        except TimeoutError:
            raise AssertionError(f"no {event!r} within {timeout:g} s in:\n{self.output}") from None
        assert len(self._told(event)) >= times, f"it ended without {event!r}:\n{self.output}"
        return self._told(event)[times - 1]

    def _told(self, event: str) -> list[Line]:
        return [
            line for line in self.lines if line["event"] == event and line.get("logger") == "jobd.supervisor"
        ]


class Daemons:
    """Starts daemons on one database, and ends those that still run when the test is over."""

    def __init__(self, database_url: str, **settings: str) -> None:
        self.database_url = database_url
        self.settings = settings
        self.started: list[DaemonProcess] = []

    async def start(self, *flags: str, **settings: str) -> DaemonProcess:
        """`jobd run` with these flags and settings; return once it works."""
        daemon = await self.begin(*flags, **settings)
        await daemon.logged("started")
        return daemon

    async def start_crew(self, processes: int, *flags: str, **settings: str) -> CrewProcess:
        """`jobd run --processes`; return once all of them work."""
        crew = await self.begin_crew(processes, *flags, **settings)
        await crew.complete()
        return crew

    async def begin_crew(self, processes: int, *flags: str, **settings: str) -> CrewProcess:
        """`start_crew`, without waiting for anything."""
        crew = CrewProcess(await self._run("--processes", str(processes), *flags, **settings))
        self.started.append(crew)
        return crew

    async def begin(self, *flags: str, **settings: str) -> DaemonProcess:
        """`start`, without waiting for anything."""
        daemon = DaemonProcess(await self._run(*flags, **settings))
        self.started.append(daemon)
        return daemon

    async def _run(self, *flags: str, **settings: str) -> asyncio.subprocess.Process:
        chosen = {
            "database_url": self.database_url,
            "app": APP,
            "lease": "2s",
            "heartbeat": "0.5s",
            "poll_interval": "0.25s",
            "http_port": "0",
            "shutdown_grace": "10s",
            "migrate": "off",
            "notify": os.environ.get("JOBD_NOTIFY", "on"),
            **self.settings,
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBD_")}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "jobd", "run", *flags,
            cwd=ROOT,
            env={**environment, **{f"JOBD_{name.upper()}": value for name, value in chosen.items()}},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=2**20,
        )  # fmt: skip

    async def end(self) -> None:
        for daemon in self.started:
            daemon.kill()
        for daemon in self.started:
            await daemon.ended()


@asynccontextmanager
async def daemons_on(database_url: str, **settings: str) -> AsyncIterator[Daemons]:
    daemons = Daemons(database_url, **settings)
    try:
        yield daemons
    finally:
        await daemons.end()
