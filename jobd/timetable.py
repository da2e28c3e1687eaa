"""Schedules as the database has them: one method for each block of `sql/schedules.sql`.

Every `now` is None in production, where the database's clock counts. The domain decides
(`occurrences`), this reads and writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobd import sql
from jobd.door import Executes, Record
from jobd.schedule_rows import Decision, DueSchedule, ScheduleEntry, ScheduleRun, Standing, Terms

BLOCKS = sql.blocks("schedules")
JSON_COLUMNS = ("payload", "backoff", "headers")
STATES = ("active", "paused", "faulty", "ended")
TERMS = tuple(field.name for field in fields(Terms))
ENTRY = tuple(field.name for field in fields(ScheduleEntry))
RUN = tuple(field.name for field in fields(ScheduleRun))


class Timetable:
    """Schedules, and what became of their occurrences."""

    def __init__(self, door: Executes) -> None:
        self.door = door

    async def put(
        self,
        schedules: Sequence[Terms],
        *,
        replace: bool,
        since: datetime | None = None,
        now: datetime | None = None,
    ) -> dict[str, Standing]:
        """Declare schedules; return those that stand now as given.

        New ones occur after now, or after `since` if that is before.
        """
        text = json.dumps([{name: _plain(getattr(terms, name)) for name in TERMS} for terms in schedules])
        rows = await self.door.fetch(BLOCKS["put"], text, replace, since, now)
        return {row["schedule_id"]: Standing(row["decided_until"], row["taken_from"]) for row in rows}

    async def disown(self, owner: str, ids: Sequence[str], *, now: datetime | None = None) -> list[str]:
        """Pause what this owner declares no more; return the ids."""
        return [row["id"] for row in await self.door.fetch(BLOCKS["disown"], owner, list(ids), now)]

    async def remove(self, ids: Sequence[str]) -> list[str]:
        """Forget schedules; return the ids that were there."""
        return [row["id"] for row in await self.door.fetch(BLOCKS["remove"], list(ids))]

    async def remove_prefix(self, prefix: str) -> list[str]:
        """Forget all schedules whose id begins so; return the ids."""
        return [row["id"] for row in await self.door.fetch(BLOCKS["remove_prefix"], prefix)]

    async def pause_schedule(self, id: str, *, by: str, now: datetime | None = None) -> bool:
        """Let no occurrence run until it is resumed; False when there is no such schedule."""
        rows = await self.door.fetch(BLOCKS["pause_schedule"], id, by, now)
        return bool(rows[0]["found"])

    async def resume_schedule(self, id: str, *, now: datetime | None = None) -> bool:
        """Let occurrences run again, but none of the pause; False when there is no such schedule."""
        rows = await self.door.fetch(BLOCKS["resume_schedule"], id, now)
        return bool(rows[0]["found"])

    async def trigger(self, id: str, *, job_id: UUID, now: datetime | None = None) -> bool:
        """Run an occurrence of its own, now; False when there is no such schedule."""
        rows = await self.door.fetch(BLOCKS["trigger"], id, job_id, now)
        return rows[0]["job_id"] is not None

    async def schedule(self, id: str) -> ScheduleEntry | None:
        """One schedule, or None."""
        rows = await self.door.fetch(BLOCKS["schedule"], id)
        return _entry(rows[0]) if rows else None

    async def schedules(
        self, *, prefix: str = "", after: str | None = None, count: int = 100
    ) -> list[ScheduleEntry]:
        """Schedules by id, those after `after`."""
        return [_entry(row) for row in await self.door.fetch(BLOCKS["schedules"], prefix, after, count)]

    async def occurrences(
        self, id: str, *, before: datetime | None = None, count: int = 100
    ) -> list[ScheduleRun]:
        """What became of the newest occurrences."""
        rows = await self.door.fetch(BLOCKS["occurrences"], id, before, count)
        return [
            ScheduleRun(
                **{name: row[name] for name in RUN if name != "error"},
                error=None if row["error"] is None else json.loads(row["error"]),
            )
            for row in rows
        ]

    async def due(self, *, count: int, now: datetime | None = None) -> list[DueSchedule]:
        """Schedules to look at now: new ones first, then those that are least overdue."""
        rows = await self.door.fetch(BLOCKS["due"], count, now)
        return [
            DueSchedule(_entry(row), row["moment"], row["unfinished"], row["succeeded_at"]) for row in rows
        ]

    async def settle(self) -> int:
        """Note which jobs of schedules have ended, before the history forgets them; return of how many."""
        rows = await self.door.fetch(BLOCKS["settle"])
        return int(rows[0]["settled"])

    async def next_fire(self, *, now: datetime | None = None) -> float | None:
        """In how many seconds a schedule is due; None, none ever."""
        rows = await self.door.fetch(BLOCKS["next_fire"], now)
        return rows[0]["seconds"]  # type: ignore[no-any-return]

    async def tally(self) -> dict[str, int]:
        """How many schedules are `active`, `paused`, `faulty` or `ended`."""
        found = {row["state"]: row["number"] for row in await self.door.fetch(BLOCKS["tally"])}
        return {state: found.get(state, 0) for state in STATES}

    async def nearest(self, *, count: int) -> dict[str | None, datetime]:
        """When schedules occur next; see Outlook."""
        return {row["id"]: row["due_at"] for row in await self.door.fetch(BLOCKS["nearest"], count)}

    async def fire(
        self,
        decisions: Sequence[Decision],
        *,
        name: str,
        worker_id: UUID,
        term: int,
        now: datetime | None = None,
    ) -> set[str]:
        """Write what was decided, all in one transaction, if this worker leads in this term.

        Returns the ids whose decision holds: the others had changed since they were read.
        """
        runs = [(decision.id, run) for decision in decisions for run in decision.occurrences]
        ran = [[run.fire_at for run in each.occurrences if run.outcome == "ran"] for each in decisions]
        rows = await self.door.fetch(
            BLOCKS["fire"], name, worker_id, term,
            [each.id for each in decisions], [each.revision for each in decisions],
            [each.until for each in decisions], [each.due_at for each in decisions],
            [each.fault for each in decisions], [len(each) for each in ran],
            [max(each, default=None) for each in ran],
            [f"{{{','.join(map(str, each.open_jobs))}}}" for each in decisions],
            [each.last_success_at for each in decisions], [each.queued_until for each in decisions],
            [id for id, _ in runs], [run.fire_at for _, run in runs], [run.last_at for _, run in runs],
            [run.number for _, run in runs], [run.outcome for _, run in runs],
            [run.reason for _, run in runs],
            [run.job_id for _, run in runs], [run.run_at for _, run in runs],
            [run.headers for _, run in runs], now,
        )  # fmt: skip
        return {row["id"] for row in rows}

    async def forget(self, retention: timedelta, *, batch: int, now: datetime | None = None) -> int:
        """Forget what was decided longer ago than `retention`, `batch` rows at most; return how many."""
        rows = await self.door.fetch(BLOCKS["forget"], retention, batch, now)
        return int(rows[0]["pruned"])


def _entry(row: Record) -> ScheduleEntry:
    values = {name: row[name] for name in ENTRY}
    for name in JSON_COLUMNS:
        if values[name] is not None:
            values[name] = json.loads(values[name])
    return ScheduleEntry(**values)


def _plain(value: Any) -> Any:
    """As jsonb_populate_recordset reads it."""
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)} microseconds"
    return value.isoformat() if isinstance(value, datetime) else value
