"""A scheduler that dies at any statement of a fire: the next one loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jobd.door import Database, Link
from jobd.errors import DatabaseUnavailable
from jobd.terms import terms
from tests.engine.clockwork import BEGIN, MINUTE, Clockwork
from tests.engine.fragile import Fate, FragileLink, Killed
from tests.factories import query, scalar
from tests.signals import eventually

# What a scheduler sends from its start to the end of a fire, in this order.
STATEMENTS = ("put", "disown", "elect", "due", "fire", "cancel", "settle", "next_fire")
LAPSED = timedelta(seconds=6)


@pytest.fixture
async def fragile(direct_database_url: str) -> AsyncIterator[FragileLink]:
    link = FragileLink(Database(direct_database_url))
    yield link
    await link.close()


@pytest.fixture
async def victim(link: Link, fragile: FragileLink) -> Clockwork:
    """A new process, at minute 2 of a schedule whose first occurrence still runs."""
    made = [terms("s", "* * * * *", "tick", owner="code", now=BEGIN, overlap="replace")]
    before = Clockwork(link, declared={"code": made})
    await before.scheduler.declare(None)
    await before.at(BEGIN + MINUTE)
    await before.fleet.abdicate("jobd", before.worker_id)
    victim = Clockwork(fragile, declared={"code": made})
    victim.now = BEGIN + 2 * MINUTE
    return victim


async def fire(process: Clockwork) -> None:
    """What a scheduler does from its start to the end of a fire."""
    await process.scheduler.declare(None)
    await process.at(process.now)


async def test_these_are_the_statements_of_a_fire(victim: Clockwork, fragile: FragileLink):
    await fire(victim)
    assert tuple(fragile.sent) == STATEMENTS
    assert await victim.fired() == [1, 2]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("statement", STATEMENTS)
async def test_killed_at_a_statement(
    victim: Clockwork, fragile: FragileLink, link: Link, statement: str, when: Fate
):
    fragile.fate = lambda name: when if name == statement else None
    with pytest.raises(Killed):
        await fire(victim)
    standby = Clockwork(link)
    standby.now = victim.now + LAPSED
    await fire(standby)
    await told_once(standby, [1, 2])
    # And it goes on.
    await standby.at(BEGIN + 3 * MINUTE)
    await told_once(standby, [1, 2, 3])


@pytest.mark.parametrize(
    "held",
    [
        "select from jobd.leader for update",
        "insert into jobd.schedule_runs (schedule_id, fire_at, last_at, outcome)"
        " values ('s', '2026-03-01 00:03+00', '2026-03-01 00:03+00', 'ran')",
        "lock table jobd.jobs in share row exclusive mode",
    ],
    ids=["at its proof", "at the history", "at the jobs"],
)
async def test_killed_within_a_fire_that_commits_after_its_death(
    victim: Clockwork, fragile: FragileLink, link: Link, direct_database_url: str, held: str
):
    # The statement is prepared by now, and there is nothing to replace: the fire itself is what waits.
    await fire(victim)
    await victim.end_jobs()
    victim.now += MINUTE
    assert await victim.lead()
    assert victim.term is not None
    holder = await Database(direct_database_url).connect()
    try:
        await holder.execute("begin")
        await holder.execute(held)
        firing = asyncio.ensure_future(victim.scheduler.once(victim.term))
        await eventually(lambda: scalar(link, WAITING), until=lambda count: count == 1)
        # The server does not notice until it has something to say.
        fragile.drop()
        with pytest.raises(DatabaseUnavailable):
            await firing
    finally:
        await holder.close()
    await eventually(lambda: scalar(link, "select count(*) from jobd.schedule_runs"), until=lambda n: n == 3)
    standby = Clockwork(link)
    standby.now = victim.now + LAPSED
    await fire(standby)
    await told_once(standby, [1, 2, 3])


async def test_killed_within_a_fire_that_the_server_gives_up(victim: Clockwork, link: Link):
    """The server's process dies with half of the statement done."""
    await victim.scheduler.declare(None)
    assert await victim.lead()
    assert victim.term is not None
    await query(link, DIE)
    await query(link, TRIGGER)
    with pytest.raises(DatabaseUnavailable, match="terminat"):
        await victim.scheduler.once(victim.term)
    await query(link, "drop trigger die on jobd.jobs")
    assert await victim.fired() == [1]
    standby = Clockwork(link)
    standby.now = victim.now + LAPSED
    await fire(standby)
    await told_once(standby, [1, 2])


WAITING = """
select count(*) from pg_stat_activity where query like '-- jobd: fire%' and wait_event_type = 'Lock'
"""
DIE = """
create function public.die() returns trigger language plpgsql as
$$ begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60); return null; end $$
"""
TRIGGER = "create trigger die after insert on jobd.jobs for each statement execute function public.die()"


async def told_once(process: Clockwork, minutes: list[int]) -> None:
    """These occurrences have run, each with one job, and nothing else is told."""
    assert await process.history() == [(minute, minute, 1, "ran", None) for minute in minutes]
    assert [job["fire_at"] for job in await process.jobs()] == [
        (BEGIN + minute * MINUTE).isoformat() for minute in minutes
    ]
