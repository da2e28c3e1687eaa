"""The application that the daemons of these tests run: `JOBD_APP=tests.daemon.handlers:jobs`.

Handlers that wait do so until a file is there, so that a test decides when they end; `gates` tells that they
have come so far. What must be counted from outside a run is a row of `public.effects`, written on a
connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

from jobd import JobContext, Jobs
from tests.daemon.gates import mark

jobs = Jobs()

FILE_POLL = 0.02


class Effects:
    """Writes rows that tell that a handler ran, past any transaction of jobd's."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def note(self, ctx: JobContext, what: str) -> None:
        await self._pool.execute(
            "insert into public.effects (job_id, claim_no, pid, what) values ($1, $2, $3, $4)",
            ctx.id, ctx.claim_no, os.getpid(), what,
        )  # fmt: skip


@jobs.lifespan
async def effects() -> AsyncIterator[Effects]:
    assert jobs.settings.database_url is not None
    pool = asyncpg.create_pool(jobs.settings.database_url, min_size=0, max_size=4, statement_cache_size=0)
    async with pool:
        yield Effects(pool)


@jobs.handler("noop")
async def noop() -> None:
    """Ends at once."""


@jobs.handler("add")
async def add(a: int, b: int) -> int:
    return a + b


@jobs.handler("nap")
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


@jobs.handler("wide", backoff=lambda attempt: 0.05)
@jobs.handler("narrow", backoff=lambda attempt: 0.05)
@jobs.handler("lined", backoff=lambda attempt: 0.05)
async def falter(ctx: JobContext, seconds: float, fails: int) -> None:
    """`nap` that fails at so many attempts; three kinds, which differ in what they may do at a time."""
    await asyncio.sleep(seconds)
    if ctx.attempt <= fails:
        raise RuntimeError("not yet")


@jobs.handler("wait")
async def wait(path: str) -> str:
    """Runs until the file is there, and for a moment in any case."""
    mark(path)
    await asyncio.sleep(FILE_POLL)
    while not Path(path).exists():  # noqa: ASYNC110
        await asyncio.sleep(FILE_POLL)
    return "the file was there"


@jobs.handler("wait_noted")
async def wait_noted(ctx: JobContext, effects: Effects, path: str) -> None:
    """`wait` that tells when it starts and when it ends."""
    await effects.note(ctx, "started")
    await wait(path)
    await effects.note(ctx, "ended")


@jobs.handler("step")
async def step(ctx: JobContext, effects: Effects, name: str = "", path: str = "") -> None:
    """Quick, but where it is told to wait for a file; those with a name tell that they began."""
    if name:
        await effects.note(ctx, f"began {name}")
    if path:
        await wait(path)


@jobs.handler("stubborn")
async def stubborn(path: str) -> None:
    """Swallows every cancellation until the file is there."""
    mark(path)
    while not Path(path).exists():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FILE_POLL)


@jobs.handler("thread_wait")
def thread_wait(path: str) -> str:
    """Runs in a thread, deaf to everything, until the file is there."""
    mark(path)
    while not Path(path).exists():
        time.sleep(FILE_POLL)
    return "the file was there"


@jobs.handler("process_wait", run_in="process")
def process_wait(path: str) -> str:
    """Runs in a process until the file is there."""
    mark(path)
    while not Path(path).exists():
        time.sleep(FILE_POLL)
    return "the file was there"


@jobs.handler("block_until")
async def block_until(path: str) -> None:
    """Blocks the loop until the file is there."""
    mark(path)
    while not Path(path).exists():
        time.sleep(FILE_POLL)  # noqa: ASYNC251


@jobs.handler("poison")
async def poison() -> None:
    """Takes the whole process with it."""
    os._exit(9)


@jobs.handler("tripwire")
async def tripwire(path: str) -> None:
    """Ends the process whenever it runs while the file is not there."""
    if not Path(path).exists():
        os._exit(9)


@jobs.handler("insert")
async def insert(ctx: JobContext, n: int) -> None:
    """One row in the job's own transaction."""
    async with ctx.transaction() as tx:
        await tx.execute("insert into public.effects (job_id, claim_no, pid, what) values ($1, $2, $3, $4)",
                         ctx.id, ctx.claim_no, os.getpid(), f"inserted {n}")  # fmt: skip


@jobs.handler("insert_slowly")
async def insert_slowly(ctx: JobContext, path: str) -> None:
    """A row in the job's own transaction, which is kept open until the file is there."""
    async with ctx.transaction() as tx:
        await tx.execute("insert into public.effects (job_id, claim_no, pid, what) values ($1, $2, $3, $4)",
                         ctx.id, ctx.claim_no, os.getpid(), "inserted")  # fmt: skip
        await wait(path)


@jobs.handler("insert_late")
async def insert_late(ctx: JobContext, seconds: float) -> None:
    """`insert` that takes its time."""
    async with ctx.transaction() as tx:
        await tx.execute("insert into public.effects (job_id, claim_no, pid, what) values ($1, $2, $3, $4)",
                         ctx.id, ctx.claim_no, os.getpid(), "inserted")  # fmt: skip
        await asyncio.sleep(seconds)


@jobs.handler("noted")
async def noted(ctx: JobContext, effects: Effects) -> None:
    await effects.note(ctx, "ran")


@jobs.handler("block_later")
async def block_later(seconds: float, turns: int) -> None:
    """Blocks the loop when it has turned a few times, so that a claim is under way."""
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(seconds)  # noqa: ASYNC251


@jobs.handler("terminate_self")
async def terminate_self(times: int = 1) -> None:
    """SIGTERM to the daemon from inside it."""
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)


@jobs.handler("threads")
def threads() -> dict[str, Any]:
    return {"thread": threading.current_thread().name, "pid": os.getpid()}
