"""The processes that share the database: one method for each block of `sql/fleet.sql`.

Leases, the lead, queues and the partitions of the history. Every `now` is None in production, where
the database's clock counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from jobd import sql
from jobd.door import Executes
from jobd.errors import QueueUnknown

BLOCKS = sql.blocks("fleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a process tells about itself when it begins."""

    worker_id: UUID
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    roles: tuple[str, ...]
    concurrency: int
    # Which finished jobs each of these queues keeps: all, errors or nothing.
    keeps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunningClaim:
    """A claim that the database holds for a worker."""

    id: UUID
    claim_no: int
    cancel_requested: bool


class Governed(NamedTuple):
    """What a queue weighs, and whether it is under limits.

    Whether because some jobs have a key or a use case, whether any wait, and how often to look, in seconds,
    so that no rate saves up more than its burst.
    """

    queue: str
    governed: bool
    keyed: bool
    waiting: bool
    weight: int
    beat: float | None


class Fleet:
    """Workers, leader, queues."""

    def __init__(self, door: Executes) -> None:
        self.door = door

    async def register(
        self, process: Registration, *, lease: timedelta, now: datetime | None = None
    ) -> datetime:
        """Begin: return until when the lease lasts."""
        (row,) = await self.door.fetch(
            BLOCKS["register"], process.worker_id, process.host, process.pid, process.version,
            list(process.queues), list(process.kinds), list(process.roles), process.concurrency, lease, now,
        )  # fmt: skip
        return row["lease_until"]  # type: ignore[no-any-return]

    async def beat(
        self, worker_id: UUID, *, lease: timedelta, now: datetime | None = None
    ) -> datetime | None:
        """Renew the lease; None when the worker was taken for dead."""
        rows = await self.door.fetch(BLOCKS["beat"], worker_id, lease, now)
        return rows[0]["lease_until"] if rows else None

    async def running_of(self, worker_id: UUID) -> list[RunningClaim]:
        """The claims that the database holds for this worker."""
        rows = await self.door.fetch(BLOCKS["running_of"], worker_id)
        return [RunningClaim(row["id"], row["claim_no"], row["cancel_requested"]) for row in rows]

    async def doze(self, worker_id: UUID, *, period: timedelta, now: datetime | None = None) -> None:
        """Ask for notifications for the next `period`."""
        await self.door.fetch(BLOCKS["doze"], worker_id, period, now)

    async def resign(self, worker_id: UUID) -> None:
        """End: give up the row."""
        await self.door.fetch(BLOCKS["resign"], worker_id)

    async def stopping(self, worker_id: UUID, *, now: datetime | None = None) -> None:
        """Tell that this worker claims nothing more."""
        await self.door.fetch(BLOCKS["stopping"], worker_id, now)

    async def retire(self, worker_id: UUID, *, lease: timedelta, now: datetime | None = None) -> set[UUID]:
        """Remove workers whose lease lapsed, if this one may judge; return who they were."""
        rows = await self.door.fetch(BLOCKS["retire"], worker_id, lease, now)
        return {row["id"] for row in rows}

    async def next_lapse(self, worker_id: UUID, *, now: datetime | None = None) -> float | None:
        """In how many seconds the next lease of another worker ends."""
        rows = await self.door.fetch(BLOCKS["next_lapse"], worker_id, now)
        return rows[0]["seconds"]  # type: ignore[no-any-return]

    async def elect(
        self, name: str, worker_id: UUID, *, lease: timedelta, now: datetime | None = None
    ) -> int | None:
        """Take or renew the lead; return its term, or None when another worker leads."""
        rows = await self.door.fetch(BLOCKS["elect"], name, worker_id, lease, now)
        return rows[0]["term"] if rows else None

    async def abdicate(self, name: str, worker_id: UUID) -> None:
        """Give the lead up."""
        await self.door.fetch(BLOCKS["abdicate"], name, worker_id)

    async def proves_lead(
        self, name: str, worker_id: UUID, *, term: int, now: datetime | None = None
    ) -> bool:
        """Whether this worker leads in this term; asked before a leader's write."""
        return bool(await self.door.fetch(BLOCKS["proves_lead"], name, worker_id, term, now))

    async def ensure_partitions(self, *, days: int = 7, now: datetime | None = None) -> int:
        """Make the partitions of history and tombstones.

        Return how many were missing, or -1: another session is at it.
        """
        (row,) = await self.door.fetch(BLOCKS["ensure_partitions"], days, now)
        return int(row["missing"])

    async def governing(self, queues: Sequence[str]) -> list[Governed]:
        """For each of these queues, whether it has jobs under limits over all daemons, and its weight."""
        rows = await self.door.fetch(BLOCKS["governing"], list(queues))
        return [
            Governed(row["queue"], row["governed"], row["keyed"], row["waiting"], row["weight"], row["beat"])
            for row in rows
        ]

    async def declare_queues(self, names: Sequence[str], keeps: Sequence[str]) -> None:
        """Let these queues be known, and what each keeps of its finished jobs: all, errors or nothing."""
        await self.door.fetch(BLOCKS["declare_queues"], list(names), list(keeps))

    async def pause(self, queue: str, *, by: str | None) -> datetime:
        """Stop claims from this queue; return since when they are stopped."""
        (row,) = await self.door.fetch(BLOCKS["pause"], queue, by)
        return row["paused_at"]  # type: ignore[no-any-return]

    async def resume(self, queue: str, *, by: str | None = None) -> None:
        """Allow claims again. Raises QueueUnknown."""
        (row,) = await self.door.fetch(BLOCKS["resume"], queue, by)
        if not row["found"]:
            raise QueueUnknown(queue)

    async def notify(self, channel: str) -> None:
        """Tell whoever listens on this channel, with nothing to say."""
        await self.door.fetch(BLOCKS["notify"], channel)

    async def probe(self, worker_id: UUID) -> bool:
        """Write; False when the worker has no row."""
        return bool(await self.door.fetch(BLOCKS["probe"], worker_id))
