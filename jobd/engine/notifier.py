"""Listens for hints, and is never needed: polling finds everything that a hint would have told.

Keeps a `Listener` up, tells whether it hears anything, and passes on what it hears: a queue that has
work, a job that shall be cancelled, a schedule or a limit that changed. Payloads are untrusted:
anything else is ignored.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from uuid import UUID

from jobd.engine.recovery import Recovery
from jobd.errors import JobdError
from jobd.events import Events, ListenerChanged
from jobd.listener import CANCEL, LIMITS, SCHEDULES, WAKE, Listener

PROBE_INTERVAL = 10.0
PROBE_TIMEOUT = 5.0
# A listener that connects but hears nothing sits behind a pooler, most likely: no use in hurrying.
DEAF_PAUSE = 30.0


class Notifier:
    """Lives on the control thread; its callbacks are called there."""

    def __init__(
        self,
        make_listener: Callable[[Callable[[str, str], None]], Listener],
        *,
        queues: Collection[str],
        on_work: Callable[[], None],
        on_cancel: Callable[[UUID], None],
        on_schedules: Callable[[], None],
        on_limits: Callable[[], None],
        events: Events,
        rng: random.Random,
    ) -> None:
        self._make_listener = make_listener
        self._queues = frozenset(queues)
        self._on_work = on_work
        self._on_cancel = on_cancel
        self._on_schedules = on_schedules
        self._on_limits = on_limits
        self._events = events
        self._rng = rng
        self._recovery = Recovery("notifier", events=events, rng=rng)
        self.up = False

    async def run(self) -> None:
        """Listen until cancelled, through any number of failures."""
        deaf_told = False
        while True:
            try:
                await self._make_listener(self._heard).run(
                    probe_interval=PROBE_INTERVAL, probe_timeout=PROBE_TIMEOUT, up=self._on_up
                )
            except TimeoutError:
                detail = "notifications do not arrive (a pooler in transaction mode?); polling goes on"
                if self.up or not deaf_told:
                    deaf_told = True
                    self._events.emit(ListenerChanged(False, detail))
                pause = DEAF_PAUSE * self._rng.uniform(0.8, 1.2)
            except JobdError as outage:
                if self.up:
                    self._events.emit(ListenerChanged(False, str(outage)))
                pause = self._recovery.failed(outage)
            self.up = False
            await asyncio.sleep(pause)

    def _on_up(self) -> None:
        self.up = True
        self._recovery.succeeded()
        self._events.emit(ListenerChanged(True, "notifications arrive"))
        # Listen first, look after: what was enqueued or changed before we listened must not wait for a poll.
        self._on_work()
        self._on_schedules()
        self._on_limits()

    def _heard(self, channel: str, payload: str) -> None:
        if channel == WAKE and payload in self._queues:
            self._on_work()
        elif channel == CANCEL:
            try:
                job_id = UUID(payload)
            except ValueError:
                return
            self._on_cancel(job_id)
        elif channel == SCHEDULES:
            self._on_schedules()
        elif channel == LIMITS:
            self._on_limits()
