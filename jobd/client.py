"""What an application does with jobs: enqueue them, look at them, wait for them, change their course.

Checks and fills in what is asked, and leaves moves to the store and questions to the reader. It works
through any door: the application's pool, or a connection of the caller's own (`connections`). No
method waits for anything but its door, so `sync` can offer all of them to callers without a loop.
"""

from __future__ import annotations

import copy
import random
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Unpack
from uuid import UUID

from jobd.acts import Act, cancelling, deleting, moving, rescheduling, retrying
from jobd.binding import dumped
from jobd.bulk import Bulk
from jobd.doors import BorrowedDoor, Door, OwnDoor, PoolDoor, caller_door
from jobd.duration import parse_duration
from jobd.errors import CallTimeout, ConfigError, DatabaseUnavailable, HandlerError, TenantFull, WaitTimeout
from jobd.events import Events, JobEnqueued, JobsTurnedAway
from jobd.filters import SweepOptions, members, select, sweep_options
from jobd.ids import IdSequence, uuid7
from jobd.job import Enqueued, Job, JobState, NewJob
from jobd.keyed import Keyed
from jobd.options import (
    Duration,
    EnqueueOptions,
    JobId,
    ManyOptions,
    instant,
    integer,
    job_id,
    key_of_job,
    known_options,
    new_job,
)
from jobd.payload import encode_payload, storable_text
from jobd.pool import Pool
from jobd.portions import Portions
from jobd.reader import Reader
from jobd.registry import Handler, Registry, check_name
from jobd.standing import Explanation
from jobd.store import Store
from jobd.sweep import Sweep, Tally

Kind = str | Callable[..., Any] | Handler

NOBODY = UUID(int=0)
FIRST_PAUSE, LONGEST_PAUSE = 0.020, 0.500


class Client:
    """Jobs, as the application sees them. Safe to use from several tasks.

    Every call ends within the pool's `call_timeout` or raises CallTimeout, and raises
    DatabaseUnavailable when there is no database to talk to; whether it took effect is then unknown.
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
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.pool = pool
        self._door: OwnDoor = PoolDoor(pool)
        self._registry = registry
        self._events = events
        self.max_payload = max_payload
        self._resource_types = resource_types
        self._delay_tolerances = delay_tolerances
        self._clock = clock
        self._rng = rng or random.Random()

    def through(self, door: OwnDoor) -> Client:
        """The same client behind another door."""
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
                await Store(door).enqueue_new(job)
                enqueued = Enqueued(job.id, True)
            elif plain and await Store(door).enqueue_of_tenant(job):
                enqueued = Enqueued(job.id, True)
            elif (plain or given is not None) and connection is not None:
                # A refusal would abort the caller's transaction; a savepoint costs two round trips.
                async with door.all_or_nothing() as unit:
                    enqueued = await Store(unit).enqueue(job)
            else:
                enqueued = await Store(door).enqueue(job)
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

    async def get(self, id: JobId) -> Job:
        """The job as it is now. Raises JobNotFound."""
        return await Reader(self._door).get(job_id(id))

    async def explain(self, id: JobId) -> Explanation:
        """Why the job is where it is, the firmest reason first. Raises JobNotFound."""
        return await Reader(self._door).explain(job_id(id))

    async def wait(self, id: JobId, *, timeout: Duration | None = None) -> Job:
        """The job once it has ended: succeeded, cancelled or dead.

        Without a timeout, however long that takes; an outage of the database is waited out, wrong
        credentials are not. Raises WaitTimeout, JobNotFound.
        """
        id = job_id(id)
        seconds = None if timeout is None else parse_duration(timeout, setting="timeout").total_seconds()
        end = None if seconds is None else self._clock() + seconds
        reader, state, pause = Reader(self._door), "in an unknown state", FIRST_PAUSE
        while True:
            try:
                state = await reader.state_of(id)
                if JobState(state).finished:
                    job = await reader.get(id)
                    if job.state.finished:  # Nobody has retried it since.
                        return job
            except CallTimeout:
                pass
            except DatabaseUnavailable as outage:
                if outage.permanent:
                    raise
            left = LONGEST_PAUSE if end is None else end - self._clock()
            if seconds is not None and left <= 0:
                raise WaitTimeout(id, seconds, state)
            await self._door.sleep(min(pause * self._rng.uniform(0.5, 1.0), left))
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def cancel(self, id: JobId, reason: str = "") -> JobState:
        """Stop a job: CANCELLED, or RUNNING while its worker is asked to. Raises JobNotFound, WrongState."""
        return await Store(self._door).cancel(job_id(id), reason=_reason(reason))

    async def retry(self, id: JobId) -> JobState:
        """Put a job that has ended back to `ready`, with all its attempts. Raises also UniqueKeyTaken."""
        await Store(self._door).retry(job_id(id))
        return JobState.READY

    async def reschedule(
        self, id: JobId, *, run_at: datetime | None = None, priority: int | None = None
    ) -> JobState:
        """Give a waiting job another time, priority, or both. Raises JobNotFound, WrongState."""
        run_at, priority = _changes(run_at, priority)
        return await Store(self._door).reschedule(job_id(id), run_at=run_at, priority=priority)

    async def run_now(self, id: JobId) -> JobState:
        """Make a waiting job ready, whatever time it was given. Raises JobNotFound, WrongState."""
        # Judged by the same clock that names the time: a database behind it would have the job wait.
        now = datetime.now(UTC)
        return await Store(self._door).reschedule(job_id(id), run_at=now, now=now)

    async def delete(self, id: JobId) -> None:
        """Remove a job that does not run, without a trace. Raises JobNotFound, WrongState."""
        await Store(self._door).delete(job_id(id))

    async def move(self, id: JobId, queue: str) -> JobState:
        """Put a waiting job into another queue. Raises JobNotFound, WrongState."""
        return await Store(self._door).move(job_id(id), queue=check_name("queue", queue))

    async def cancel_many(self, *, reason: str = "", **options: Unpack[SweepOptions]) -> Tally:
        """Stop the jobs that the filters mean; see `SweepOptions`, and `cancel` for what becomes of each.

        As all calls on many jobs it works in batches, each durable by itself: what raises midway, or is
        cancelled, leaves done what was done, and may be repeated. Jobs that were enqueued or ended after it
        began are left out. Raises ConfigError where the filters say nothing, or nothing that makes sense.
        """
        return await self._many(cancelling(_reason(reason)), options)

    async def retry_many(self, **options: Unpack[SweepOptions]) -> Tally:
        """Put jobs that have ended back to `ready`: dead ones, unless other states are named.

        One whose unique key another job holds stays as it is, and is counted as `held`.
        """
        return await self._many(retrying(), options)

    async def reschedule_many(
        self, *, run_at: datetime | None = None, priority: int | None = None, **options: Unpack[SweepOptions]
    ) -> Tally:
        """Give waiting jobs another time, priority, or both."""
        run_at, priority = _changes(run_at, priority)
        return await self._many(rescheduling(run_at=run_at, priority=priority), options)

    async def move_many(self, *, to: str, **options: Unpack[SweepOptions]) -> Tally:
        """Put waiting jobs into queue `to`."""
        return await self._many(moving(check_name("queue", to)), options)

    async def delete_many(self, **options: Unpack[SweepOptions]) -> Tally:
        """Remove jobs that do not run, waiting ones as well as ended ones, without a trace."""
        return await self._many(deleting(), options)

    async def list(
        self,
        *,
        state: JobState | str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        before: JobId | None = None,
        count: int = 100,
    ) -> list[Job]:
        """The newest jobs first, `count` at most; `before` is the last id of the page before."""
        if state is not None and state not in tuple(JobState):
            raise ConfigError("state", state, f"must be one of {', '.join(JobState)}")
        return await Reader(self._door).list(
            state=state,
            queue=queue,
            kind=kind,
            tenant_id=tenant_id,
            before=None if before is None else job_id(before),
            count=integer("count", count, at_least=1),
        )

    async def _many(self, act: Act, options: SweepOptions) -> Tally:
        if (kinds := options.get("kind")) is not None:
            options["kind"] = [self.handler_of(kind)[0] for kind in members(kinds)]
        run, filters = sweep_options(act.verb, options)
        selection = select(act.verb, filters, takes=act.takes, unless_said=act.unless_said)
        sweep = Sweep(
            self._door,
            act,
            selection,
            who=run.by,
            sleep=self._door.sleep,
            limit=run.limit,
            on_progress=run.on_progress,
        )
        return await (sweep.count() if run.dry_run else sweep.run())

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


def _reason(reason: str) -> str:
    return storable_text(reason, max_chars=1_000) or "cancelled on request"


def _changes(run_at: datetime | None, priority: int | None) -> tuple[datetime | None, int | None]:
    if run_at is None and priority is None:
        raise ConfigError("run_at", None, "leaves nothing to change; give run_at, priority, or both")
    if priority is not None:
        priority = integer("priority", priority, at_least=-(2**31))
    return instant("run_at", run_at), priority
