"""Makes the roles of the work loop: what claims jobs, runs them and writes how they ended."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from jobd.assembly import Assembly
from jobd.context import JobContext
from jobd.engine.calling import Caller
from jobd.engine.executor import Executor
from jobd.engine.finisher import Finisher
from jobd.engine.governing import Governing
from jobd.engine.holdings import Run
from jobd.engine.judging import Judge
from jobd.engine.prefetch import Prefetch
from jobd.engine.producer import Producer
from jobd.engine.slots import Slots
from jobd.engine.slumber import Slumber
from jobd.events import UnknownKind
from jobd.fleet import Fleet
from jobd.registry import Handler
from jobd.store import Store


class WorkRoles:
    """How each role of the work loop is made."""

    def __init__(self, parts: Assembly) -> None:
        self._parts = parts

    def finisher(self, *, durable: Callable[[], None], returned: Callable[[], None]) -> Finisher:
        parts = self._parts
        return Finisher(
            Store(parts.work_link(), on_key_lost=parts.key_lost),
            holdings=parts.holdings,
            events=parts.events,
            rng=parts.rng,
            terse_queues=parts.terse_queues,
            durable=durable,
            returned=returned,
        )

    def caller(self, resources: Mapping[type, Any]) -> Caller:
        parts, settings = self._parts, self._parts.settings

        def make_context(run: Run, handler: Handler, seconds: float) -> JobContext:
            return JobContext(
                run,
                jobs=parts.jobs,
                pool=parts.jobs.client.pool,
                max_attempts=run.claim.max_attempts or handler.max_attempts or settings.default_max_attempts,
                timeout=seconds,
                max_result=settings.max_result,
                terse=run.claim.queue in parts.terse_queues,
            )

        return Caller(
            make_context=make_context,
            resources=resources,
            middlewares=parts.jobs.registry.middlewares,
            threads=settings.concurrency,
            processes=min(settings.concurrency, 2 * (os.cpu_count() or 1)),
        )

    def executor(self, caller: Caller, finisher: Finisher, *, freed: Callable[[], None]) -> Executor:
        parts, settings = self._parts, self._parts.settings
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
            events=parts.events,
            default_timeout=settings.default_timeout,
            default_max_attempts=settings.default_max_attempts,
            max_result=settings.max_result,
            rng=parts.rng,
        )
        return Executor(
            registry=parts.jobs.registry,
            caller=caller,
            finisher=finisher,
            holdings=parts.holdings,
            slots=slots,
            judge=judge,
            events=parts.events,
            freed=freed,
        )

    def producer(
        self,
        executor: Executor,
        *,
        notified: Callable[[], bool],
        on_idle: Callable[[Store], Awaitable[bool]] | None,
    ) -> Producer:
        parts = self._parts
        link = parts.work_link()
        store = Store(link, on_key_lost=parts.key_lost)
        producer = Producer(
            store,
            slumber=Slumber(
                Fleet(link),
                lease=parts.lease,
                poll_interval=parts.settings.poll_interval,
                notified=lambda: on_idle is None and notified(),
                rng=parts.rng,
            ),
            governing=Governing(
                Fleet(link),
                queues=parts.queues,
                keyed={handler.queue for handler in parts.jobs.registry if handler.keyed},
            ),
            executor=executor,
            registry=parts.jobs.registry,
            lease=parts.lease,
            queues=parts.queues,
            beat=parts.settings.heartbeat,
            events=parts.events,
            rng=parts.rng,
            on_idle=None if on_idle is None else lambda: on_idle(store),
        )
        parts.heard.subscribe(UnknownKind, lambda event: producer.rest_kind(event.kind))
        return producer
