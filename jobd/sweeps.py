"""The moves of many jobs at once, as calls: one method for each block of `sql/sweep.sql`.

Each takes the ids of a batch, and says what became of it; those that are in none of `states` by then
are left alone. Which jobs those are, and what to do about what stays, is the matter of `sweep`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from jobd import sql
from jobd.door import Executes, Record
from jobd.job import JobState

BLOCKS = sql.blocks("sweep")


class Moved(NamedTuple):
    """What became of a batch. Jobs that are in none of these were not there any more, or had changed."""

    changed: int
    busy: Sequence[UUID]
    """Somebody else had them locked."""
    asked: int = 0
    """Of those changed: running ones whose worker is asked to stop."""
    held: int = 0
    """Left where they were, since another job holds their unique key."""


class Sweeps:
    """What can happen to many jobs at once, and the record of it."""

    def __init__(self, door: Executes) -> None:
        self.door = door

    async def begin_audit(self, audit_id: UUID, *, who: str, verb: str, filter: str, change: str) -> None:
        """Put down that an operation begins; safe to repeat."""
        await self.door.fetch(BLOCKS["begin_audit"], audit_id, who, verb, filter, change)

    async def end_audit(self, audit_id: UUID) -> None:
        """Put down that it came to its end."""
        await self.door.fetch(BLOCKS["end_audit"], audit_id)

    async def cancel_many(
        self,
        ids: Sequence[UUID],
        *,
        states: Collection[JobState],
        reason: str,
        audit_id: UUID,
        now: datetime | None = None,
    ) -> Moved:
        """End those that wait; ask the workers of those that run to stop."""
        return _moved(await self.door.fetch(BLOCKS["cancel_many"], ids, [*states], reason, audit_id, now))

    async def reschedule_many(
        self,
        ids: Sequence[UUID],
        *,
        states: Collection[JobState],
        run_at: datetime | None,
        priority: int | None,
        audit_id: UUID,
        now: datetime | None = None,
    ) -> Moved:
        """Give those that wait another time or priority."""
        return _moved(
            await self.door.fetch(BLOCKS["reschedule_many"], ids, [*states], run_at, priority, audit_id, now)
        )

    async def move_many(
        self, ids: Sequence[UUID], *, states: Collection[JobState], queue: str, audit_id: UUID
    ) -> Moved:
        """Put those that wait into another queue."""
        return _moved(await self.door.fetch(BLOCKS["move_many"], ids, [*states], queue, audit_id))

    async def retry_many(
        self,
        ids: Sequence[UUID],
        *,
        since: datetime,
        until: datetime,
        audit_id: UUID,
        now: datetime | None = None,
    ) -> Moved:
        """Put those that ended within this time back to `ready`."""
        return _moved(await self.door.fetch(BLOCKS["retry_many"], ids, since, until, audit_id, now))

    async def delete_many(
        self, ids: Sequence[UUID], *, states: Collection[JobState], audit_id: UUID
    ) -> Moved:
        """Remove those that wait."""
        return _moved(await self.door.fetch(BLOCKS["delete_many"], ids, [*states], audit_id))

    async def delete_past(
        self, ids: Sequence[UUID], *, since: datetime, until: datetime, audit_id: UUID
    ) -> Moved:
        """Remove those that ended within this time."""
        return _moved(await self.door.fetch(BLOCKS["delete_past"], ids, since, until, audit_id))


def _moved(rows: Sequence[Record]) -> Moved:
    return Moved(**rows[0])
