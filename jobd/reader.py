"""What people and tools read: one method for each question in `sql/reading.sql` and `sql/standing.sql`.

Nothing here is on the hot path and nothing writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from jobd import sql
from jobd.door import Executes, Record
from jobd.duration import format_duration
from jobd.errors import JobNotFound
from jobd.job import Job, JobState
from jobd.reasons import ended, reasons
from jobd.schedule_rows import Outlook
from jobd.selection import Already, Selection
from jobd.standing import Explanation, Standing

BLOCKS = {**sql.blocks("reading"), **sql.blocks("standing")}
JSON_COLUMNS = ("payload", "result", "backoff", "errors", "progress", "headers")

# How the database writes an interval without months, such as `1 day 02:00:00`.
_WINDOW = re.compile(r"(?:(\d+) days?)? ?(?:(\d+):(\d\d):(\d\d(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How full a queue is."""

    queue: str
    ready: int
    scheduled: int
    running: int
    oldest_ready_seconds: float | None
    paused_at: datetime | None
    paused_by: str | None


class Stock(NamedTuple):
    """What the database holds at a moment, as `/metrics` shows it."""

    queues: Sequence[Depth] = ()
    schedules: Outlook | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that has a row in `jobd.workers`."""

    id: UUID
    host: str
    pid: int
    version: str
    queues: list[str]
    kinds: list[str]
    roles: list[str]
    concurrency: int
    started_at: datetime
    beat_at: datetime
    confirmed_since: datetime
    lease_until: datetime
    sleeping_until: datetime | None
    stopping_at: datetime | None
    alive: bool
    running: int


class Extent(NamedTuple):
    """A part of what there is to look through: the live jobs, or a day of the history."""

    now: datetime
    day: datetime | None
    """When the day began; None for the live jobs."""
    rows: int
    """Roughly how many."""


class Page(NamedTuple):
    """What was found among the next jobs by id."""

    looked: int
    last: UUID | None
    ids: list[UUID]
    states: list[str]
    running: int
    """How many were not meant since they run, and would have been otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An operation on many jobs: who did what, to which, and how many it has changed.

    `ended_at` is None while it goes on, and for ever where it was stopped.
    """

    id: UUID
    at: datetime
    ended_at: datetime | None
    who: str
    verb: str
    filter: dict[str, Any]
    change: dict[str, Any]
    jobs: int


JOB_COLUMNS = tuple(field.name for field in fields(Job))
STANDING_COLUMNS = tuple(field.name for field in fields(Standing))
WORKER_COLUMNS = tuple(field.name for field in fields(Worker))


class Reader:
    """Jobs, queues and workers as they are now."""

    def __init__(self, door: Executes) -> None:
        self.door = door

    async def get(self, id: UUID) -> Job:
        """One job. Raises JobNotFound."""
        rows = await self.door.fetch(BLOCKS["get"], id)
        if not rows:
            raise JobNotFound(id)
        return _job(rows[0])

    async def standing(self, id: UUID, *, now: datetime | None = None) -> Standing | None:
        """What decides when a waiting or running job goes on; None for any other id."""
        rows = await self.door.fetch(BLOCKS["standing"], id, now)
        if not rows:
            return None
        facts = {name: rows[0][name] for name in STANDING_COLUMNS if name != "error"}
        return Standing(**facts, error=_decoded(rows[0]["error"]) if rows[0]["error"] else None)

    async def explain(self, id: UUID) -> Explanation:
        """Why a job is where it is. Raises JobNotFound."""
        standing = await self.standing(id)
        if standing is None:
            job = await self.get(id)
            if job.finished_at is not None:
                return Explanation(id=id, state=job.state, queue=job.queue, kind=job.kind, reasons=ended(job))
            # It came back meanwhile, by a retry.
            standing = await self.standing(id)
            if standing is None:
                raise JobNotFound(id)
        return Explanation(
            id=id,
            state=JobState(standing.state),
            queue=standing.queue,
            kind=standing.kind,
            reasons=reasons(standing),
        )

    async def state_of(self, id: UUID) -> JobState:
        """Where a job is. Raises JobNotFound."""
        rows = await self.door.fetch(BLOCKS["state_of"], id)
        if not rows:
            raise JobNotFound(id)
        return JobState(rows[0]["state"])

    async def unknown_queues(self, names: Sequence[str]) -> list[str]:
        """Which of these queues nobody serves or has paused, and no job is ready in."""
        return [row["name"] for row in await self.door.fetch(BLOCKS["unknown_queues"], list(names))]

    async def list(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        tenant_id: str | None = None,
        before: UUID | None = None,
        count: int = 100,
    ) -> list[Job]:
        """The newest jobs first; `before` is the id at the end of the page before."""
        rows = await self.door.fetch(BLOCKS["list"], state, queue, kind, tenant_id, before, count)
        return [_job(row) for row in rows]

    async def extent(self) -> Sequence[Extent]:
        """Each day of the history, the oldest first, and the live jobs."""
        return [Extent(**row) for row in await self.door.fetch(BLOCKS["extent"])]

    async def matching(
        self,
        selection: Selection,
        *,
        already: Already,
        start: UUID,
        page: int,
        since: datetime | None,
        until: datetime,
    ) -> Page:
        """Those that are meant among the next `page` live jobs by id, and enqueued within this time."""
        left_out = (already.queue, already.asked, already.run_at, already.priority)
        rows = await self.door.fetch(
            BLOCKS["matching"], start, page, *_columns(selection), since, until, *left_out
        )
        return Page(**rows[0])

    async def matching_past(
        self, selection: Selection, *, start: UUID, page: int, since: datetime, until: datetime
    ) -> Page:
        """The same among the next `page` jobs that ended within this time."""
        rows = await self.door.fetch(BLOCKS["matching_past"], start, page, *_columns(selection), since, until)
        return Page(**rows[0], running=0)

    async def audits(self, *, count: int = 100) -> Sequence[AuditEntry]:
        """The newest operations on many jobs first."""
        rows = await self.door.fetch(BLOCKS["audits"], count)
        return [
            AuditEntry(**{**row, "filter": _decoded(row["filter"]), "change": _decoded(row["change"])})
            for row in rows
        ]

    async def depths(self, *, now: datetime | None = None) -> Sequence[Depth]:
        """Every queue that is known or has live jobs."""
        rows = await self.door.fetch(BLOCKS["depths"], now)
        return [Depth(**row) for row in rows]

    async def workers(self) -> Sequence[Worker]:
        """Every process with a row, the oldest first."""
        rows = await self.door.fetch(BLOCKS["workers"])
        return [Worker(**{name: row[name] for name in WORKER_COLUMNS}) for row in rows]

    async def transaction_status(self, xid: str) -> str | None:
        """How a transaction ended: committed, aborted, in progress; None when it is too old to tell."""
        (row,) = await self.door.fetch(BLOCKS["transaction_status"], xid)
        return row["status"]  # type: ignore[no-any-return]

    async def schema_version(self) -> int:
        """To which version the schema was migrated."""
        (row,) = await self.door.fetch(BLOCKS["schema_version"])
        return int(row["version"])


def _job(row: Record) -> Job:
    # By name: a newer jobd may have added columns that this one does not know.
    columns: dict[str, Any] = {name: row[name] for name in JOB_COLUMNS}
    for name in JSON_COLUMNS:
        if columns[name] is not None:
            columns[name] = _decoded(columns[name])
    columns["state"] = JobState(columns["state"])
    columns["unique_for"] = _as_given(columns["unique_for"])
    columns["headers"] = columns["headers"] or {}
    columns["errors"] = columns["errors"] or []
    return Job(**columns)


def _as_given(unique_for: str | None) -> str | None:
    """`1h30m` for a window, which the database keeps in its own spelling; words as they are."""
    written = _WINDOW.fullmatch(unique_for or "")
    if not written or not unique_for:
        return unique_for
    days, hours, minutes, seconds = (float(part or 0) for part in written.groups())
    return format_duration(timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))


def _columns(selection: Selection) -> tuple[Any, ...]:
    """The selection as parameters of `matching` and `matching_past`, in their order."""
    return (
        selection.queues, selection.kinds, sorted(selection.states), selection.tenants, selection.use_cases,
        selection.tags, selection.error_types, selection.error,
    )  # fmt: skip


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        # Only SQL can have stored it; one such job must not hide the others of a list.
        return f"<JSON nested too deeply, {len(text):,} characters>"
