"""How an application's jobs come into the queue: what is asked is checked, filled in and sent.

It works through any door: the application's pool, or a connection of the caller's own (`connections`).
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Self, Unpack
from uuid import UUID

from jobd.binding import dumped
from jobd.bulk import Bulk
from jobd.doors import BorrowedDoor, Door, OwnDoor, PoolDoor, caller_door
from jobd.entry import Entry
from jobd.errors import ConfigError, HandlerError, TenantFull
from jobd.events import Events, JobEnqueued, JobsTurnedAway
from jobd.ids import IdSequence, uuid7
from jobd.job import Enqueued, NewJob
from jobd.keyed import Keyed
from jobd.options import EnqueueOptions, ManyOptions, job_id, key_of_job, known_options, new_job
from jobd.payload import encode_payload
from jobd.pool import Pool
from jobd.portions import Portions
from jobd.registry import Handler, Registry, check_name

Kind = str | Callable[..., Any] | Handler

NOBODY = UUID(int=0)


class Enqueuer:
    """What brings jobs in, by the handlers that are known here and the application's settings.

    `resource_types` are those that handlers get injected, as far as they are known. `delay_tolerances`, by
    queue, are those of jobs that say none.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        registry: Registry,
        events: Events,
        max_payload: int = 262_144,
        resource_types: Collection[type] = (),
        delay_tolerances: Mapping[str, timedelta] = MappingProxyType({}),
    ) -> None:
        self.pool = pool
        self._door: OwnDoor = PoolDoor(pool)
        self._registry = registry
        self._events = events
        self.max_payload = max_payload
        self._resource_types = resource_types
        self._delay_tolerances = delay_tolerances

    def through(self, door: OwnDoor) -> Self:
        """This one behind another door."""
        other = copy.copy(self)
        other._door = door
        return other

    @property
    def door(self) -> OwnDoor:
        """Its own way in."""
        return self._door

    @property
    def delay_tolerances(self) -> Mapping[str, timedelta]:
        """By queue, those of jobs that say none."""
        return self._delay_tolerances

    async def enqueue(
        self, kind: Kind, payload: Any = None, *, connection: Any = None, **options: Unpack[EnqueueOptions]
    ) -> Enqueued:
        """Put one job into the queue; `kind` may be the handler's function. No payload is `{}`.

        On the caller's `connection` the job is visible to workers once the caller commits, and never
        if they roll back; without an open transaction, at once. What jobd refuses (ConfigError, HandlerError,
        PayloadError) it refuses before a statement is sent. IdTaken, possible with `id` only, and
        UniqueKeyTaken, with `on_conflict="reject"` only, leave the transaction usable, and so does
        TenantFull, but with a unique key; after any other error there, their driver's own or CallTimeout, the
        caller has to roll back.
        """
        known_options("enqueue", options, EnqueueOptions)
        name, handler = self.handler_of(kind)
        given = options.pop("id", None)
        content = self.checked(handler, payload)
        job = new_job(
            name,
            id=uuid7() if given is None else job_id(given),
            payload=encode_payload(content, max_bytes=self.max_payload),
            **self._defaults(handler, options),
        )
        if job.concurrency_key is None and handler is not None and handler.concurrency_key is not None:
            job = job._replace(
                concurrency_key=handler.concurrency_key.rendered(content, job.queue, job.tenant_id)
            )
        door = self.door_to(connection)
        plain = given is None and job.unique_key is None
        with self._told(job):
            if plain and job.tenant_id is None:
                await Entry(door).enqueue_new(job)
                enqueued = Enqueued(job.id, True)
            elif plain and await Entry(door).enqueue_of_tenant(job):
                enqueued = Enqueued(job.id, True)
            elif connection is not None and (plain or given is not None or job.on_conflict == "reject"):
                # A refusal would abort the caller's transaction, and whose key is rejected shall not be
                # locked by it; a savepoint costs two round trips.
                async with door.all_or_nothing() as unit:
                    enqueued = await Entry(unit).enqueue(job)
            else:
                enqueued = await Entry(door).enqueue(job)
        self._tell(job, created=int(enqueued.created), shed=int(enqueued.shed))
        return enqueued

    async def enqueue_many(
        self,
        kind: Kind,
        payloads: Iterable[Any] | AsyncIterable[Any],
        *,
        connection: Any = None,
        **options: Unpack[ManyOptions],
    ) -> IdSequence:
        """Put one job a payload into the queue, all or nothing; the ids come in the payloads' order.

        Payloads are taken as they are sent, some thousand at a time, so a generator of millions needs little
        memory; the database may take `call_timeout` for each portion, and the payloads as long as they
        like. On the caller's `connection` they stand in a savepoint: where one is refused, the transaction
        is as it was. With `unique_key`, a function of the payload, all are gathered first, and the id of an
        existing job may stand for a new one. A lost answer to the last step, the COMMIT, leaves unknown
        whether the jobs are there. The answer's `shed` says how many were shed, for lack of room. Raises
        TenantFull where not all of them may wait.
        """
        known_options("enqueue_many", options, ManyOptions)
        key_of = options.pop("unique_key", None)
        if key_of is not None and not callable(key_of):
            raise ConfigError(
                "unique_key",
                key_of,
                "must be a function here, from a payload to the key of its job, or to None",
            )
        name, handler = self.handler_of(kind)
        job = new_job(
            name,
            id=NOBODY,
            payload="",
            unique_key=key_of and "each its own",
            **self._defaults(handler, options),
        )
        template = handler.concurrency_key if handler is not None and job.concurrency_key is None else None
        # Taken from the left as they are sent, or, where all are gathered first, from anywhere.
        taken, gathered = deque[str](), list[str]()
        limit_keys = taken if key_of is None else gathered

        def encoded(payload: Any) -> str:
            plain = self.checked(handler, payload)
            text = encode_payload(plain, max_bytes=self.max_payload)
            if template is not None:
                limit_keys.append(template.rendered(plain, job.queue, job.tenant_id))
            return text

        with self._told(job):
            if key_of is None:
                bulk = Bulk(job, Portions(payloads, encoded), None if template is None else taken)
                ids = await bulk.enqueue(self.door_to(connection))
                created = len(ids)
            else:
                keys: list[str | None] = []

                def encoded_with_key(payload: Any) -> str:
                    keys.append(key_of_job("unique_key", key_of(payload)))
                    return encoded(payload)

                keyed = Keyed(
                    job, Portions(payloads, encoded_with_key), keys, None if template is None else gathered
                )
                ids = await keyed.enqueue(self.door_to(connection))
                created = keyed.created
        self._tell(job, created=created, shed=ids.shed)
        return ids

    def handler_of(self, kind: Kind) -> tuple[str, Handler | None]:
        if isinstance(kind, str):
            handler = self._registry.get(kind)
            return (check_name("kind", kind) if handler is None else kind), handler
        handler = kind if isinstance(kind, Handler) else self._registry.of(kind)
        if handler is None:
            name = getattr(kind, "__qualname__", repr(kind)[:100])
            raise HandlerError(
                f"{name} is no handler of these jobs: declare it with @jobs.handler, or enqueue by kind"
            )
        return handler.kind, handler

    def _tell(self, job: NewJob, *, created: int, shed: int) -> None:
        if created > shed:
            self._events.emit(JobEnqueued(job.kind, job.queue, created - shed))
        if shed:
            self._events.emit(JobsTurnedAway(job.kind, job.queue, "shed", shed))

    @contextmanager
    def _told(self, job: NewJob) -> Iterator[None]:
        """A block that enqueues jobs like this one: where it is refused, that is told."""
        try:
            yield
        except TenantFull as full:
            self._events.emit(JobsTurnedAway(job.kind, job.queue, "refused", full.surplus))
            raise

    def _defaults(self, handler: Handler | None, options: Any) -> dict[str, Any]:
        """The options, with what they leave to the handler and to the client."""
        if options.get("queue") is None:
            options["queue"] = handler.queue if handler else "default"
        if options.get("delay_tolerance") is None and self._delay_tolerances:
            options["delay_tolerance"] = self._delay_tolerances.get(options["queue"])
        options["max_bytes"] = self.max_payload
        return options  # type: ignore[no-any-return]

    def door_to(self, connection: Any) -> Door:
        if connection is None:
            return self._door
        if isinstance(connection, BorrowedDoor):  # `sync` made it of a blocking connection.
            return connection
        return caller_door(connection, blocking=False, limit=self.pool.call_timeout)

    def encoded(self, handler: Handler | None, payload: Any) -> str:
        return encode_payload(self.checked(handler, payload), max_bytes=self.max_payload)

    def checked(self, handler: Handler | None, payload: Any) -> Any:
        """The payload as an object of JSON, once its handler, if it is known here, would take it."""
        if payload is None:
            payload = {}
        if handler is not None:
            handler.check(payload, self._resource_types)
        return dumped(payload)
