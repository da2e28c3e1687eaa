"""The demo's story: two exchanges that are a week away, and one that has been over for three weeks."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from jobd import Jobs

from . import exchanges
from .clock import Clock
from .exchanges import Connection, Exchange
from .reminders import schedule_reminders

SENTENCE = "A gift exchange on jobd: reminders are jobs in PostgreSQL, their mails go to a real SMTP server."
SENDER = "Sneaky Klaus <klaus@example.com>"
ADMIN = "admin@example.com"


def beginning() -> datetime:
    """When the story begins: the last morning of November."""
    return datetime(datetime.now(UTC).year, 11, 30, 8, tzinfo=UTC)


async def begin(connection: Connection, *, jobs: Jobs, clock: Clock) -> list[Exchange]:
    """Write the story's exchanges, and in the same transaction the jobs that remind of them."""
    today = clock.now().date()
    async with connection.transaction():
        party = await exchanges.create(
            connection,
            "Office party",
            timezone="Europe/Berlin",
            exchange_date=datetime.combine(today + timedelta(days=8), time(18)),
            admin_email=ADMIN,
        )
        await exchanges.join(connection, party, "Ada", "ada@example.com")
        await exchanges.join(connection, party, "Grace", "grace@busy.example")
        await exchanges.join(connection, party, "Edsger", "edsger@example.com", reminder_enabled=False)
        bob = await exchanges.join(connection, party, "Bob", "bob@example.com")
        await exchanges.withdraw(connection, bob, now=clock.now())

        dinner = await exchanges.create(
            connection,
            "Family dinner",
            timezone="America/New_York",
            exchange_date=datetime.combine(today + timedelta(days=9), time(19)),
            admin_email=ADMIN,
        )
        await exchanges.join(connection, dinner, "Mary", "mary@example.com")
        await exchanges.join(connection, dinner, "John", "john@example.com")

        club = await exchanges.create(
            connection,
            "Book club",
            timezone="Asia/Tokyo",
            exchange_date=datetime.combine(today - timedelta(days=23), time(20)),
            admin_email=ADMIN,
        )
        await exchanges.join(connection, club, "Haruki", "haruki@example.com")
        await exchanges.complete(connection, club, now=clock.now() - timedelta(days=22.5))

        for exchange_id in (party, dinner):
            await exchanges.change(connection, exchange_id, state="matched")
            await schedule_reminders(connection, exchange_id, jobs=jobs, clock=clock)
        return [
            *await exchanges.in_state(connection, "matched"),
            *await exchanges.in_state(connection, "completed"),
        ]
