"""The gift exchange in a test: its tables, a clock that the test sets, and a run of a handler."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import structlog

from examples.sneaky_klaus import exchanges
from examples.sneaky_klaus.app import create_jobs
from examples.sneaky_klaus.clock import Clock
from examples.sneaky_klaus.exchanges import Connection, Pool
from examples.sneaky_klaus.reminders import schedule_reminders, send_reminders
from jobd import Job, JobContext
from jobd.handlers.email import Email

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)


class Klaus:
    """The application on a test's database, without a daemon."""

    pool: Pool

    def __init__(self, database_url: str, **settings: Any) -> None:
        self.now = NOON
        self.clock = Clock(real_now=lambda: self.now)
        self.jobs = create_jobs(clock=self.clock, database_url=database_url, **settings)
        self.log = structlog.get_logger()
        self.result: Any = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Also what a handler gets from `ctx.transaction()`."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    def set_result(self, result: Any) -> None:
        self.result = result

    @property
    def ctx(self) -> JobContext:
        """What the application's handlers use of their context."""
        return cast("JobContext", self)

    async def exchange(
        self,
        name: str = "Office party",
        *people: str,
        date: str = "2026-11-04 18:00",
        timezone: str = "America/New_York",
        days: Sequence[int] = (7, 3, 1),
        state: str = "matched",
    ) -> int:
        """An exchange whose participants have these names; no reminders are planned."""
        async with self.transaction() as tx:
            exchange_id = await exchanges.create(
                tx,
                name,
                timezone=timezone,
                exchange_date=datetime.fromisoformat(date),
                admin_email="admin@example.com",
                reminder_days=days,
            )
            await exchanges.change(tx, exchange_id, state=state)
            for person in people:
                await exchanges.join(tx, exchange_id, person, f"{person.lower()}@example.com")
        return exchange_id

    async def completed(self, name: str, *, at: datetime) -> int:
        exchange_id = await self.exchange(name, "Ada")
        async with self.transaction() as tx:
            await exchanges.complete(tx, exchange_id, now=at)
        return exchange_id

    async def change(self, exchange_id: int, **changes: Any) -> None:
        """Change an exchange and plan its reminders anew, as the web application does."""
        async with self.transaction() as tx:
            await exchanges.change(tx, exchange_id, **changes)
            await self.plan(tx, exchange_id)

    async def plan(self, tx: Connection, exchange_id: int) -> None:
        await schedule_reminders(tx, exchange_id, jobs=self.jobs, clock=self.clock)

    async def planned(self) -> dict[str, datetime]:
        """The waiting reminders: key to time."""
        rows = await self.query("select * from jobd.jobs where kind = 'send_reminders' order by run_at")
        return {row["unique_key"]: row["run_at"] for row in rows}

    async def remind(self, exchange_id: int, days: int, *, planned: bool = False) -> Any:
        """Call the handler, as a function; return the result that it set."""
        await send_reminders(self.ctx, self.clock, exchange_id, days, planned)
        return self.result

    async def let_run(self, unique_key: str, *, at: datetime) -> Job:
        """Set the clock, and let a running daemon run this job now, whatever time it was given."""
        self.now = at
        [job] = await self.query(f"select id from jobd.jobs where unique_key = '{unique_key}'")
        await self.jobs.run_now(job["id"])
        return await self.jobs.wait(job["id"], timeout=20)

    async def let_night_come(self, schedule: str, *, at: datetime) -> Job:
        """Set the clock, and let a running daemon do what this schedule is for."""
        self.now = at
        return await self.jobs.wait(await self.jobs.schedules.trigger(schedule), timeout=20)

    async def mails(self) -> list[Any]:
        """The queued mails' jobs."""
        return await self.query("select * from jobd.jobs where kind = 'email' order by id")

    async def names(self, state: str) -> list[str]:
        async with self.transaction() as tx:
            return [exchange.name for exchange in await exchanges.in_state(tx, state)]

    async def query(self, text: str) -> list[Any]:
        async with self.transaction() as tx:
            return await tx.fetch(text)


@asynccontextmanager
async def opened(database_url: str, **settings: Any) -> AsyncIterator[Klaus]:
    klaus = Klaus(database_url, **settings)
    async with klaus.jobs, exchanges.opened(database_url) as klaus.pool:
        yield klaus


def recipients(mails: Sequence[Any]) -> list[str]:
    """The bare addresses of queued mails."""
    return [address for mail in mails for address in Email(**json.loads(mail["payload"])).recipients()]
