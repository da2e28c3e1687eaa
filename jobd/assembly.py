"""Makes the roles of one process from plain settings; `daemon` decides when each runs and ends.

Every role gets a connection of its own, on the loop that it lives on, so that none can wait for
another and no handler can exhaust them.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobd import __version__
from jobd.app import Jobs
from jobd.condition import DaemonCondition
from jobd.context import JobContext
from jobd.control import Pulse
from jobd.door import Database, Link
from jobd.engine.calling import Caller
from jobd.engine.executor import Executor
from jobd.engine.finisher import Finisher
from jobd.engine.governing import Governing
from jobd.engine.heartbeat import Heartbeat
from jobd.engine.holdings import Holdings, Run, Stop
from jobd.engine.judging import Judge
from jobd.engine.leader import NAME, Leader
from jobd.engine.lease import Lease
from jobd.engine.maintenance import Maintenance
from jobd.engine.notifier import Notifier
from jobd.engine.prefetch import Prefetch
from jobd.engine.producer import Producer
from jobd.engine.scheduler import Scheduler
from jobd.engine.slots import Slots
from jobd.engine.slumber import Slumber
from jobd.events import Events, LeaderChanged, UnknownKind
from jobd.fleet import Fleet, Registration
from jobd.listener import Listener
from jobd.partitions import drop_partition
from jobd.reader import Reader
from jobd.registry import Handler
from jobd.served import file_schedules
from jobd.store import Store
from jobd.timetable import Timetable

if TYPE_CHECKING:
    from jobd.api.server import HttpServer
    from jobd.metrics import Metrics
    from jobd.settings import Settings


class Assembly:
    """What the roles of one process share, and how each is made."""

    def __init__(
        self, jobs: Jobs, settings: Settings, *, roles: Sequence[str], queues: Sequence[str]
    ) -> None:
        assert settings.database_url is not None
        self.jobs = jobs
        self.settings = settings
        self.roles = tuple(roles)
        self.queues = tuple(queues)
        self.declared = {
            jobs.owner: jobs.declared_schedules,
            f"file:{jobs.module}": file_schedules(jobs, settings),
        }
        # Subscriptions made here end with the daemon; the application's own stay.
        self.heard = Events()
        self.end_relay = jobs.events.relay(self.heard)
        self.events = jobs.events
        self.database = Database(settings.database_url, prepared_statements=settings.prepared_statements)
        self.lease = Lease(period=settings.lease)
        self.holdings = Holdings()
        self.terse_queues = {name for name, queue in settings.queues.items() if queue.keep != "all"}
        self.rng = random.Random()
        self._work_links: list[Link] = []
        self._control_links: list[Link] = []

    def _work_link(self) -> Link:
        self._work_links.append(Link(self.database))
        return self._work_links[-1]

    def _control_link(self) -> Link:
        self._control_links.append(Link(self.database))
        return self._control_links[-1]

    async def close_work_links(self) -> None:
        """On the work loop, when its roles have ended."""
        for link in self._work_links:
            await link.close()

    async def close_control_links(self) -> None:
        """On the control thread, when its roles have ended."""
        for link in self._control_links:
            await link.close()

    # On the work loop.

    def finisher(self, *, durable: Callable[[], None], returned: Callable[[], None]) -> Finisher:
        return Finisher(
            Store(self._work_link()),
            holdings=self.holdings,
            events=self.events,
            rng=self.rng,
            terse_queues=self.terse_queues,
            durable=durable,
            returned=returned,
        )

    def caller(self, resources: Mapping[type, Any]) -> Caller:
        settings = self.settings

        def make_context(run: Run, handler: Handler, seconds: float) -> JobContext:
            return JobContext(
                run,
                jobs=self.jobs,
                pool=self.jobs.client.pool,
                max_attempts=run.claim.max_attempts or handler.max_attempts or settings.default_max_attempts,
                timeout=seconds,
                max_result=settings.max_result,
                terse=run.claim.queue in self.terse_queues,
            )

        return Caller(
            make_context=make_context,
            resources=resources,
            middlewares=self.jobs.registry.middlewares,
            threads=settings.concurrency,
            processes=min(settings.concurrency, 2 * (os.cpu_count() or 1)),
        )

    def executor(self, caller: Caller, finisher: Finisher, *, freed: Callable[[], None]) -> Executor:
        settings = self.settings
        slots = Slots(
            total=settings.concurrency,
            queue_limits={
                name: queue.concurrency for name, queue in settings.queues.items() if queue.concurrency
            },
            # The last crash but one, so that the one that may end a job has no innocent neighbours. Without a
            # limit a poison job returns for ever: it is set apart from its second crash on.
            suspect_from=max(settings.crash_limit - 1, 1) if settings.crash_limit else 2,
            # With a crash limit of 1 a job that only waits here would die of its neighbour's crash.
            prefetch=Prefetch(most=0) if settings.crash_limit == 1 else Prefetch(),
        )
        judge = Judge(
            events=self.events,
            default_timeout=settings.default_timeout,
            default_max_attempts=settings.default_max_attempts,
            max_result=settings.max_result,
            rng=self.rng,
        )
        return Executor(
            registry=self.jobs.registry,
            caller=caller,
            finisher=finisher,
            holdings=self.holdings,
            slots=slots,
            judge=judge,
            events=self.events,
            freed=freed,
        )

    def producer(
        self,
        executor: Executor,
        *,
        notified: Callable[[], bool],
        on_idle: Callable[[Store], Awaitable[bool]] | None,
    ) -> Producer:
        link = self._work_link()
        store = Store(link)
        producer = Producer(
            store,
            slumber=Slumber(
                Fleet(link),
                lease=self.lease,
                poll_interval=self.settings.poll_interval,
                notified=lambda: on_idle is None and notified(),
                rng=self.rng,
            ),
            governing=Governing(Fleet(link), queues=self.queues),
            executor=executor,
            registry=self.jobs.registry,
            lease=self.lease,
            queues=self.queues,
            beat=self.settings.heartbeat,
            events=self.events,
            rng=self.rng,
            on_idle=None if on_idle is None else lambda: on_idle(store),
        )
        self.heard.subscribe(UnknownKind, lambda event: producer.rest_kind(event.kind))
        return producer

    # On the control thread.

    def heartbeat(
        self,
        executor: Executor,
        *,
        stop_run: Callable[[Run, Stop], None],
        stop_all: Callable[[Stop], None],
        on_confirmed: Callable[[], None],
        on_lapse: Callable[[], None],
    ) -> Heartbeat:
        link = self._control_link()
        return Heartbeat(
            Store(link),
            Fleet(link),
            process=Registration(
                worker_id=self.lease.worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                queues=self.queues,
                kinds=self.jobs.registry.kinds(),
                roles=self.roles,
                concurrency=self.settings.concurrency,
                keeps=tuple(
                    self.settings.queues[name].keep if name in self.settings.queues else "all"
                    for name in self.queues
                ),
                delay_tolerances=tuple(
                    self.settings.queues[name].delay_tolerance if name in self.settings.queues else None
                    for name in self.queues
                ),
            ),
            lease=self.lease,
            beat=self.settings.heartbeat,
            holdings=self.holdings,
            events=self.events,
            rng=self.rng,
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
    ) -> Notifier:
        fleet = Fleet(self._control_link())

        def make_listener(heard: Callable[[str, str], None]) -> Listener:
            return Listener(self.database, heard, fleet=fleet)

        return Notifier(
            make_listener,
            queues=self.queues,
            on_work=on_work,
            on_cancel=on_cancel,
            on_schedules=on_schedules,
            events=self.events,
            rng=self.rng,
        )

    def maintenance(self, *, on_staged: Callable[[], None]) -> Maintenance:
        link = self._control_link()
        return Maintenance(
            Store(link),
            Fleet(link),
            lease=self.lease,
            crash_limit=self.settings.crash_limit,
            poll_interval=self.settings.poll_interval,
            events=self.events,
            rng=self.rng,
            on_staged=on_staged,
        )

    def leader(self) -> Leader:
        link = self._control_link()
        return Leader(
            Store(link),
            Fleet(link),
            Timetable(link),
            lease=self.lease,
            history_retention=self.settings.history_retention,
            schedule_history=self.settings.schedule_history,
            drop_partition=lambda name, detached: drop_partition(self.database, name, detached=detached),
            events=self.events,
            rng=self.rng,
        )

    def scheduler(self, leader: Leader) -> Scheduler:
        link = self._control_link()
        scheduler = Scheduler(
            Timetable(link),
            declared=self.declared,
            lead=NAME,
            worker_id=lambda: self.lease.worker_id,
            term=lambda: leader.term,
            cancel=lambda id: Store(link).cancel(
                id, reason="replaced by the next occurrence of its schedule"
            ),
            events=self.events,
            rng=self.rng,
        )
        self.heard.subscribe(LeaderChanged, lambda _: scheduler.wake())
        return scheduler

    def condition(self, pulse: Pulse, *, stopping: Callable[[], bool]) -> DaemonCondition:
        link = self._control_link()
        return DaemonCondition(
            fleet=Fleet(link),
            reader=Reader(link),
            # Counting a long backlog takes seconds; whether we are ready must not wait for it.
            counter=Reader(self._control_link()),
            lease=self.lease,
            pulse=pulse,
            poll_interval=self.settings.poll_interval,
            roles=self.roles,
            queues=self.queues,
            stopping=stopping,
        )

    def metrics(self) -> Metrics:
        """What is counted from now on."""
        from jobd.metrics import Metrics

        metrics = Metrics(self.heard, version=__version__)
        metrics.declare((handler.queue, handler.kind) for handler in self.jobs.registry)
        return metrics

    def http(self, condition: DaemonCondition, metrics: Metrics) -> HttpServer:
        """The server, with its port taken: a daemon without its probes must not begin to work."""
        from jobd.api.probes import create_app
        from jobd.api.server import HttpServer

        app = create_app(condition, metrics)
        server = HttpServer(app, host=self.settings.http_host, port=self.settings.http_port)
        server.bind()
        return server
