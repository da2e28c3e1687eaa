"""Makes the roles of the control thread: lease, hints, housekeeping, schedules, and what is told of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from jobd import __version__
from jobd.assembly import Assembly
from jobd.condition import DaemonCondition
from jobd.control import Pulse
from jobd.engine.executor import Executor
from jobd.engine.heartbeat import Heartbeat
from jobd.engine.holdings import Run, Stop
from jobd.engine.leader import NAME, Leader
from jobd.engine.maintenance import Maintenance
from jobd.engine.notifier import Notifier
from jobd.engine.scheduler import Scheduler
from jobd.events import LeaderChanged
from jobd.fleet import Fleet, Registration
from jobd.listener import Listener
from jobd.partitions import drop_partition
from jobd.quotas import Quotas
from jobd.reader import Reader
from jobd.store import Store
from jobd.timetable import Timetable

if TYPE_CHECKING:
    from jobd.api.server import HttpServer
    from jobd.metrics import Metrics


class ControlRoles:
    """How each role of the control thread is made."""

    def __init__(self, parts: Assembly) -> None:
        self._parts = parts

    def heartbeat(
        self,
        executor: Executor,
        *,
        stop_run: Callable[[Run, Stop], None],
        stop_all: Callable[[Stop], None],
        on_confirmed: Callable[[], None],
        on_lapse: Callable[[], None],
    ) -> Heartbeat:
        parts = self._parts
        link = parts.control_link()

        undeclared = dict(parts.limits)

        async def declare() -> None:
            # Once, and not again as somebody else: a newer process may have said something else since.
            for owner in list(undeclared):
                await Quotas(link).declare_limits(owner, undeclared[owner])
                del undeclared[owner]

        return Heartbeat(
            Store(link, on_key_lost=parts.key_lost),
            Fleet(link),
            process=Registration(
                worker_id=parts.lease.worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                queues=parts.queues,
                kinds=parts.jobs.registry.kinds(),
                roles=parts.roles,
                concurrency=parts.settings.concurrency,
                keeps=tuple(
                    parts.settings.queues[name].keep if name in parts.settings.queues else "all"
                    for name in parts.queues
                ),
            ),
            declare=declare,
            lease=parts.lease,
            beat=parts.settings.heartbeat,
            holdings=parts.holdings,
            events=parts.events,
            rng=parts.rng,
            stop_run=stop_run,
            stop_all=stop_all,
            handlers_running=lambda: executor.busy + executor.abandoned > 0,
            on_confirmed=on_confirmed,
            on_lapse=on_lapse,
        )

    def notifier(
        self,
        *,
        on_work: Callable[[], None],
        on_cancel: Callable[[UUID], None],
        on_schedules: Callable[[], None],
        on_limits: Callable[[], None],
    ) -> Notifier:
        parts = self._parts
        fleet = Fleet(parts.control_link())

        def make_listener(heard: Callable[[str, str], None]) -> Listener:
            return Listener(parts.database, heard, fleet=fleet)

        return Notifier(
            make_listener,
            queues=parts.queues,
            on_work=on_work,
            on_cancel=on_cancel,
            on_schedules=on_schedules,
            on_limits=on_limits,
            events=parts.events,
            rng=parts.rng,
        )

    def maintenance(self, *, on_staged: Callable[[], None]) -> Maintenance:
        parts = self._parts
        link = parts.control_link()
        return Maintenance(
            Store(link, on_key_lost=parts.key_lost),
            Fleet(link),
            lease=parts.lease,
            crash_limit=parts.settings.crash_limit,
            poll_interval=parts.settings.poll_interval,
            events=parts.events,
            rng=parts.rng,
            on_staged=on_staged,
        )

    def leader(self) -> Leader:
        parts = self._parts
        link = parts.control_link()
        return Leader(
            Store(link),
            Fleet(link),
            Timetable(link),
            lease=parts.lease,
            history_retention=parts.settings.history_retention,
            schedule_history=parts.settings.schedule_history,
            drop_partition=lambda name, detached: drop_partition(parts.database, name, detached=detached),
            events=parts.events,
            rng=parts.rng,
        )

    def scheduler(self, leader: Leader) -> Scheduler:
        parts = self._parts
        link = parts.control_link()
        scheduler = Scheduler(
            Timetable(link),
            declared=parts.declared,
            lead=NAME,
            worker_id=lambda: parts.lease.worker_id,
            term=lambda: leader.term,
            cancel=lambda id: Store(link).cancel(
                id, reason="replaced by the next occurrence of its schedule"
            ),
            events=parts.events,
            rng=parts.rng,
        )
        parts.heard.subscribe(LeaderChanged, lambda _: scheduler.wake())
        return scheduler

    def condition(self, pulse: Pulse, *, stopping: Callable[[], bool]) -> DaemonCondition:
        parts = self._parts
        link = parts.control_link()
        return DaemonCondition(
            fleet=Fleet(link),
            reader=Reader(link),
            # Counting a long backlog takes seconds; whether we are ready must not wait for it.
            counter=Reader(parts.control_link()),
            lease=parts.lease,
            pulse=pulse,
            poll_interval=parts.settings.poll_interval,
            roles=parts.roles,
            queues=parts.queues,
            stopping=stopping,
        )

    def metrics(self) -> Metrics:
        """What is counted from now on."""
        from jobd.metrics import Metrics

        metrics = Metrics(self._parts.heard, version=__version__)
        metrics.declare((handler.queue, handler.kind) for handler in self._parts.jobs.registry)
        return metrics

    def http(self, condition: DaemonCondition, metrics: Metrics) -> HttpServer:
        """The server, with its port taken: a daemon without its probes must not begin to work."""
        from jobd.api.probes import create_app
        from jobd.api.server import HttpServer

        settings = self._parts.settings
        app = create_app(condition, metrics)
        server = HttpServer(app, host=settings.http_host, port=settings.http_port)
        server.bind()
        return server
