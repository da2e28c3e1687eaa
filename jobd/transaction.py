"""Exactly-once effects: a handler's writes and the fenced end of its run in one transaction.

    begin -- the handler's writes -- succeed (fenced by claim_no) -- commit
               |                        |                             |
               raise: roll back         no row: the claim is lost,    answer lost: pg_xact_status
                                        roll back, ClaimLost          decides

Either both are durable or neither is. What leaves the process meanwhile (mail, HTTP) is not covered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from jobd import sql
from jobd.door import Record, run
from jobd.errors import ClaimLost, DatabaseUnavailable, JobdError, PartitionMissing
from jobd.fleet import Fleet
from jobd.job import FinishedRun
from jobd.pool import Pool
from jobd.reader import Reader
from jobd.sqlstate import translated
from jobd.store import Store

COMMIT_PATIENCE_SECONDS = 30.0


class Inside:
    """A door into a transaction that is open on a connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def fetch(self, block: sql.Block, *args: Any) -> list[Record]:
        with translated:
            return await run(self.connection, block, args, prepares=True)


@contextlib.asynccontextmanager
async def effect(
    pool: Pool, success: Callable[[], FinishedRun], *, terse: bool, on_commit: Callable[[], None]
) -> AsyncIterator[Any]:
    """A transaction whose end is also that of the run; `success()` says what to record, when all is done.

    `terse`: its queue keeps no successes. `on_commit` is called once all is durable. Raises ClaimLost,
    with everything rolled back, when the claim is not ours any more.
    """
    async with pool.connection() as connection:
        transaction = connection.transaction(isolation="read_committed")
        with translated:
            await transaction.start()
        try:
            yield connection
            xid = await _record(connection, success(), pool, terse=terse)
        except BaseException:
            with contextlib.suppress(Exception):
                await transaction.rollback()
            raise
        # Shielded: a cancel between COMMIT and its answer would leave us not knowing what is durable, and
        # the connection must not go back to the pool before that answer.
        commit = asyncio.ensure_future(_commit(transaction, xid, pool, on_commit))
        try:
            await asyncio.shield(commit)
        finally:
            if not commit.done():
                await asyncio.wait({commit}, timeout=COMMIT_PATIENCE_SECONDS)


async def _record(connection: Any, ending: FinishedRun, pool: Pool, *, terse: bool) -> str:
    store = Store(Inside(connection))
    succeed = store.succeed_tersely if terse else store.succeed
    with translated:
        xid = await connection.fetchval("select pg_current_xact_id()::text")
    try:
        async with connection.transaction():
            lost = await succeed([ending])
    except PartitionMissing:
        await Fleet(pool).ensure_partitions()
        lost = await succeed([ending])
    if lost:
        raise ClaimLost(ending.id, ending.claim_no)
    return str(xid)


async def _commit(transaction: Any, xid: str, pool: Pool, on_commit: Callable[[], None]) -> None:
    try:
        with translated:
            await transaction.commit()
    except DatabaseUnavailable as lost:
        if not await _committed(xid, pool, lost):
            raise
    on_commit()


async def _committed(xid: str, pool: Pool, lost: DatabaseUnavailable) -> bool:
    """What became of a COMMIT whose answer never came."""
    reader = Reader(pool)
    try:
        async with asyncio.timeout(COMMIT_PATIENCE_SECONDS):
            while True:
                try:
                    status = await reader.transaction_status(xid)
                except (JobdError, TimeoutError):
                    status = "in progress"
                if status != "in progress":
                    return status == "committed"
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise lost from None
