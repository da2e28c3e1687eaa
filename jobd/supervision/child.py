"""One child as its supervisor sees it: a process, a tether, and what it has said so far."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from jobd.supervision.handover import tether_name

LONGEST_LINE: Final = 2**26


class Unanswered(Exception):
    """A child did not answer in time, or has ended."""


class Child:
    """A process that was started; `run` has to run until its end."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        tether: socket.socket,
        *,
        told: Callable[[Child, Mapping[str, Any]], None],
    ) -> None:
        """`told` is called with everything it says that is no answer."""
        self.pid = process.pid
        self.born_at = time.monotonic()
        self.here = False
        """It hears signals."""
        self.started = False
        self.said_last = False
        """What it answered before is older than what it has told since."""
        self.retired_at: float | None = None
        """When it alone was told to end."""
        self.missed = 0
        """How many questions in a row it left unanswered."""
        self.killed_at: float | None = None
        self.about: Mapping[str, Any] = {}
        self._process = process
        self._tether = tether
        self._told = told
        self._writer: asyncio.StreamWriter | None = None
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}

    @classmethod
    async def start(
        cls,
        number: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        told: Callable[[Child, Mapping[str, Any]], None],
    ) -> Child:
        """Start a child for place `number`. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, **environment, **tether_name(number, theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                    # A Ctrl-C at the terminal is for the supervisor, which passes it on once.
                    process_group=0,
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, ours, told=told)

    async def run(self) -> int:
        """Listen to it until it ends; return its exit code, negative for a signal."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._tether, limit=LONGEST_LINE)
        reading = asyncio.ensure_future(self._read(reader))
        try:
            code = await self._process.wait()
            # What it said last is still to be read. A program that it left behind may hold the other
            # end, so the end of the line is not waited for long.
            await asyncio.wait({reading}, timeout=1)
            return code
        finally:
            reading.cancel()
            self._writer.close()
            for waiting in self._asked.values():
                waiting.cancel()

    async def ask(self, what: str, *, seconds: float, **more: Any) -> Any:
        """Its answer. Raises Unanswered."""
        if self._writer is None or self._writer.is_closing():
            raise Unanswered
        id = next(self._ids)
        answer = self._asked[id] = asyncio.get_running_loop().create_future()
        self._write({"ask": what, "id": id, **more})
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({answer})
        except TimeoutError:
            raise Unanswered from None
        finally:
            del self._asked[id]
        if answer.cancelled():
            raise Unanswered
        return answer.result()

    def stop(self, level: int) -> None:
        """Tell it to end: once, or twice."""
        if self._writer is not None and not self._writer.is_closing():
            self._write({"stop": level})
        if not self.here:  # it is still importing, and may be long about it
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        if self.killed_at is None:
            self.killed_at = time.monotonic()
        self._signal(signal.SIGKILL)

    @property
    def lived(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.born_at

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._writer is not None
        # Never awaited until it is drained: these are short, and a child that reads none of them is replaced.
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: not a whole line, or one without end
            while line := await reader.readline():
                message = json.loads(line)
                if "answer" in message:
                    waiting = self._asked.get(message["id"])
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message["answer"])
                    continue
                match message["say"]:
                    case "here":
                        self.here = True
                    case "started":
                        self.started = True
                        self.about = message["about"]
                    case "ended":
                        self.said_last = True
                self._told(self, message)
