"""What the database says about the jobs, asked past the daemons; and a client to enqueue with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from jobd import Jobs
from jobd.door import Database, Link
from tests.factories import assert_consistent, query, scalar
from tests.signals import eventually

EFFECTS = """
create table if not exists public.effects (
    job_id uuid not null, claim_no bigint not null, pid int not null, what text not null,
    at timestamptz not null default clock_timestamp()
)
"""


class Board:
    """One connection, opened again when the server went away under it."""

    def __init__(self, database_url: str) -> None:
        self.link = Link(Database(database_url))
        self.jobs = Jobs(database_url)

    async def query(self, text: str, *args: Any) -> list[Any]:
        return await query(self.link, text, *args)

    async def scalar(self, text: str, *args: Any) -> Any:
        return await scalar(self.link, text, *args)

    async def count(self, state: str, *, worker: str | None = None) -> int:
        """How many jobs, of a worker or of all, are in this state, `finished` meaning any of its three."""
        states = ["succeeded", "cancelled", "dead"] if state == "finished" else [state]
        return int(
            await self.scalar(
                "select count(*) from jobd.all_jobs"
                " where state = any ($1::text[]) and ($2::text is null or worker_id::text = $2::text)",
                states,
                worker,
            )
        )

    async def reach(
        self, count: int, state: str, *, timeout: float = 15.0, worker: str | None = None
    ) -> None:
        """Wait until so many jobs are in this state."""
        await eventually(
            lambda: self.count(state, worker=worker), until=lambda now: now >= count, timeout=timeout
        )

    async def row(self, id: UUID) -> Any:
        (row,) = await self.query("select * from jobd.all_jobs where id = $1::uuid", id)
        return row

    async def in_state(self, id: UUID, state: str, *, timeout: float = 15.0) -> Any:
        """Wait until this job is in this state; return its row."""
        return await eventually(
            lambda: self.row(id), until=lambda row: row["state"] == state, timeout=timeout
        )

    async def confirmed(self, worker: str, *, seconds: float) -> None:
        """Wait until this worker may take others for dead."""
        await eventually(
            lambda: self.query(
                "select from jobd.workers where id = $1::text::uuid"
                " and confirmed_since + make_interval(secs => $2::float8) < clock_timestamp()",
                worker,
                seconds,
            )
        )

    async def claims_end(self, workers: int) -> None:
        """Wait until so many workers claim nothing more: a claim that was sent before may still be answered
        when one says that it stops."""
        await eventually(
            lambda: self.scalar("select count(*) from jobd.workers where stopping_at is not null"),
            until=lambda now: now == workers,
        )

    async def at_work(self, pid: int) -> None:
        """Wait until this process beats, under whatever name: one taken for dead goes on as somebody else."""
        await eventually(
            lambda: self.query(
                "select from jobd.workers where pid = $1::int and lease_until > clock_timestamp()", pid
            )
        )

    async def effects(self, what: str) -> list[Any]:
        return await self.query("select * from public.effects where what like $1::text order by at", what)

    async def runs(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """How often each of these finished jobs was begun: a rescue gives the attempt back and counts a
        crash, and a claim that never began gives it back, too."""
        rows = await self.query(
            "select id, attempt + crashes as runs from jobd.job_history where id = any ($1::uuid[])",
            list(ids),
        )
        return {row["id"]: row["runs"] for row in rows}


@asynccontextmanager
async def board_on(database_url: str) -> AsyncIterator[Board]:
    board = Board(database_url)
    await board.query(EFFECTS)
    async with board.jobs:
        yield board
        await assert_consistent(board.link)
        await board.link.close()
