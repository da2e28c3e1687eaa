"""What a user's module imports: `Jobs`, the place where handlers are declared and jobs are enqueued."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack
from uuid import UUID

from jobd.client import Client
from jobd.declared import DeclaredSchedules
from jobd.door import Database
from jobd.enqueuer import Kind
from jobd.errors import MISSING, ConfigError, HandlerError
from jobd.events import Events
from jobd.filters import SweepOptions
from jobd.job import Enqueued, Job, JobState
from jobd.options import EnqueueOptions, ManyOptions
from jobd.pool import Pool
from jobd.registry import Registry
from jobd.resources import Resources
from jobd.standing import Explanation

if TYPE_CHECKING:
    from jobd.ids import IdSequence
    from jobd.limits import Kinds, Queues, Tenants, UseCases
    from jobd.schedule_rows import Terms
    from jobd.schedules import Schedules
    from jobd.settings import Settings
    from jobd.sweep import Tally
    from jobd.sync import SyncClient


class Jobs:
    """Handlers, and the way to enqueue. `Jobs()` reads jobd.toml and JOBD_*; keywords override both.

    Settings are read when they are first needed, so that a module with handlers can be imported anywhere.
    """

    def __init__(self, database_url: str | None = None, **overrides: Any) -> None:
        self.overrides = {"database_url": database_url, **overrides}
        # Applications that share a database are told apart by where they make their Jobs.
        self.module = str(sys._getframe(1).f_globals.get("__name__", ""))
        self._settings: Settings | None = None
        self._client: Client | None = None
        self._sync: SyncClient | None = None
        self._sync_lock = threading.Lock()
        self._opened = 0
        self.events = Events()
        self.registry = Registry()
        self.resources = Resources()
        self._declared = DeclaredSchedules(self.registry)
        # What declares, by the names that decorate: each is explained where it is written.
        self.handler = self.registry.handler
        self.middleware = self.registry.middleware
        self.lifespan = self.resources.lifespan
        self.resource = self.resources.resource
        self.cron = self._declared.cron
        self.every = self._declared.every

    @property
    def owner(self) -> str:
        """Whose the schedules of the code are."""
        return f"code:{self.module}"

    @property
    def declared_schedules(self) -> Sequence[Terms]:
        """Those of the code, by `cron` and `every`."""
        return self._declared.owned_by(self.owner)

    def check_handlers(self) -> Mapping[str, HandlerError]:
        """Raise the HandlerError that a daemon's start would, as far as it can be told without a lifespan.

        Returns, by kind, the doubts that remain: errors unless a lifespan yields what a handler asks for.
        """
        doubts = {}
        for handler in self.registry:
            try:
                handler.prepare(self.resources.types)
            except HandlerError as error:
                if self.resources.all_known:
                    raise
                doubts[handler.kind] = error
        return doubts

    # Opening and closing.

    @property
    def settings(self) -> Settings:
        """The settings that hold. Raises ConfigError when one of them is wrong."""
        if self._settings is None:
            from jobd.settings import load_settings

            self._settings = load_settings(**self.overrides)
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Use these settings; for whoever read flags on top of what `Jobs()` would read."""
        self._settings = settings

    async def __aenter__(self) -> Jobs:
        await self.client.pool.open()
        self._opened += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._opened -= 1
        if self._opened == 0:
            await self.close()

    async def close(self) -> None:
        """Close every connection of the client; the next call opens them again."""
        sync, self._sync = self._sync, None
        if sync is not None:
            sync.close()
        client, self._client = self._client, None
        if client is not None:
            await client.pool.close()

    @property
    def client(self) -> Client:
        """What enqueues and asks, on a pool of its own. Raises ConfigError without a database URL."""
        if self._client is None:
            settings = self.settings
            if settings.database_url is None:
                raise ConfigError(
                    "JOBD_DATABASE_URL",
                    MISSING,
                    "say where PostgreSQL is, like postgresql://user:password@host/database, in the "
                    "environment, in jobd.toml or as Jobs(database_url=...)",
                )
            database = Database(settings.database_url, prepared_statements=settings.prepared_statements)
            pool = Pool(database, size=settings.pool_size, call_timeout=settings.call_timeout.total_seconds())
            self._client = Client(
                pool,
                registry=self.registry,
                max_payload=settings.max_payload,
                events=self.events,
                resource_types=self.resources.types,
                delay_tolerances={
                    name: queue.delay_tolerance
                    for name, queue in settings.queues.items()
                    if queue.delay_tolerance is not None
                },
            )
        return self._client

    @property
    def schedules(self) -> Schedules:
        """Schedules at run time: add, get, list, remove, pause, resume, trigger, history."""
        from jobd.schedules import Schedules

        return Schedules(self.client)

    @property
    def queues(self) -> Queues:
        """Limits of queues at run time: set, reset, get, list, drain."""
        from jobd.limits import Queues

        return Queues(self.client)

    @property
    def tenants(self) -> Tenants:
        """Limits of tenants at run time: set, get, list, remove."""
        from jobd.limits import Tenants

        return Tenants(self.client)

    @property
    def kinds(self) -> Kinds:
        """Limits of each concurrency key of a kind at run time: set, get, list."""
        from jobd.limits import Kinds

        return Kinds(self.client)

    @property
    def use_cases(self) -> UseCases:
        """Limits of use cases at run time: set, get, list."""
        from jobd.limits import UseCases

        return UseCases(self.client)

    @property
    def sync(self) -> SyncClient:
        """The same calls for code without a running loop, from any thread."""
        with self._sync_lock:
            if self._sync is None:
                from jobd.sync import SyncClient

                self._sync = SyncClient(self.client)
            return self._sync

    def running(self, **options: Any) -> AbstractAsyncContextManager[Any]:
        """Run the daemon inside this application, for as long as the block lasts.

        Takes `concurrency`, `queues`, `roles` and any setting by name. Leaving the block stops it as
        SIGTERM stops `jobd run`.
        """
        # By name: a daemon knows everybody, so nobody below it imports it.
        hosting = importlib.import_module("jobd.hosting")
        return hosting.running(self, **options)  # type: ignore[no-any-return]

    # Enqueueing and asking: see Client for what each call promises.

    async def enqueue(
        self, kind: Kind, payload: Any = None, *, connection: Any = None, **options: Unpack[EnqueueOptions]
    ) -> Enqueued:
        """Put one job into the queue; see `Client.enqueue`."""
        return await self.client.enqueue(kind, payload, connection=connection, **options)

    async def enqueue_many(
        self,
        kind: Kind,
        payloads: Iterable[Any] | AsyncIterable[Any],
        *,
        connection: Any = None,
        **options: Unpack[ManyOptions],
    ) -> IdSequence:
        """Put one job a payload into the queue, all or none; see `Client.enqueue_many`."""
        return await self.client.enqueue_many(kind, payloads, connection=connection, **options)

    async def get(self, id: UUID | str) -> Job:
        """One job. Raises JobNotFound."""
        return await self.client.get(id)

    async def explain(self, id: UUID | str) -> Explanation:
        """Why a job is where it is: what holds it up, the firmest reason first. Raises JobNotFound."""
        return await self.client.explain(id)

    async def wait(self, id: UUID | str, *, timeout: float | str | timedelta | None = None) -> Job:
        """Wait until a job has ended. Raises WaitTimeout, JobNotFound."""
        return await self.client.wait(id, timeout=timeout)

    async def cancel(self, id: UUID | str, *, reason: str = "") -> JobState:
        """Stop a job: CANCELLED, or RUNNING when its worker was asked to. Raises JobNotFound, WrongState."""
        return await self.client.cancel(id, reason=reason)

    async def retry(self, id: UUID | str) -> JobState:
        """Run a finished job again, as a new generation. Raises JobNotFound, WrongState, UniqueKeyTaken."""
        return await self.client.retry(id)

    async def reschedule(
        self, id: UUID | str, *, run_at: datetime | None = None, priority: int | None = None
    ) -> JobState:
        """Give a waiting job another time or priority. Raises JobNotFound, WrongState."""
        return await self.client.reschedule(id, run_at=run_at, priority=priority)

    async def run_now(self, id: UUID | str) -> JobState:
        """Make a waiting job due now. Raises JobNotFound, WrongState."""
        return await self.client.run_now(id)

    async def list(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        before: UUID | str | None = None,
        count: int = 100,
    ) -> Sequence[Job]:
        """The newest jobs first, `count` at most; `before` is the last id of the page before."""
        return await self.client.list(
            state=state, queue=queue, kind=kind, tenant_id=tenant_id, before=before, count=count
        )

    async def delete(self, id: UUID | str) -> None:
        """Remove a job that does not run. Raises JobNotFound, WrongState."""
        await self.client.delete(id)

    async def move(self, id: UUID | str, queue: str) -> JobState:
        """Put a waiting job into another queue. Raises JobNotFound, WrongState."""
        return await self.client.move(id, queue)

    # Many jobs at once, by filter.

    async def cancel_many(self, *, reason: str = "", **options: Unpack[SweepOptions]) -> Tally:
        """Stop the jobs that the filters mean; see `Client.cancel_many`."""
        return await self.client.cancel_many(reason=reason, **options)

    async def retry_many(self, **options: Unpack[SweepOptions]) -> Tally:
        """Run jobs that have ended again, dead ones unless other states are named."""
        return await self.client.retry_many(**options)

    async def reschedule_many(
        self, *, run_at: datetime | None = None, priority: int | None = None, **options: Unpack[SweepOptions]
    ) -> Tally:
        """Give waiting jobs another time or priority."""
        return await self.client.reschedule_many(run_at=run_at, priority=priority, **options)

    async def move_many(self, *, to: str, **options: Unpack[SweepOptions]) -> Tally:
        """Put waiting jobs into queue `to`."""
        return await self.client.move_many(to=to, **options)

    async def delete_many(self, **options: Unpack[SweepOptions]) -> Tally:
        """Remove jobs that do not run."""
        return await self.client.delete_many(**options)
