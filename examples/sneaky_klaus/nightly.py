"""What happens every night: exchanges that are over are completed, and removed a month later."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any

from jobd import JobContext, Jobs

from . import exchanges, mails
from .clock import DAY, Clock
from .exchanges import Connection, Exchange, Pool

KEPT = timedelta(days=30)
WARNING = timedelta(days=7)

log = logging.getLogger(__name__)


def declare(jobs: Jobs, clock: Clock) -> None:
    """Let both occur every night; in a story, each of its nights, however long its days really are."""
    for function, at in ((auto_complete_exchanges, time(0)), (purge_old_exchanges, time(2))):
        jobs.handler(function.__name__, max_attempts=5)(function)
        if clock.day == DAY:
            jobs.cron(f"0 {at.hour} * * *")(function)
        else:
            night = datetime.combine(clock.now(), at, UTC)
            jobs.every(f"{clock.day.total_seconds():g}s", anchor=clock.real(night))(function)


async def auto_complete_exchanges(pool: Pool, clock: Clock) -> dict[str, list[str]]:
    """Complete the matched exchanges whose date has come; each in a transaction of its own."""
    completed: list[str] = []

    async def complete(connection: Connection, exchange: Exchange) -> None:
        if exchange.state == "matched" and exchange.happens_at <= clock.now():
            await exchanges.complete(connection, exchange.id, now=clock.now())
            completed.append(exchange.name)

    await _each("matched", complete, pool)
    return {"completed": completed}


async def purge_old_exchanges(ctx: JobContext, pool: Pool, clock: Clock) -> dict[str, list[str]]:
    """Remove exchanges 30 days after their completion, participants too; tell the admin a week before."""
    warned: list[str] = []
    purged: list[str] = []

    async def warn_or_purge(connection: Connection, exchange: Exchange) -> None:
        if exchange.completed_at is None:
            return
        end = exchange.completed_at + KEPT
        if end <= clock.now():
            log.info("removing exchange %d, completed on %s", exchange.id, exchange.completed_at)
            await exchanges.remove(connection, exchange.id)
            purged.append(exchange.name)
        elif end - WARNING <= clock.now() and exchange.warned_at is None:
            # One transaction: the mark is there if and only if the mail is queued.
            await exchanges.mark_warned(connection, exchange.id, now=clock.now())
            mail = mails.purge_warning(exchange, purged_on=end)
            await ctx.jobs.enqueue("email", mail, connection=connection, **mails.PATIENCE)
            warned.append(exchange.name)

    await _each("completed", warn_or_purge, pool)
    return {"warned": warned, "purged": purged}


async def _each(state: str, work: Callable[[Connection, Exchange], Awaitable[Any]], pool: Pool) -> None:
    """Do the work for each exchange in this state, locked; one that fails is left for the retry."""
    async with pool.acquire() as connection, connection.transaction():
        found = await exchanges.in_state(connection, state)
    failed = []
    for exchange in found:
        try:
            async with pool.acquire() as connection, connection.transaction():
                current = await exchanges.locked(connection, exchange.id)
                if current is not None:
                    await work(connection, current)
        except Exception:
            log.exception("exchange %d is left as it was", exchange.id)
            failed.append(exchange.id)
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(found)} exchanges failed, the others are done: {failed}")
