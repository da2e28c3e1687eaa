"""Schedules of tenants of which no more jobs may wait: nobody is there to be refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from jobd.door import Link
from jobd.errors import TenantFull
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.quotas import Quotas
from tests.engine.clockwork import BEGIN, MINUTE, Clockwork
from tests.factories import query
from tests.signals import eventually


@pytest.fixture
async def clock(link: Link) -> AsyncIterator[Clockwork]:
    await Fleet(link).ensure_partitions(now=BEGIN)
    yield Clockwork(link)


async def limited(link: Link, *, on_full: str, most: int = 1, exact: bool = True) -> None:
    await query(
        link,
        "insert into jobd.tenants (id, max_pending, on_full, exact) values ('t', $1, $2, $3)",
        most,
        on_full,
        exact,
    )


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "soft"])
@pytest.mark.parametrize(("on_full", "said"), [("refuse", "refused"), ("shed", "shed")])
async def test_an_occurrence_without_room_is_a_dead_job_that_says_why(
    clock: Clockwork, link: Link, on_full: str, said: str, exact: bool
):
    await limited(link, on_full=on_full, exact=exact)
    await clock.add("* * * * *", tenant_id="t", max_instances=10)
    await clock.add("* * * * *", "free", max_instances=10)
    await clock.after(MINUTE)
    await clock.after(MINUTE)
    jobs = [job for job in await clock.jobs() if job["tenant_id"] == "t"]
    assert [job["state"] for job in jobs] == ["ready", "dead"]
    assert jobs[1]["reason"] == f"{said}: tenant 't' has 1 job waiting, and may have 1"
    assert await clock.history() == [(1, 1, 1, "ran", None), (2, 2, 1, "ran", None)]
    first, second = await clock.timetable.occurrences("s")
    assert (first.state, first.job_reason, second.state) == ("dead", jobs[1]["reason"], "ready")
    assert await clock.fired("free") == [1, 2]


async def test_an_occurrence_without_room_may_be_delayed(clock: Clockwork, link: Link):
    await limited(link, on_full="delay", most=2)
    await clock.add("* * * * *", tenant_id="t", max_instances=10)
    for _ in range(3):
        await clock.after(MINUTE)
    assert [(job["run_at"] - BEGIN) / MINUTE for job in await clock.jobs()] == [1, 2, 3.5]


async def test_one_that_has_ended_leaves_its_instance_to_the_next(clock: Clockwork, link: Link):
    await limited(link, on_full="refuse", most=0)
    await clock.add("* * * * *", tenant_id="t")
    await clock.after(MINUTE)
    await clock.after(MINUTE)
    assert await clock.fired() == [1, 2]


async def test_a_schedule_waits_for_no_long_transaction_of_its_tenant(
    clock: Clockwork, link: Link, direct_database_url: str
):
    await limited(link, on_full="refuse")
    await clock.add("* * * * *", tenant_id="t")
    await clock.add("* * * * *", "free")
    holder = await asyncpg.connect(direct_database_url)
    await holder.execute("begin")
    await holder.fetch("select jobd.enqueue('greet', tenant_id => 't')")
    async with asyncio.timeout(10):
        await clock.after(MINUTE)
    assert await clock.fired() == await clock.fired("free") == [1]
    await holder.close()


async def test_whoever_triggers_a_schedule_is_refused(clock: Clockwork, link: Link):
    await limited(link, on_full="refuse")
    await clock.add("@daily", tenant_id="t")
    assert await clock.timetable.trigger("s", job_id=uuid7())
    with pytest.raises(TenantFull):
        await clock.timetable.trigger("s", job_id=uuid7())
    assert len(await clock.jobs()) == 1


async def test_what_is_triggered_may_be_shed(clock: Clockwork, link: Link):
    await limited(link, on_full="shed", most=0)
    await clock.add("@daily", tenant_id="t")
    assert await clock.timetable.trigger("s", job_id=uuid7())
    assert [job["state"] for job in await clock.jobs()] == ["dead"]


async def test_an_occurrence_has_the_tolerance_of_its_queue(clock: Clockwork, link: Link):
    await Quotas(link).set_queue("default", {"delay_tolerance": "10m"}, by=None)
    await clock.add("* * * * *")
    await clock.add("* * * * *", "own", delay_tolerance=MINUTE)
    await clock.after(MINUTE)
    await clock.timetable.trigger("s", job_id=uuid7(), now=clock.now + MINUTE / 2)
    assert sorted((job["deadline_at"] - job["run_at"]) / MINUTE for job in await clock.jobs()) == [1, 10, 10]


async def test_a_schedule_waits_for_no_tenant_however_many_are_locked(
    clock: Clockwork, link: Link, direct_database_url: str
):
    """They are all in one statement, which holds the leader's row."""
    holder = await asyncpg.connect(direct_database_url)
    await holder.execute("begin")
    for number in range(60):
        await query(link, "insert into jobd.tenants (id, max_pending) values ($1, 9)", f"t{number}")
        await clock.add("* * * * *", f"s{number}", tenant_id=f"t{number}")
        await holder.fetch("select jobd.enqueue('greet', tenant_id => $1)", f"t{number}")
    async with asyncio.timeout(5):
        await clock.after(MINUTE)
    assert len(await clock.jobs()) == 60
    await holder.close()


async def test_a_trigger_takes_the_tenants_lock_before_the_schedule(
    clock: Clockwork, link: Link, direct_database_url: str
):
    """As an enqueue for the tenant does, which a transaction may have made before it triggers."""
    await limited(link, on_full="refuse", most=9)
    await clock.add("@daily", tenant_id="t")
    holder = await asyncpg.connect(direct_database_url)
    await holder.execute("begin")
    await holder.fetch("select jobd.enqueue('greet', tenant_id => 't')")
    waiting = asyncio.create_task(clock.timetable.trigger("s", job_id=uuid7()))
    blocked = "select count(*) from pg_stat_activity where $1 = any (pg_blocking_pids(pid))"
    observer = await asyncpg.connect(direct_database_url)
    await eventually(lambda: observer.fetchval(blocked, holder.get_server_pid()), until=bool)
    await holder.fetch("select jobd.trigger_schedule('s')")
    await holder.execute("commit")
    assert await waiting
    await holder.close()
    await observer.close()
