"""Rows in any state, in one line; written straight into the tables, past every rule of the product.

`door` is anything that executes blocks: a Link, a Pool, or a transaction that a test holds open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from jobd.door import Executes
from jobd.ids import uuid7
from jobd.job import Claimed, FinishedRun, JobState, NewJob
from jobd.sql import Block
from jobd.store import Store

SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)

_CLAIM_NO = {"scheduled": 0, "ready": 0, "running": 1}


async def make_job(door: Executes, *, state: str = "ready", **columns: Any) -> UUID:
    """A job in `state`; `columns` are those of `jobd.jobs` or, for a finished one, `jobd.job_history`."""
    finished = state not in _CLAIM_NO
    ran = finished or state == "running"
    now = datetime.now(UTC)
    row: dict[str, Any] = {
        "id": uuid7(),
        "queue": "default",
        "kind": "noop",
        "state": state,
        "priority": 0,
        "run_at": now + 3600 * SECOND if state == "scheduled" else now,
        "deadline_policy": "run",
        "payload": {},
        "attempt": int(ran),
        "crashes": 0,
        "generation": 0,
        "claim_no": _CLAIM_NO.get(state, 2),
        "errors": [],
        "created_at": now,
    }
    if ran:
        row |= {"worker_id": uuid4(), "claimed_at": now}
    if finished:
        row |= {"finished_at": now}
    row |= columns
    row.setdefault("deadline_at", row["run_at"] + (row.get("delay_tolerance") or timedelta(0)))
    await _insert(door, "job_history" if finished else "jobs", row)
    return row["id"]


async def make_jobs(door: Executes, count: int, **columns: Any) -> list[UUID]:
    """Several alike, in the order of their ids."""
    return [await make_job(door, **columns) for _ in range(count)]


async def make_worker(door: Executes, *, lease: timedelta = LEASE, **columns: Any) -> UUID:
    """A process whose lease lasts for `lease` from now, or lapsed if that is negative."""
    now = datetime.now(UTC)
    row: dict[str, Any] = {
        "id": uuid4(),
        "host": "testhost",
        "pid": 1,
        "version": "0",
        "queues": ["default"],
        "kinds": [],
        "roles": ["worker"],
        "concurrency": 10,
        "started_at": now,
        "beat_at": now,
        "confirmed_since": now,
        "lease_until": now + lease,
    }
    row |= columns
    await _insert(door, "workers", row)
    return row["id"]


def new_job(**fields: Any) -> NewJob:
    """A job on its way into the database."""
    defaults: dict[str, Any] = {"id": uuid7(), "kind": "noop", "payload": "{}"}
    return NewJob(**defaults | fields)


def claimed(**fields: Any) -> Claimed:
    """A claim as `Store.claim` returns it, for what needs no database."""
    now = datetime.now(UTC)
    defaults: dict[str, Any] = {
        "id": uuid7(),
        "claim_no": 1,
        "queue": "default",
        "kind": "noop",
        "tenant_id": None,
        "use_case": None,
        "priority": 0,
        "run_at": now,
        "deadline_at": now,
        "delay_tolerance": None,
        "deadline_policy": "run",
        "payload": "{}",
        "attempt": 1,
        "max_attempts": None,
        "crashes": 0,
        "generation": 0,
        "created_at": now,
        "claimed_at": now,
        "backoff": None,
        "timeout": None,
    }
    return Claimed(**defaults | fields)


async def query(door: Executes, text: str, *args: Any) -> list[Any]:
    """The rows of a statement that only a test asks."""
    return await door.fetch(Block("test", (), text), *args)


async def scalar(door: Executes, text: str, *args: Any) -> Any:
    """The first column of the first row."""
    return (await query(door, text, *args))[0][0]


async def assert_consistent(door: Executes) -> None:
    """What holds for all jobs at any time.

    claim_no grows by one at each claim and by one at each end of a run, so it is odd exactly while the
    job runs; and a job is in one place.
    """
    assert not await query(
        door, "select id, state, claim_no from jobd.jobs where (state = 'running') <> (claim_no % 2 = 1)"
    )
    assert not await query(door, "select id, claim_no from jobd.job_history where claim_no % 2 = 1")
    assert not await query(door, "select id from jobd.all_jobs group by id having count(*) > 1")


async def _insert(door: Executes, table: str, row: dict[str, Any]) -> None:
    await query(
        door,
        f"insert into jobd.{table} select * from jsonb_populate_record(null::jobd.{table}, $1::text::jsonb)",
        json.dumps(row, default=_plain),
    )


def _plain(value: object) -> object:
    return f"{value.total_seconds()} seconds" if isinstance(value, timedelta) else str(value)


async def end_runs(
    store: Store, runs: Sequence[FinishedRun], *, now: datetime | None = None
) -> dict[UUID, JobState]:
    """Record runs, however they ended; return the state that each job got whose claim was still ours."""
    succeeded = [run for run in runs if run.state is JobState.SUCCEEDED]
    lost = await store.succeed(succeeded, now=now) if succeeded else set()
    states = {run.id: run.state for run in succeeded if run.id not in lost}
    return states | await store.finish([run for run in runs if run not in succeeded], now=now)


async def claim_all(
    store: Store,
    worker: UUID,
    *,
    rooms: Mapping[str, int],
    suspects: int = 1,
    suspect_from: int = 1,
    now: datetime | None = None,
    **limits: Any,
) -> list[Claimed]:
    """Claim jobs whether or not they were there when a worker died."""
    claims = await store.claim(worker, rooms=rooms, now=now, **limits)
    skipped = limits.get("skipped_kinds", ())
    return claims + await store.claim_victims(
        worker, rooms=rooms, skipped_kinds=skipped, suspects=suspects, suspect_from=suspect_from, now=now
    )
