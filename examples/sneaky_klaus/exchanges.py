"""Exchanges and their participants: what they are, and the statements that read and write them.

Every function takes a connection and leaves the transaction to its caller, so that a change of an
exchange and the jobs it asks for are committed together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:  # jobd gives handlers the pool by this type, which has no parameters while the program runs
    Connection, Pool = asyncpg.Connection, asyncpg.Pool

SCHEMA_LOCK = 0x6B6C617573  # "klaus": daemons that start together create the tables one by one
COLUMNS = """id, name, state, timezone, exchange_date, reminder_days, reminder_time, admin_email,
             completed_at, warned_at"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One row. `exchange_date` has no zone: it is what the clock on the wall shows in `timezone`."""

    id: int
    name: str
    state: str
    timezone: str
    exchange_date: datetime
    reminder_days: list[int]
    reminder_time: time | None
    admin_email: str
    completed_at: datetime | None
    warned_at: datetime | None

    @property
    def happens_at(self) -> datetime:
        """The moment of the exchange. Raises ZoneInfoNotFoundError."""
        return self._moment(self.exchange_date)

    def reminder_at(self, days: int) -> datetime:
        """The moment so many days before, when the clock on the wall shows the time for reminders.

        Days are those of the calendar, so a change to or from summer time in between shifts nothing.
        """
        wall = self.exchange_date - timedelta(days=days)
        if self.reminder_time is not None:
            wall = datetime.combine(wall, self.reminder_time)
        return self._moment(wall)

    def _moment(self, wall: datetime) -> datetime:
        return wall.replace(tzinfo=ZoneInfo(self.timezone)).astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Somebody who is to be reminded."""

    id: int
    name: str
    email: str


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[Pool]:
    """The application's connections, once its tables are there."""
    # No statement cache, and every call in a transaction: that works behind a pooler, too.
    async with asyncpg.create_pool(database_url, min_size=0, max_size=5, statement_cache_size=0) as pool:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(f"select pg_advisory_xact_lock({SCHEMA_LOCK})")
            await connection.execute(files(__package__).joinpath("schema.sql").read_text("utf-8"))
        yield pool


async def create(
    connection: Connection,
    name: str,
    *,
    timezone: str,
    exchange_date: datetime,
    admin_email: str,
    reminder_days: Sequence[int] = (7, 3, 1),
) -> int:
    """Open an exchange; return its id."""
    return int(
        await connection.fetchval(
            """insert into klaus.exchanges (name, timezone, exchange_date, admin_email, reminder_days)
               values ($1, $2, $3, $4, $5) returning id""",
            *(name, timezone, exchange_date, admin_email, list(reminder_days)),
        )
    )


async def join(
    connection: Connection, exchange_id: int, name: str, email: str, *, reminder_enabled: bool = True
) -> int:
    """Add a participant; return their id."""
    return int(
        await connection.fetchval(
            """insert into klaus.participants (exchange_id, name, email, reminder_enabled)
               values ($1, $2, $3, $4) returning id""",
            *(exchange_id, name, email, reminder_enabled),
        )
    )


async def withdraw(connection: Connection, participant_id: int, *, now: datetime) -> None:
    """Let a participant leave; the row stays."""
    await connection.execute(
        "update klaus.participants set withdrawn_at = $2 where id = $1", participant_id, now
    )


async def change(
    connection: Connection,
    exchange_id: int,
    *,
    state: str | None = None,
    exchange_date: datetime | None = None,
    reminder_days: Sequence[int] | None = None,
    reminder_time: time | None = None,
) -> None:
    """Write what is given. Whoever changes what reminders depend on calls `schedule_reminders` next."""
    await connection.execute(
        """update klaus.exchanges
              set state = coalesce($2, state), exchange_date = coalesce($3, exchange_date),
                  reminder_days = coalesce($4, reminder_days), reminder_time = coalesce($5, reminder_time)
            where id = $1""",
        *(exchange_id, state, exchange_date),
        *(None if reminder_days is None else list(reminder_days), reminder_time),
    )


async def complete(connection: Connection, exchange_id: int, *, now: datetime) -> None:
    """Say that an exchange is over."""
    await connection.execute(
        "update klaus.exchanges set state = 'completed', completed_at = $2 where id = $1", exchange_id, now
    )


async def mark_warned(connection: Connection, exchange_id: int, *, now: datetime) -> None:
    """Remember that the admin was told of the removal."""
    await connection.execute("update klaus.exchanges set warned_at = $2 where id = $1", exchange_id, now)


async def remove(connection: Connection, exchange_id: int) -> None:
    """Remove an exchange with its participants."""
    await connection.execute("delete from klaus.exchanges where id = $1", exchange_id)


async def locked(connection: Connection, exchange_id: int) -> Exchange | None:
    """An exchange that stays as it is until the transaction ends."""
    row = await connection.fetchrow(
        f"select {COLUMNS} from klaus.exchanges where id = $1 for update", exchange_id
    )
    return None if row is None else Exchange(**row)


async def in_state(connection: Connection, state: str) -> list[Exchange]:
    """The exchanges in a state."""
    rows = await connection.fetch(
        f"select {COLUMNS} from klaus.exchanges where state = $1 order by id", state
    )
    return [Exchange(**row) for row in rows]


async def to_be_reminded(connection: Connection, exchange_id: int) -> list[Participant]:
    """Who has neither withdrawn nor switched reminders off."""
    rows = await connection.fetch(
        """select id, name, email from klaus.participants
            where exchange_id = $1 and reminder_enabled and withdrawn_at is null order by id""",
        exchange_id,
    )
    return [Participant(**row) for row in rows]
