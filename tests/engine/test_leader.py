"""One process leads, and does what one must do for all; when it goes, another takes over."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from jobd.door import Database, Link
from jobd.engine import leader
from jobd.engine.leader import Leader
from jobd.engine.lease import Lease
from jobd.events import Events, LeaderChanged
from jobd.fleet import Fleet
from jobd.partitions import drop_partition
from jobd.store import Store
from jobd.timetable import Timetable
from tests.factories import new_job, query, scalar
from tests.signals import eventually, expect


class Candidate:
    def __init__(self, database_url: str) -> None:
        database = Database(database_url)
        self.link = Link(database)
        self.events = Events()
        self.lease = Lease(period=timedelta(seconds=30))
        self.lease.confirm(time.monotonic())
        self.leader = Leader(
            Store(self.link),
            Fleet(self.link),
            Timetable(self.link),
            lease=self.lease,
            history_retention=timedelta(days=14),
            schedule_history=timedelta(days=90),
            drop_partition=lambda name, detached: drop_partition(database, name, detached=detached),
            events=self.events,
            rng=random.Random(2),
        )

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        standing = asyncio.ensure_future(self.leader.run())
        try:
            yield
        finally:
            standing.cancel()
            await asyncio.wait({standing})
            await self.link.close()


@pytest.fixture
def candidates(database_url: str) -> list[Candidate]:
    return [Candidate(database_url) for _ in range(2)]


async def test_one_leads_and_the_other_takes_over_with_a_new_term_when_it_abdicates(
    candidates: list[Candidate], link: Link
):
    first, second = candidates
    async with expect(first.events, LeaderChanged, leading=True) as elected:
        leading = first.standing()
        await leading.__aenter__()
    async with second.standing(), expect(second.events, LeaderChanged, leading=True) as taken:
        assert second.leader.term is None
        await first.leader.abdicate()
        await leading.__aexit__(None, None, None)
    assert taken.event.term == elected.event.term + 1
    assert first.leader.term is None
    assert await scalar(link, "select worker_id from jobd.leader") == second.lease.worker_id


async def test_who_has_no_lease_does_not_lead(candidates: list[Candidate]):
    candidate = candidates[0]
    async with expect(candidate.events, LeaderChanged, leading=False):
        async with expect(candidate.events, LeaderChanged, leading=True):
            leading = candidate.standing()
            await leading.__aenter__()
        candidate.lease.confirm(time.monotonic() - 100)
    await leading.__aexit__(None, None, None)


async def test_it_makes_partitions_ahead_and_drops_those_past_their_retention(
    candidates: list[Candidate], link: Link
):
    old = datetime.now(UTC) - timedelta(days=30)
    await Fleet(link).ensure_partitions(days=1, now=old)
    assert await partitions(link, before=old + timedelta(days=10))

    async def pruned() -> bool:
        return not await partitions(link, before=old + timedelta(days=10))

    async with candidates[0].standing():
        await eventually(pruned)
        ahead = await query(
            link,
            "select from pg_class"
            " where relname = 'job_history_' || to_char(now() + interval '7 days', 'YYYYMMDD')",
        )
        assert ahead


async def test_it_forgets_what_became_of_occurrences_long_ago(
    candidates: list[Candidate], link: Link, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leader, "BATCH", 3)
    text = (
        "insert into jobd.schedule_runs (schedule_id, fire_at, last_at, outcome, decided_at)"
        " select 's', at, at, 'ran', at from (select now() - n * interval '1 day' as at"
        " from unnest($1::int[]) as n) t"
    )
    await query(link, text, [1, 89, 91, 92, 93, 94])

    async def forgotten() -> bool:
        return await scalar(link, "select count(*) from jobd.schedule_runs") == 2

    async with candidates[0].standing():
        await eventually(forgotten)
    newest, oldest = await Timetable(link).occurrences("s")
    assert newest.fire_at - oldest.fire_at == timedelta(days=88)


async def test_it_forgets_unique_keys_that_nobody_holds(
    candidates: list[Candidate], link: Link, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leader, "BATCH", 3)
    long_ago = datetime.now(UTC) - timedelta(days=1)
    for n in range(7):
        job = new_job(unique_key=f"k{n}", unique_for="1 hour" if n % 2 else "waiting")
        await Store(link).enqueue(job, now=long_ago)
        if n not in (2, 3):
            await Store(link).delete(job.id)

    async def forgotten() -> bool:
        keys = await query(link, "select unique_key from jobd.unique_keys")
        return [row["unique_key"] for row in keys] == ["k2"]

    async with candidates[0].standing():
        await eventually(forgotten)


async def partitions(link: Link, *, before: datetime) -> list:
    return await query(
        link,
        "select relname from pg_class where relname ~ '^job_history_[0-9]{8}$' and relkind = 'r'"
        " and to_date(right(relname, 8), 'YYYYMMDD') < $1::date",
        before.date(),
    )


async def test_it_forgets_rates_that_were_spent_long_ago(
    candidates: list[Candidate], link: Link, monkeypatch: pytest.MonkeyPatch
):
    # Fewer than there are, so that it goes on after the next beat.
    monkeypatch.setattr(leader, "BATCH", 2)
    text = "insert into jobd.rates (scope, name, spent_until)"
    await query(link, f"{text} select 'key', n::text, now() - interval '2 h' from generate_series(1, 3) n")
    await query(link, f"{text} values ('key', 'now', now())")
    async with candidates[0].standing():
        left = "select array_agg(name) from jobd.rates"
        await eventually(lambda: scalar(link, left), until=lambda names: names == ["now"])
