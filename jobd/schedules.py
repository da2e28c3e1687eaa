"""What an application does with schedules at run time: `jobs.schedules.add(...)` and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack
from uuid import UUID

from jobd.client import Client
from jobd.enqueuer import Kind
from jobd.errors import ConfigError, ScheduleExists, ScheduleNotFound
from jobd.ids import uuid7
from jobd.schedule_rows import BY_DEPLOY, ScheduleEntry, ScheduleRun, Terms
from jobd.terms import ScheduleOptions, first_time, parsed, seen, terms, with_key
from jobd.timetable import Timetable

OWNER = "api"


async def put_one(timetable: Timetable, terms: Terms, *, replace: bool, now: datetime) -> datetime:
    """Declare a schedule that occurs after `now`, by this process's clock; return the next time.

    Raises ScheduleExists.
    """
    first = first_time(terms, now)
    assert first is not None
    # One that occurs only once is not lost where the database's clock is ahead.
    alone = parsed(terms).next_after(first) is None
    since = first - timedelta(microseconds=1) if alone else None
    stands = await timetable.put([terms], replace=replace, since=since)
    if terms.id not in stands:
        raise ScheduleExists(terms.id)
    return first_time(terms, stands[terms.id].decided_until) or first


class Schedules:
    """Schedules, as the application sees them; what fails raises as the client's calls do."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def add(
        self,
        id: str,
        when: str | datetime,
        kind: Kind,
        payload: Any = None,
        *,
        replace: bool = False,
        connection: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> datetime:
        """Let a job of this kind occur as `when` says; return the next time.

        `when` is a cron expression, an interval (`every 15m`), EventBridge's `cron(...)`, `rate(...)` or
        `at(...)`, or a moment. With `replace` it takes the place of a schedule of the same id, whose past
        goes on unless what says when it occurs has changed; one that code or file declares is as they say
        again with their next start. On the caller's `connection` it counts once the caller commits. Raises
        ScheduleExists, ConfigError.
        """
        now = datetime.now(UTC)
        name, handler = self._client.handler_of(kind)
        if options.get("queue") is None and handler is not None:
            options["queue"] = handler.queue
        made = terms(
            id,
            when,
            name,
            owner=OWNER,
            payload=self._client.encoded(handler, payload),
            max_bytes=self._client.max_payload,
            now=now,
            queue_tolerances=self._client.delay_tolerances,
            **options,
        )
        made = with_key(made, handler)
        return await put_one(Timetable(self._client.door_to(connection)), made, replace=replace, now=now)

    async def get(self, id: str) -> ScheduleEntry:
        """The schedule as it is now. Raises ScheduleNotFound."""
        entry = await self._timetable.schedule(id)
        if entry is None:
            raise ScheduleNotFound(id)
        return seen(entry)

    async def list(
        self, *, prefix: str = "", after: str | None = None, count: int = 100
    ) -> Sequence[ScheduleEntry]:
        """Schedules by id, `count` at most; `after` is the last id of the page before."""
        entries = await self._timetable.schedules(prefix=prefix, after=after, count=count)
        return [seen(entry) for entry in entries]

    async def remove(self, id: str) -> None:
        """Forget a schedule; its jobs and its history stay. Raises ScheduleNotFound."""
        if not await self._timetable.remove([id]):
            raise ScheduleNotFound(id)

    async def remove_prefix(self, prefix: str) -> int:
        """Forget all schedules whose id begins so; return how many."""
        if not prefix:
            raise ValueError("remove_prefix('') would remove every schedule: give the ids' beginning")
        return len(await self._timetable.remove_prefix(prefix))

    async def pause(self, id: str, *, by: str = "api") -> None:
        """Let no occurrence run until it is resumed. Raises ScheduleNotFound, ConfigError."""
        if by == BY_DEPLOY:
            raise ConfigError("by", by, "is what a deploy says; give a name")
        if not await self._timetable.pause_schedule(id, by=by):
            raise ScheduleNotFound(id)

    async def resume(self, id: str) -> None:
        """Let occurrences run again; those of the pause are told as skipped. Raises ScheduleNotFound."""
        if not await self._timetable.resume_schedule(id):
            raise ScheduleNotFound(id)

    async def trigger(self, id: str) -> UUID:
        """Run an occurrence of its own, now, also of a paused schedule; return its job's id.

        Raises ScheduleNotFound, TenantFull.
        """
        job_id = uuid7()
        if not await self._timetable.trigger(id, job_id=job_id):
            raise ScheduleNotFound(id)
        return job_id

    async def history(
        self, id: str, *, before: datetime | None = None, count: int = 100
    ) -> Sequence[ScheduleRun]:
        """What became of its newest occurrences; empty also for an id that never was."""
        return await self._timetable.occurrences(id, before=before, count=count)

    @property
    def _timetable(self) -> Timetable:
        return Timetable(self._client.door_to(None))
