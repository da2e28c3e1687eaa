"""The moves of a job's life, as calls: one method for each block of `sql/lifecycle.sql`, in the same order.

Those that bring it in are in `entry`. A store has no state but its way in: a `Link` of one service, a `Pool`,
or anything else that executes blocks. Every `now` is None in production, where the database's clock counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from jobd import sql
from jobd.door import Executes
from jobd.entry import Entry
from jobd.errors import JobNotFound, NotKept, PartitionMissing, Refused, UniqueKeyTaken, WrongState
from jobd.fleet import Fleet
from jobd.job import Claimed, FinishedRun, Floor, JobState

BLOCKS = sql.blocks("lifecycle")
READING = sql.blocks("reading")

_TURN = attrgetter("deadline_at", "id")
_PRIORITY = attrgetter("priority")


class Store(Entry):
    """What can happen to jobs. Raises DatabaseUnavailable when it cannot be known whether it did."""

    def __init__(self, door: Executes, *, on_key_lost: Callable[[UUID], None] = lambda id: None) -> None:
        """`on_key_lost` hears of each job that came back from its run and goes on without its unique key."""
        super().__init__(door)
        self._on_key_lost = on_key_lost

    async def stage(self, *, batch: int, now: datetime | None = None) -> int:
        """Make due jobs ready, at most `batch`; return how many."""
        rows = await self.door.fetch(BLOCKS["stage"], batch, now)
        return int(rows[0]["staged"])

    async def next_due(self, *, now: datetime | None = None) -> float | None:
        """In how many seconds the next delayed job becomes due; less than 0 when it waits to be staged."""
        rows = await self.door.fetch(BLOCKS["next_due"], now)
        return rows[0]["seconds"]  # type: ignore[no-any-return]

    async def expire(self, *, batch: int, now: datetime | None = None) -> Counter[tuple[str, str]]:
        """Declare waiting jobs of policy `drop` dead whose deadline has passed.

        Returns how many of each queue and kind.
        """
        rows = await self.door.fetch(BLOCKS["expire"], batch, now)
        return Counter({(row["queue"], row["kind"]): row["expired"] for row in rows})

    async def claim(
        self,
        worker_id: UUID,
        *,
        rooms: Mapping[str, int],
        limited_rooms: Mapping[str, int] | None = None,
        limited_kinds: Sequence[str] = (),
        skipped_kinds: Sequence[str] = (),
        floors: Mapping[str, Floor] | None = None,
        now: datetime | None = None,
    ) -> list[Claimed]:
        """Claim at most `rooms[queue]` ready jobs of each queue, in the order in which they shall start.

        `limited_kinds` come only from `limited_rooms`, which count whatever stands first in the queue.
        Nothing without a live lease, and nothing that was running when a worker died. Where a queue has
        a floor, its jobs before it are passed over: the caller looks there another time.
        """
        limited_rooms = limited_rooms or {}
        from_floors = [(floors or {}).get(queue) for queue in rooms] + [None] * len(limited_rooms)
        rows = await self.door.fetch(
            BLOCKS["claim"],
            worker_id,
            [*rooms, *limited_rooms],
            [*rooms.values(), *limited_rooms.values()],
            [False] * len(rooms) + [True] * len(limited_rooms),
            list(limited_kinds),
            list(skipped_kinds),
            [floor and floor.priority for floor in from_floors],
            [floor and floor.deadline_at for floor in from_floors],
            [floor and floor.id for floor in from_floors],
            now,
        )
        return _in_turn(rows)

    async def claim_victims(
        self,
        worker_id: UUID,
        *,
        rooms: Mapping[str, int],
        skipped_kinds: Sequence[str] = (),
        suspects: int,
        suspect_from: int,
        now: datetime | None = None,
    ) -> list[Claimed]:
        """Claim ready jobs that were running when a worker died, at most `rooms[queue]` of each queue.

        On top of those at most `suspects` that were there `suspect_from` times or more.
        """
        rows = await self.door.fetch(
            BLOCKS["claim_victims"],
            worker_id,
            [*rooms],
            [*rooms.values()],
            list(skipped_kinds),
            suspects,
            suspect_from,
            now,
        )
        return _in_turn(rows)

    async def claim_governed(
        self,
        worker_id: UUID,
        *,
        rooms: Mapping[str, int],
        kind_rooms: Mapping[str, int],
        suspects: int,
        suspect_from: int,
        now: datetime | None = None,
    ) -> list[UUID]:
        """Claim ready jobs under limits that count over all daemons, at most `rooms[queue]` of each queue.

        Of each kind in `kind_rooms` at most that many; of jobs that were there `suspect_from` times when a
        worker died at most `suspects`. Returns which: `claimed` reads them, so that a process which is slow
        to read its jobs keeps no other from claiming.
        """
        rows = await self.door.fetch(
            BLOCKS["claim_governed"],
            worker_id,
            [*rooms],
            [*rooms.values()],
            [*kind_rooms],
            [*kind_rooms.values()],
            suspects,
            suspect_from,
            now,
        )
        return [row["id"] for row in rows]

    async def claimed(self, worker_id: UUID, ids: Sequence[UUID]) -> list[Claimed]:
        """What this worker claimed of these, in the order in which they shall start."""
        return _in_turn(await self.door.fetch(BLOCKS["claimed"], worker_id, list(ids)))

    async def progress(self, id: UUID, claim_no: int, progress: str) -> bool:
        """Record how far a run is; False when the claim is lost."""
        return bool(await self.door.fetch(BLOCKS["progress"], id, claim_no, progress))

    async def succeed(self, runs: Sequence[FinishedRun], *, now: datetime | None = None) -> set[UUID]:
        """Record runs that succeeded; return the ids whose claim was not ours any more, usually none.

        Between our last beat and this call another daemon may have rescued a job and a worker
        claimed it again. That run is the one that counts: the caller reports ours as stale and must
        not retry the write.
        """
        ids = [run.id for run in runs]
        (row,) = await self.door.fetch(
            BLOCKS["succeed"], ids, [run.claim_no for run in runs], [run.result for run in runs], now
        )
        return set() if row["count"] == len(ids) else set(ids).difference(row["ids"] or ())

    async def succeed_tersely(self, runs: Sequence[FinishedRun], *, now: datetime | None = None) -> set[UUID]:
        """As `succeed`, for runs whose queue keeps no successes: only a tombstone stays."""
        ids = [run.id for run in runs]
        (row,) = await self.door.fetch(BLOCKS["succeed_tersely"], ids, [run.claim_no for run in runs], now)
        return set() if row["count"] == len(ids) else set(ids).difference(row["ids"] or ())

    async def finish(
        self, runs: Sequence[FinishedRun], *, now: datetime | None = None
    ) -> dict[UUID, JobState]:
        """Record how runs ended that did not succeed, for those whose claim was still ours, as above.

        Returns the state that each job got: a cancel request may have turned it.
        """
        rows = await self.door.fetch(
            BLOCKS["finish"],
            [run.id for run in runs],
            [run.claim_no for run in runs],
            [run.state.value for run in runs],
            [run.reason for run in runs],
            [run.delay for run in runs],
            [run.unburned for run in runs],
            [run.error for run in runs],
            now,
        )
        self._tell_lost_keys(rows)
        return {row["id"]: JobState(row["state"]) for row in rows}

    async def still_ours(self, claims: Sequence[tuple[UUID, int]]) -> set[UUID]:
        """Which of these claims are running still."""
        rows = await self.door.fetch(BLOCKS["still_ours"], *_columns(claims))
        return {row["id"] for row in rows}

    async def release(self, claims: Sequence[tuple[UUID, int]], *, now: datetime | None = None) -> set[UUID]:
        """Give back claims that never started here, unburned; return the ids that were still ours."""
        rows = await self.door.fetch(BLOCKS["release"], *_columns(claims), now)
        self._tell_lost_keys(rows)
        return {row["id"] for row in rows}

    async def rescue(
        self, *, batch: int, crash_limit: int, now: datetime | None = None
    ) -> dict[UUID, JobState]:
        """Move the jobs of workers without a row; return each one's new state."""
        rows = await self.door.fetch(BLOCKS["rescue"], batch, crash_limit, now)
        self._tell_lost_keys(rows)
        return {row["id"]: JobState(row["state"]) for row in rows}

    async def cancel(self, id: UUID, *, reason: str, now: datetime | None = None) -> JobState:
        """Stop a job; return CANCELLED, or RUNNING when its worker was asked to stop it.

        Raises JobNotFound, and WrongState for a job that has ended.
        """
        try:
            rows = await self.door.fetch(BLOCKS["cancel"], id, reason, now)
        except PartitionMissing:
            await Fleet(self.door).ensure_partitions()
            rows = await self.door.fetch(BLOCKS["cancel"], id, reason, now)
        if not rows:
            # Unknown, or it ended while we waited for its row: our snapshot was older than its history.
            await self._explain(id, "cancel", "a job that has not ended")
        state = JobState(rows[0]["state"])
        if not rows[0]["changed"]:
            raise WrongState(id, state, "cancel", "a job that has not ended")
        return state

    async def retry(self, id: UUID, *, now: datetime | None = None) -> int:
        """Put a finished job back to `ready`; return its new generation.

        Raises JobNotFound, WrongState for one that has not ended, NotKept, UniqueKeyTaken.
        """
        try:
            rows = await self.door.fetch(BLOCKS["retry"], id, now)
        except Refused as refusal:
            if refusal.constraint != "jobs_unique":
                raise
            holders = await self.door.fetch(READING["holder"], id)
            holder, key = (holders[0]["id"], holders[0]["unique_key"]) if holders else (None, "")
            raise UniqueKeyTaken(id, key, holder) from refusal
        if not rows:
            await self._explain(id, "retry", "a job that has ended")
        return int(rows[0]["generation"])

    async def reschedule(
        self,
        id: UUID,
        *,
        run_at: datetime | None = None,
        priority: int | None = None,
        now: datetime | None = None,
    ) -> JobState:
        """Give a waiting job another time or priority; return its state. Raises JobNotFound, WrongState."""
        rows = await self.door.fetch(BLOCKS["reschedule"], id, run_at, priority, now)
        if not rows:
            await self._explain(id, "reschedule", "a waiting job (scheduled or ready)")
        return JobState(rows[0]["state"])

    async def move(self, id: UUID, *, queue: str) -> JobState:
        """Put a waiting job into another queue; return its state. Raises JobNotFound, WrongState."""
        rows = await self.door.fetch(BLOCKS["move"], id, queue)
        if not rows:
            await self._explain(id, "move", "a waiting job (scheduled or ready)")
        return JobState(rows[0]["state"])

    async def delete(self, id: UUID) -> None:
        """Remove a job that does not run, with its history or tombstone. Raises JobNotFound, WrongState."""
        if not await self.door.fetch(BLOCKS["delete"], id):
            await self._explain(id, "delete", "a job that does not run; cancel it first")

    async def prune_keys(self, *, batch: int, now: datetime | None = None) -> int:
        """Forget unique keys that nobody holds any more; return at how many, at most `batch`, it looked."""
        rows = await self.door.fetch(BLOCKS["prune_keys"], batch, now)
        return int(rows[0]["looked"])

    async def prune_rates(self, *, batch: int, now: datetime | None = None) -> int:
        """Forget rates that were spent until an hour ago or longer; return how many, at most `batch`."""
        rows = await self.door.fetch(BLOCKS["prune_rates"], batch, now)
        return int(rows[0]["gone"])

    async def prune(
        self, *, retention: timedelta, now: datetime | None = None
    ) -> list[tuple[str, bool | None]]:
        """Days of the history that ended longer ago, and of tombstones that ended a day ago.

        Their names, and whether each is detached (None: half done).
        """
        rows = await self.door.fetch(BLOCKS["prune"], retention, now)
        return [(row["name"], row["detached"]) for row in rows]

    def _tell_lost_keys(self, rows: Sequence[Any]) -> None:
        for row in rows:
            if row["key_lost"]:
                self._on_key_lost(row["id"])

    async def _explain(self, id: UUID, verb: str, allowed: str) -> None:
        """Raise what explains why no row matched."""
        rows = await self.door.fetch(READING["state_of"], id)
        if not rows:
            raise JobNotFound(id)
        if verb == "retry" and rows[0]["not_kept_by"] is not None:
            raise NotKept(id, rows[0]["state"], verb, rows[0]["not_kept_by"])
        raise WrongState(id, rows[0]["state"], verb, allowed)


def _in_turn(rows: Sequence[Any]) -> list[Claimed]:
    claims = [Claimed._make(row) for row in rows]
    # RETURNING keeps no order. Sorts are stable, so the most significant key comes last.
    claims.sort(key=_TURN)
    if len({claim.priority for claim in claims}) > 1:
        claims.sort(key=_PRIORITY, reverse=True)
    return claims


def _columns(claims: Sequence[tuple[UUID, int]]) -> tuple[list[UUID], list[int]]:
    return [id for id, _ in claims], [claim_no for _, claim_no in claims]
