"""How one process of jobd ends: the roles are taken down in order, each rung within its limit.

    1  stop claiming; what is held and not running is given back; the lead is given up
    2  handlers may end within shutdown_grace; a second SIGTERM cuts it
    3  those that have not are cancelled, their jobs handed back unburned
    4  what has ended is made durable
    5  heartbeat resigns, HTTP closes

Where a handler blocks the work loop for good, `without_loop` does from the control thread what can still
be done, and ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from jobd.assembly import Assembly
from jobd.control import ControlThread
from jobd.engine.calling import Caller
from jobd.engine.executor import Executor
from jobd.engine.finisher import Finisher
from jobd.engine.heartbeat import Heartbeat
from jobd.engine.holdings import Stop
from jobd.engine.leader import Leader
from jobd.engine.producer import Producer
from jobd.errors import JobdError
from jobd.logs import get_logger

FENCED = 70
FLUSH_SECONDS = 15.0
CANCEL_SECONDS = 8.0


class Shutdown:
    """Knows the roles that have to end; used once."""

    def __init__(
        self,
        parts: Assembly,
        control: ControlThread,
        *,
        executor: Executor,
        caller: Caller,
        finisher: Finisher,
        heartbeat: Heartbeat,
        leader: Leader | None,
        freed: asyncio.Event,
        hurried: asyncio.Event,
    ) -> None:
        """`freed` is set when a handler has ended, `hurried` cuts the grace."""
        self._parts = parts
        self._control = control
        self._executor = executor
        self._caller = caller
        self._finisher = finisher
        self._heartbeat = heartbeat
        self._leader = leader
        self._freed = freed
        self._hurried = hurried
        self._threads_ended = True
        self._log = get_logger("jobd.daemon")

    async def take_down(self, producer: Producer | None, claiming: asyncio.Task[None] | None) -> bool:
        """End every role but the finisher's own loop. False when results could not be made durable."""
        executor, control = self._executor, self._control
        grace = self._parts.settings.shutdown_grace.total_seconds()
        durable = True
        if producer is not None:
            producer.stop()
        self._log.info("stopping", running=executor.busy, grace_seconds=grace)
        if claiming is not None:
            await asyncio.wait({claiming}, timeout=5)
            claiming.cancel()
        executor.give_back_held()
        with contextlib.suppress(JobdError, TimeoutError):
            await control.asked(self._heartbeat.stopping())
        await control.stop("notifier", "scheduler", "leader", "maintenance")
        with contextlib.suppress(JobdError, TimeoutError):
            await control.asked(self._abdicated())
        await self._handlers_ended(grace, hurried=self._hurried)
        if executor.busy:
            self._log.warning("stopping handlers that have not ended", running=executor.busy)
            executor.stop_all(Stop.SHUTDOWN)
            await self._handlers_ended(CANCEL_SECONDS)
        executor.leave()
        self._threads_ended = await self._caller.close()
        if not await self._finisher.drained(FLUSH_SECONDS):
            durable = False
            self._log.error("results could not be written before the end", lost=len(self._finisher))
        await control.stop("heartbeat", "watch", "pulse")
        await self._goodbye()
        await control.stop("http", "tether")
        with contextlib.suppress(JobdError):
            await control.asked(self._parts.close_control_links())
        await control.end()
        await self._parts.close_work_links()
        return durable

    @property
    def left_behind(self) -> bool:
        """Whether something runs on: a thread, or a coroutine that swallows its cancellation."""
        return bool(not self._threads_ended or self._executor.abandoned)

    async def _handlers_ended(self, seconds: float, *, hurried: asyncio.Event | None = None) -> None:
        """Wait until no handler runs, for at most `seconds`, or until `hurried`."""

        async def idle() -> None:
            while self._executor.busy:
                self._freed.clear()
                await self._freed.wait()

        waits = {asyncio.ensure_future(idle())}
        if hurried is not None:
            waits.add(asyncio.ensure_future(hurried.wait()))  # type: ignore[arg-type]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _goodbye(self) -> None:
        """Tell the database; without it the lease simply runs out."""

        try:
            await self._control.asked(self._farewell())
        except (JobdError, TimeoutError) as error:
            self._log.warning("could not resign: the lease will run out by itself", detail=str(error))

    # Called on the control thread.

    async def without_loop(self) -> None:
        """The work loop is blocked for good, and the process was told to end: hand all back, and go."""
        running = [str(run.claim.id) for run in self._parts.holdings.runs() if run.active]
        self._log.critical("told to end, but a handler blocks the loop; ending without it", running=running)
        await self._control.stopped("heartbeat", "watch", "notifier", "scheduler", "leader", "maintenance")
        with contextlib.suppress(JobdError, TimeoutError):
            await self._farewell()
        os._exit(FENCED)

    async def _abdicated(self) -> None:
        """Give the lead up: schedules shall not wait until handlers here have ended."""
        async with asyncio.timeout(3):
            if self._leader is not None:
                await self._leader.abdicate()

    async def _farewell(self) -> None:
        async with asyncio.timeout(3):
            # Again: the database may not have answered before.
            await self._abdicated()
            await self._heartbeat.resign()
