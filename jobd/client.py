"""What an application does with jobs: enqueue them, look at them, wait for them, change their course.

`enqueuer` brings them in; here moves are left to the store and questions to the reader. It works
through any door: the application's pool, or a connection of the caller's own (`connections`). No
method waits for anything but its door, so `sync` can offer all of them to callers without a loop.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Unpack

from jobd.acts import Act, cancelling, deleting, moving, rescheduling, retrying
from jobd.duration import parse_duration
from jobd.enqueuer import Enqueuer
from jobd.errors import CallTimeout, ConfigError, DatabaseUnavailable, WaitTimeout
from jobd.events import Events
from jobd.filters import SweepOptions, members, select, sweep_options
from jobd.job import Job, JobState
from jobd.options import Duration, JobId, instant, integer, job_id
from jobd.payload import storable_text
from jobd.pool import Pool
from jobd.reader import Reader
from jobd.registry import Registry, check_name
from jobd.standing import Explanation
from jobd.store import Store
from jobd.sweep import Sweep, Tally

FIRST_PAUSE, LONGEST_PAUSE = 0.020, 0.500


class Client(Enqueuer):
    """Jobs, as the application sees them. Safe to use from several tasks.

    Every call ends within the pool's `call_timeout` or raises CallTimeout, and raises
    DatabaseUnavailable when there is no database to talk to; whether it took effect is then unknown.
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
        """`clock` and `rng` are those of `wait`; for the rest see `Enqueuer`."""
        super().__init__(
            pool,
            registry=registry,
            events=events,
            max_payload=max_payload,
            resource_types=resource_types,
            delay_tolerances=delay_tolerances,
        )
        self._clock = clock
        self._rng = rng or random.Random()

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


def _reason(reason: str) -> str:
    if not isinstance(reason, str):
        raise ConfigError("reason", reason, "must be a string")
    return storable_text(reason, max_chars=1_000) or "cancelled on request"


def _changes(run_at: datetime | None, priority: int | None) -> tuple[datetime | None, int | None]:
    if run_at is None and priority is None:
        raise ConfigError("run_at", None, "leaves nothing to change; give run_at, priority, or both")
    if priority is not None:
        priority = integer("priority", priority, at_least=-(2**31))
    return instant("run_at", run_at), priority
