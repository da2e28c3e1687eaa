"""Reminders: delayed jobs, one for each of an exchange's reminder days, and what they do when they run."""

from __future__ import annotations

from datetime import datetime, timedelta

from jobd import Cancel, Discard, JobContext, Jobs, Snooze

from . import exchanges, mails
from .clock import Clock
from .exchanges import Connection, Exchange

GRACE = timedelta(hours=1)
"""A reminder that comes later than this, because nothing was running, is worse than none."""

EARLY = timedelta(seconds=1)


async def schedule_reminders(
    connection: Connection, exchange_id: int, *, jobs: Jobs, clock: Clock
) -> list[datetime]:
    """Plan the reminders of an exchange anew, in the caller's transaction; return their moments.

    To be called when an exchange becomes matched and when its date or reminder days change. Those planned
    before are taken back, those that would lie in the past are left out.
    """
    exchange = await exchanges.locked(connection, exchange_id)
    prefix = f"reminder_exchange_{exchange_id}_days_"
    # In SQL, because `jobs.cancel` has a connection of its own: if the caller rolled back, the reminders
    # would be gone all the same. One that runs already stays, and finds out by itself (see `_keep_to_plan`).
    await connection.execute(
        """delete from jobd.jobs
            where kind = 'send_reminders' and starts_with(unique_key, $1)
              and state in ('scheduled', 'ready')""",
        prefix,
    )
    if exchange is None or exchange.state != "matched":
        return []
    moments = []
    for days in sorted(set(exchange.reminder_days), reverse=True):
        moment = exchange.reminder_at(days)
        if moment <= clock.now():
            continue
        moments.append(moment)
        await jobs.enqueue(
            "send_reminders",
            {"exchange_id": exchange_id, "days": days, "planned": True},
            run_at=clock.real(moment),
            unique_key=f"{prefix}{days}",
            connection=connection,
        )
    return moments


async def send_reminders(
    ctx: JobContext, clock: Clock, exchange_id: int, days: int, planned: bool = False
) -> None:
    """Queue a mail to everybody who wants to be reminded; each is sent, and retried, as a job of its own.

    The mails and the end of this job are one transaction: nobody gets two, however often a worker dies.
    Enqueued by hand it mails at once; `planned`, it keeps to the plan.
    """
    async with ctx.transaction() as tx:
        exchange = await exchanges.locked(tx, exchange_id)
        if exchange is None or exchange.state != "matched":
            ctx.log.info("no reminders: the exchange is not matched", exchange_id=exchange_id)
            ctx.set_result({"queued": 0, "failed": 0})
            return
        if planned:
            _keep_to_plan(exchange, days, clock)
        queued, failed = await _queue_mails(ctx, tx, exchange, days)
        ctx.set_result({"exchange": exchange.name, "days": days, "queued": queued, "failed": failed})
    ctx.log.info(f"{queued} reminders queued, {failed} failed", exchange_id=exchange_id, days=days)


def _keep_to_plan(exchange: Exchange, days: int, clock: Clock) -> None:
    """Raise what ends a run that does not fit the exchange as it is now."""
    if days not in exchange.reminder_days:
        raise Cancel(f"there is no reminder {days} days before any more")
    wait = clock.until(exchange.reminder_at(days))
    if wait > EARLY:
        # The exchange was moved after this job had been claimed, when it could not be replaced any more.
        raise Snooze(wait, "the exchange was moved")
    if wait < -GRACE:
        raise Discard("missed: no worker ran in the hour in which it was due")


async def _queue_mails(ctx: JobContext, tx: Connection, exchange: Exchange, days: int) -> tuple[int, int]:
    """How many mails were queued, and how many could not be."""
    queued = failed = 0
    for participant in await exchanges.to_be_reminded(tx, exchange.id):
        try:
            mail = mails.reminder(exchange, participant, days=days)
            await ctx.jobs.enqueue("email", mail, connection=tx, **mails.PATIENCE)
            queued += 1
        except ValueError as error:  # the address is none; a PayloadError of jobd's would be one, too
            ctx.log.warning("cannot remind a participant", participant_id=participant.id, why=str(error))
            failed += 1
    return queued, failed
