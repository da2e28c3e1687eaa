"""The composition root: puts the roles of one process together, and runs them until told to end.

    start      migrate, resources, HTTP bound, heartbeat registered, then the rest
    SIGTERM    the ladder of `shutdown`, from no claim to the last word
    exit       0 nothing was lost from memory; 1 something was; 70 a handler could not be stopped: the lease
               ran out under it, or it blocked the loop for good

With `assembly` and the two files that make the roles, the place that knows everybody; `hosting` runs it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobd import schema
from jobd.app import Jobs
from jobd.assembly import Assembly
from jobd.control import ControlThread, LastResort, Pulse
from jobd.control_roles import ControlRoles
from jobd.engine.calling import Caller
from jobd.engine.executor import Executor
from jobd.engine.heartbeat import Heartbeat
from jobd.engine.holdings import Run, Stop
from jobd.engine.notifier import Notifier
from jobd.engine.producer import Producer
from jobd.errors import ConfigError
from jobd.events import JobsRescued
from jobd.joblog import JobLog
from jobd.logs import get_logger
from jobd.served import add_built_in_handlers, served_queues
from jobd.shutdown import CANCEL_SECONDS, FENCED, Shutdown
from jobd.store import Store
from jobd.work_roles import WorkRoles

if TYPE_CHECKING:
    from jobd.api.server import HttpServer
    from jobd.settings import Settings
    from jobd.supervision.tether import Tether

ROLES = ("worker", "scheduler", "http")
STAGE_BATCH = 1000


class Daemon:
    """One process's worth of jobd on the running loop."""

    def __init__(
        self,
        jobs: Jobs,
        settings: Settings,
        *,
        roles: Collection[str] = ROLES,
        queues: Sequence[str] = (),
        until_idle: bool = False,
        standalone: bool = False,
        tether: Tether | None = None,
    ) -> None:
        """`standalone`: the process is ours, and may be ended at once when it must be.

        With a `tether` the supervisor at its other end owns the port, and asks for what is shown there.
        """
        if unknown := set(roles) - set(ROLES):
            raise ConfigError("roles", sorted(unknown), f"choose from {', '.join(ROLES)}")
        if settings.database_url is None:
            raise ConfigError(
                "JOBD_DATABASE_URL", None, "a daemon needs a database: postgresql://user@host/database"
            )
        add_built_in_handlers(jobs, settings)
        self.jobs = jobs
        self.settings = settings
        self.roles = tuple(role for role in ROLES if role in roles)
        self.queues = served_queues(jobs, settings, queues)
        self.until_idle = until_idle
        self.standalone = standalone
        self.tether = tether
        self.log = get_logger("jobd.daemon")
        self.exit_code = 0
        self.http: HttpServer | None = None
        self.ready = asyncio.Event()
        self._parts = Assembly(jobs, settings, roles=self.roles, queues=self.queues)
        self._work_roles, self._control_roles = WorkRoles(self._parts), ControlRoles(self._parts)
        self._control = ControlThread(self._control_failed)
        self._producer: Producer | None = None
        self._notifier: Notifier | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._freed = asyncio.Event()
        self._last_resort: LastResort | None = None
        self._loop = asyncio.get_running_loop()
        self._parts.heard.subscribe(JobsRescued, lambda _: self._on_rescue())
        JobLog(self._parts.heard, self.log, level=logging.getLevelNamesMapping()[settings.log_level.upper()])

    def stop(self) -> None:
        """Begin to end, as SIGTERM does; called again, cut the grace. From the work loop."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def told_to_stop(self) -> None:
        """A signal came. Called by Python's signal handler, which a blocked loop does not delay."""
        if self._last_resort is not None:
            self._last_resort.told()

    def tell_failure(self, work: asyncio.Future[int]) -> None:
        """The end of `run` inside another application, which may look at it much later."""
        if not work.cancelled() and (error := work.exception()) is not None:
            self.log.critical("the daemon in this application has ended: no jobs run", error=repr(error))

    async def run(self) -> int:
        """Work until stopped; return the exit code."""
        async with AsyncExitStack() as stack:
            stack.callback(self._parts.end_relay)
            if not await schema.prepared(self._parts.database, self.settings, stop=self._stop):
                return self.exit_code
            resources = await stack.enter_async_context(self.jobs.resources.opened())
            self.jobs.registry.prepare(resources.keys())
            await stack.enter_async_context(self.jobs)
            # Also after a bug: no lease may be kept for work that nobody does any more.
            stack.push_async_callback(self._control.end)
            await self._work(resources)
        return self.exit_code

    async def _work(self, resources: Mapping[type, Any]) -> None:
        control = self._control
        pulse = Pulse(self._loop)
        condition = self._control_roles.condition(pulse, stopping=self._stop.is_set)
        metrics = self._control_roles.metrics() if "http" in self.roles else None
        if metrics is not None and self.tether is None:
            self.http = self._control_roles.http(condition, metrics)
        async with AsyncExitStack() as stopping, asyncio.TaskGroup() as tasks:
            finisher = self._work_roles.finisher(durable=self._durable, returned=self._returned)
            writing = tasks.create_task(finisher.run(), name="jobd:finisher")
            caller = self._work_roles.caller(resources)
            executor = self._work_roles.executor(caller, finisher, freed=self._slot_freed)
            stopping.callback(executor.stop_all, Stop.SHUTDOWN)
            heartbeat = self._heartbeat(executor, caller)
            leader = self._control_roles.leader() if "scheduler" in self.roles else None
            claiming = scheduler = None
            shutdown = Shutdown(
                self._parts,
                control,
                executor=executor,
                caller=caller,
                finisher=finisher,
                heartbeat=heartbeat,
                leader=leader,
                freed=self._freed,
                hurried=self._hurry,
            )
            control.start()
            control.spawn("pulse", pulse.run)
            control.spawn("heartbeat", heartbeat.run)
            control.spawn("watch", heartbeat.watch)
            if self.standalone:
                self._last_resort = LastResort(
                    pulse,
                    grace=self.settings.shutdown_grace.total_seconds(),
                    patience=CANCEL_SECONDS,
                    end=shutdown.without_loop,
                )
                control.spawn("last resort", self._last_resort.run)
            works = "worker" in self.roles or "scheduler" in self.roles
            if works:
                control.spawn("maintenance", self._control_roles.maintenance(on_staged=self._on_work).run)
            if leader is not None:
                scheduler = self._control_roles.scheduler(leader)
                control.spawn("leader", leader.run)
                control.spawn("scheduler", scheduler.run)
            if "worker" in self.roles:
                claiming = self._start_claiming(tasks, executor)
                condition.show(executor, self._producer, slots=self.settings.concurrency)
            if works and self.settings.notify and not self.until_idle:
                self._notifier = self._control_roles.notifier(
                    on_work=self._on_work,
                    on_cancel=lambda job_id: self._on_cancel(heartbeat, job_id),
                    on_schedules=scheduler.wake if scheduler is not None else lambda: None,
                    on_limits=self._on_limits,
                )
                control.spawn("notifier", self._notifier.run)
            condition.notifier, condition.leader, condition.scheduler = self._notifier, leader, scheduler
            if self.http is not None:
                control.spawn("http", self.http.run)
            self.log.info(
                "started",
                worker=str(self._parts.lease.worker_id),
                roles=self.roles,
                queues=self.queues,
                kinds=self.jobs.registry.kinds(),
                concurrency=self.settings.concurrency,
                address=self.http.address if self.http else None,
            )
            if self.tether is not None:
                control.spawn("tether", partial(self.tether.serve, condition, metrics))
            if self.standalone:
                _calm_the_collector()
            self.ready.set()
            await self._stop.wait()
            if not await shutdown.take_down(self._producer, claiming):
                self.exit_code = 1
            self.log.info("stopped", exit_code=self.exit_code)
            if self.standalone and shutdown.left_behind:
                # A thread cannot be stopped; a coroutine that swallows its cancellation would hold the loop.
                os._exit(self.exit_code)
            writing.cancel()

    def _start_claiming(self, tasks: asyncio.TaskGroup, executor: Executor) -> asyncio.Task[None]:
        self._producer = self._work_roles.producer(
            executor,
            notified=lambda: self._notifier is not None and self._notifier.up,
            on_idle=self._nothing_left if self.until_idle else None,
        )
        claiming = tasks.create_task(self._producer.run(), name="jobd:producer")
        if self.until_idle:
            claiming.add_done_callback(lambda _: self.stop())
        return claiming

    def _heartbeat(self, executor: Executor, caller: Caller) -> Heartbeat:
        # These are called on the control thread and take effect on the work loop.
        def stop_all(why: Stop) -> None:
            self._loop.call_soon_threadsafe(executor.stop_all, why)
            caller.kill()

        def stop_run(run: Run, why: Stop) -> None:
            self._loop.call_soon_threadsafe(executor.stop, run, why)

        return self._control_roles.heartbeat(
            executor,
            stop_run=stop_run,
            stop_all=stop_all,
            on_confirmed=self._on_work,
            on_lapse=self._on_lapse,
        )

    # Called on the control thread.

    def _on_work(self) -> None:
        if self._producer is not None:
            self._loop.call_soon_threadsafe(self._producer.wake)

    def _on_limits(self) -> None:
        if self._producer is not None:
            self._loop.call_soon_threadsafe(self._producer.limits_changed)

    def _on_rescue(self) -> None:
        if self._producer is not None:
            self._loop.call_soon_threadsafe(self._producer.look_for_victims)

    def _on_cancel(self, heartbeat: Heartbeat, job_id: UUID) -> None:
        # Anybody who may connect can notify: whether a cancel was asked for, the beat reads in the row.
        if self._parts.holdings.get(job_id) is not None:
            heartbeat.hurry()

    def _on_lapse(self) -> None:
        running = [str(run.claim.id) for run in self._parts.holdings.runs() if run.active]
        self.log.critical(
            "the lease ran out while a handler could not be stopped; another worker may run its job now",
            running=running,
        )
        if self.standalone:
            os._exit(FENCED)

    def _control_failed(self, error: BaseException) -> None:
        self.log.critical("a service of the daemon failed; ending", error=repr(error), exc_info=error)
        self.exit_code = 1
        self._loop.call_soon_threadsafe(self._hurry.set)
        self._loop.call_soon_threadsafe(self._stop.set)

    # Called on the work loop.

    def _slot_freed(self) -> None:
        if self._producer is not None:
            self._producer.slot_freed()
        self._freed.set()

    def _durable(self) -> None:
        if self.until_idle and self._producer is not None:
            self._producer.wake()

    def _returned(self) -> None:
        # No slot was free for them. Whoever sleeps was not told of our own, and the next slot shall have one.
        if self._producer is not None:
            self._producer.wake()

    async def _nothing_left(self, store: Store) -> bool:
        """For `until_idle`: nothing is held, and nothing is due."""
        if len(self._parts.holdings) or not self._parts.lease.valid:
            return False
        staged = await store.stage(batch=STAGE_BATCH)
        if staged and self._producer is not None:
            self._producer.wake()
        return not staged


def _calm_the_collector() -> None:
    """Let the garbage collector look at what jobs leave, seldom, and not at what the start has built."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
