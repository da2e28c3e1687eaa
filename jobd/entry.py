"""How jobs come in, as calls: one method for each block of `sql/entry.sql`, in the same order.

What has been asked is checked by then, in `options`. Every `now` is None in production, where the database's
clock counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from jobd import sql
from jobd.door import Executes
from jobd.errors import IdTaken, Refused, UniqueKeyTaken
from jobd.ids import IdSequence
from jobd.job import Enqueued, NewJob

BLOCKS = sql.blocks("entry")


class Entry:
    """How jobs begin. Raises DatabaseUnavailable when it cannot be known whether they did."""

    def __init__(self, door: Executes) -> None:
        self.door = door

    async def enqueue(self, job: NewJob, *, now: datetime | None = None) -> Enqueued:
        """Put one job into the queue; see `jobd.enqueue` in sql/functions.sql.

        Repeating it with the same id is safe. Raises IdTaken, TenantFull, and UniqueKeyTaken for `reject`.
        """
        try:
            (row,) = await self.door.fetch(BLOCKS["enqueue"], *_enqueue_arguments(job, now=now))
        except Refused as refusal:
            if refusal.constraint == "jobs_pkey":
                raise IdTaken(job.id) from refusal
            raise
        if job.on_conflict == "reject":
            _reject([job.unique_key], [job.id], [row["id"]])
        return Enqueued(row["id"], row["created"], row["replaced"], row["shed"])

    async def enqueue_new(self, job: NewJob, *, now: datetime | None = None) -> None:
        """Put a job of no tenant, without a unique key, whose id was made for this call, into the queue."""
        await self.door.fetch(BLOCKS["enqueue_new"], *_enqueue_new_arguments(job, now=now))

    async def enqueue_of_tenant(self, job: NewJob, *, now: datetime | None = None) -> bool:
        """As `enqueue_new`, for a job of a tenant.

        False, and nothing was done: its tenant has no room, and `enqueue` knows what that means.
        """
        return bool(await self.door.fetch(BLOCKS["enqueue_of_tenant"], *_enqueue_new_arguments(job, now=now)))

    async def enqueue_many(
        self,
        job: NewJob,
        *,
        ids: Sequence[UUID],
        payloads: Sequence[str],
        concurrency_keys: Sequence[str] | None = None,
        now: datetime | None = None,
    ) -> int:
        """Put one job a payload into the queue; all but id, payload and such keys is taken from `job`.

        Returns how many of them ended at once, since their tenant has no room. Raises TenantFull.
        """
        rows = await self.door.fetch(
            BLOCKS["enqueue_many"],
            *_enqueue_many_arguments(
                job, ids=ids, payloads=payloads, concurrency_keys=concurrency_keys, now=now
            ),
        )
        return int(rows[0]["shed"])

    async def enqueue_keyed(
        self,
        job: NewJob,
        *,
        ids: Sequence[UUID],
        payloads: Sequence[str],
        unique_keys: Sequence[str | None],
        concurrency_keys: Sequence[str] | None = None,
        now: datetime | None = None,
    ) -> list[Enqueued]:
        """As `enqueue_many`, each with a unique key of its own; return what `enqueue` would of each.

        Raises UniqueKeyTaken where a conflict is to be rejected; the others are in by then.
        """
        rows = await self.door.fetch(
            BLOCKS["enqueue_keyed"],
            job.kind, list(payloads), list(unique_keys), job.queue, job.run_at, job.delay, job.priority,
            job.tenant_id, job.use_case, job.delay_tolerance, job.deadline_policy, job.max_attempts,
            job.backoff, job.timeout, job.headers, now, [str(id) for id in ids], job.unique_for,
            _conflict(job), _limit_keys(job, concurrency_keys, len(payloads)),
        )  # fmt: skip
        found = [row["id"] for row in rows]
        if job.on_conflict == "reject":
            _reject(unique_keys, ids, found)
        return [
            Enqueued(row["id"], row["id"] == id, shed=row["shed"]) for row, id in zip(rows, ids, strict=True)
        ]


def _enqueue_arguments(job: NewJob, *, now: datetime | None = None) -> tuple[Any, ...]:
    """The arguments of block `enqueue`, in its order."""
    return (
        job.kind, job.payload, job.queue, job.run_at, job.delay, job.priority, job.tenant_id, job.use_case,
        job.unique_key, job.concurrency_key, job.delay_tolerance, job.deadline_policy, job.max_attempts,
        job.backoff, job.timeout, job.headers, now, str(job.id), job.unique_for, _conflict(job),
    )  # fmt: skip


def _conflict(job: NewJob) -> str:
    # An error of the database would abort the caller's transaction: the holder's id says as much.
    return "keep" if job.on_conflict == "reject" else job.on_conflict


def _reject(keys: Sequence[str | None], ids: Sequence[UUID], found: Sequence[UUID]) -> None:
    for key, id, holder in zip(keys, ids, found, strict=True):
        if id != holder and key is not None:
            # What this very call has made goes with the refusal: there is nothing to wait for.
            raise UniqueKeyTaken(None, key, None if holder in set(ids) else holder)


def _enqueue_many_arguments(
    job: NewJob,
    *,
    ids: Sequence[UUID],
    payloads: Sequence[str],
    concurrency_keys: Sequence[str] | None = None,
    now: datetime | None = None,
) -> tuple[Any, ...]:
    """The arguments of block `enqueue_many`, in its order."""
    return (
        job.kind, list(payloads), job.queue, job.run_at, job.delay, job.priority, job.tenant_id, job.use_case,
        job.delay_tolerance, job.deadline_policy, job.max_attempts, job.backoff, job.timeout, job.headers,
        now, ids.texts() if isinstance(ids, IdSequence) else [str(id) for id in ids],
        _limit_keys(job, concurrency_keys, len(payloads)),
    )  # fmt: skip


def _limit_keys(job: NewJob, keys: Sequence[str] | None, count: int) -> list[str] | None:
    if keys is not None:
        return list(keys)
    return None if job.concurrency_key is None else [job.concurrency_key] * count


def _enqueue_new_arguments(job: NewJob, *, now: datetime | None) -> tuple[Any, ...]:
    return (
        job.kind, job.payload, job.queue, job.run_at, job.delay, job.priority, job.tenant_id, job.use_case,
        job.concurrency_key, job.delay_tolerance, job.deadline_policy, job.max_attempts, job.backoff,
        job.timeout, job.headers, now, str(job.id),
    )  # fmt: skip
