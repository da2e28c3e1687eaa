"""Claims under limits, as the tests ask for them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from jobd.door import Link
from jobd.job import Claimed, FinishedRun, JobState
from jobd.store import Store
from tests.factories import query

# Takes a number of jobs that are all alike but for one column.
FILL = (
    "insert into jobd.jobs (id, queue, kind, state, priority, run_at, deadline_at, deadline_policy, payload,"
    " created_at, {column}) select jobd.uuid7(), 'default', 'noop', 'ready', 0, now() - interval '1 hour',"
    " now() - interval '1 hour', 'run', '{{}}', now(), {value} from generate_series(1, $1) n"
)


async def governed(store: Store, worker: UUID, room: int = 10, **options: Any) -> list[Claimed]:
    given: dict[str, Any] = {"rooms": {"default": room}, "kind_rooms": {}, "suspects": 1, "suspect_from": 2}
    return await store.claimed(worker, await store.claim_governed(worker, **given | options))


async def claimed(store: Store, worker: UUID, room: int = 10, **options: Any) -> list[UUID]:
    return [claim.id for claim in await governed(store, worker, room, **options)]


async def limit(door: Link, table: str, name: str, **columns: Any) -> None:
    key = "id" if table == "tenants" else "name"
    await query(
        door,
        f"insert into jobd.{table} ({key}, {', '.join(columns)})"
        f" values ($1, {', '.join(f'${n}' for n in range(2, len(columns) + 2))})",
        name,
        *columns.values(),
    )


async def finish(store: Store, claims: list[Claimed], state: str = "succeeded") -> None:
    await store.succeed([FinishedRun(id=c.id, claim_no=c.claim_no, state=JobState(state)) for c in claims])
