"""LISTEN on a connection of its own, and a way to find out that it silently died.

A pooler in transaction mode accepts LISTEN and delivers nothing; a cut network delivers nothing
either and says nothing. So it has itself notified now and then, and waits for the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable

from jobd.door import Database
from jobd.errors import DatabaseUnavailable
from jobd.fleet import Fleet
from jobd.sqlstate import translated

WAKE = "jobd_wake"
CANCEL = "jobd_cancel"
SCHEDULES = "jobd_schedules"
LIMITS = "jobd_limits"


class Listener:
    """One connection that listens. Made anew after every failure."""

    def __init__(self, database: Database, heard: Callable[[str, str], None], *, fleet: Fleet) -> None:
        """`heard(channel, payload)` is called on the listener's loop.

        `fleet` is on another connection: behind a pooler a session hears itself, and nobody else.
        """
        self._database = database
        self._heard = heard
        self._fleet = fleet
        self._echo = f"jobd_echo_{uuid.uuid4().hex}"
        self._answered = asyncio.Event()
        self._gone = asyncio.Event()

    async def run(self, *, probe_interval: float, probe_timeout: float, up: Callable[[], None]) -> None:
        """Listen until something fails; raises DatabaseUnavailable then, TimeoutError when it is deaf.

        `up` is called once notifications are proven to arrive.
        """
        with translated:
            connection = await self._database.connect()
        try:
            connection.add_termination_listener(lambda _: self._gone.set())
            with translated:
                for channel in (WAKE, CANCEL, SCHEDULES, LIMITS, self._echo):
                    await connection.add_listener(channel, self._on_notification)
            first = True
            while not self._gone.is_set():
                self._answered.clear()
                await self._fleet.notify(self._echo)
                async with asyncio.timeout(probe_timeout):
                    await self._answered.wait()
                if first:
                    up()
                    first = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(probe_interval):
                        await self._gone.wait()
            raise DatabaseUnavailable("the connection that listens was closed")
        finally:
            connection.terminate()

    def _on_notification(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        if channel == self._echo:
            self._answered.set()
        else:
            self._heard(channel, str(payload))
