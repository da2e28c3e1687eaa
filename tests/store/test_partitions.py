"""The partitions of history and tombstones: made ahead by any worker, dropped one by one when old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from jobd.door import Database, Link
from jobd.errors import Transient
from jobd.fleet import Fleet
from jobd.job import FinishedRun, JobState
from jobd.migrate import migrate
from jobd.partitions import drop_partition
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import make_job, query, scalar
from tests.store.conftest import Held

DAY = timedelta(days=1)
FAR = datetime(2031, 5, 17, 12, tzinfo=UTC)


async def names(door: Link, parent: str = "job_history") -> list[str]:
    rows = await query(
        door,
        "select c.relname from pg_inherits join pg_class c on c.oid = inhrelid"
        " where inhparent = ('jobd.' || $1::text)::regclass order by 1",
        parent,
    )
    return [row["relname"] for row in rows]


async def test_a_fresh_schema_has_yesterday_to_a_week_ahead(empty_database_url: str):
    # Made now: the other tests' databases may be from before midnight.
    await migrate(empty_database_url)
    door = Link(Database(empty_database_url))
    today = await scalar(door, "select (clock_timestamp() at time zone 'UTC')::date")
    expected = [f"job_history_{today + n * DAY:%Y%m%d}" for n in range(-1, 8)]
    assert await names(door) == expected
    expected = [f"tombstones_{today + n * DAY:%Y%m%d}" for n in range(-1, 3)]
    assert await names(door, "tombstones") == expected
    assert await Fleet(door).ensure_partitions() == 0
    await door.close()


async def test_missing_partitions_are_made_once(door: Link, fleet: Fleet):
    assert await fleet.ensure_partitions(days=2, now=FAR) == 8
    assert await fleet.ensure_partitions(days=2, now=FAR) == 0
    assert await fleet.ensure_partitions(days=3, now=FAR) == 1
    assert [name for name in await names(door) if "2031" in name] == [
        f"job_history_2031051{n}" for n in (6, 7, 8, 9)
    ] + ["job_history_20310520"]


async def test_a_job_that_ends_at_any_moment_of_a_day_finds_its_partition(
    door: Link, store: Store, fleet: Fleet
):
    await fleet.ensure_partitions(days=0, now=FAR)
    for moment in (datetime(2031, 5, 17, tzinfo=UTC), datetime(2031, 5, 17, 23, 59, 59, 999999, tzinfo=UTC)):
        id = await make_job(door, state="running")
        await store.succeed([FinishedRun(id=id, claim_no=1, state=JobState.SUCCEEDED)], now=moment)
        found = await scalar(door, "select tableoid::regclass::text from jobd.job_history where id = $1", id)
        assert found == "jobd.job_history_20310517"


@pytest.mark.parametrize(
    "settings",
    [
        "set timezone = 'Pacific/Kiritimati'; set datestyle = 'SQL, DMY'",
        "set timezone = 'America/St_Johns'; set datestyle = 'Postgres, MDY'",
        "set timezone = 'Asia/Kolkata'; set datestyle = 'German'",
    ],
)
async def test_days_are_days_of_utc_whatever_the_session_prefers(
    door: Link, fleet: Fleet, direct_database_url: str, settings: str
):
    connection = await asyncpg.connect(direct_database_url)
    await connection.execute(settings)
    await connection.execute("select jobd.ensure_partitions(0, '2031-05-17 12:00:00+00')")
    await connection.close()
    await query(door, "set timezone = 'UTC'")
    bounds = await scalar(
        door, "select pg_get_expr(relpartbound, oid) from pg_class where relname = 'job_history_20310517'"
    )
    assert bounds == "FOR VALUES FROM ('2031-05-17 00:00:00+00') TO ('2031-05-18 00:00:00+00')"


async def test_a_second_session_does_not_wait_for_the_first(fleet: Fleet, held: Held):
    assert await Fleet(held).ensure_partitions(days=0, now=FAR) == 4
    assert await fleet.ensure_partitions(days=0, now=FAR) == -1
    await held.commit()
    assert await fleet.ensure_partitions(days=0, now=FAR) == 0


async def test_making_partitions_does_not_lock_out_those_who_finish_jobs(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running")
    await Fleet(held).ensure_partitions(days=0, now=FAR)
    async with asyncio.timeout(10):
        assert not await store.succeed([FinishedRun(id=id, claim_no=1, state=JobState.SUCCEEDED)])
        assert (await reader.get(id)).state is JobState.SUCCEEDED
    await held.rollback()


@pytest.fixture
async def weak(door: Link, direct_database_url: str) -> AsyncIterator[Link]:
    """A role that may do what a worker does, and no more."""
    role = "weak_" + await scalar(door, "select current_database()")
    for statement in (
        f"create role {role} login",
        f"grant usage on schema jobd to {role}",
        f"grant select, insert, update, delete on all tables in schema jobd to {role}",
        f"grant execute on all functions in schema jobd to {role}",
    ):
        await query(door, statement)
    link = Link(Database(direct_database_url.replace("postgres@", f"{role}@")))
    yield link
    await link.close()
    await query(door, f"drop owned by {role}")
    await query(door, f"drop role {role}")


async def test_a_role_that_may_not_create_tables_makes_partitions_all_the_same(
    door: Link, weak: Link, reader: Reader
):
    assert await Fleet(weak).ensure_partitions(days=0, now=FAR) == 4
    enqueued = await query(weak, "select id from jobd.enqueue('noop')")
    id = await make_job(door, state="running")
    await Store(weak).succeed([FinishedRun(id=id, claim_no=1, state=JobState.SUCCEEDED)], now=FAR)
    assert (await reader.get(id)).finished_at == FAR
    assert (await reader.get(enqueued[0]["id"])).state is JobState.READY


async def test_prune_names_the_partitions_that_ended_before(door: Link, store: Store, fleet: Fleet):
    await fleet.ensure_partitions(days=2, now=FAR)
    old = [(f"job_history_{day}", False) for day in ("20310516", "20310517")]
    before_all = [name for name in await names(door) if not name.startswith("job_history_2031")]
    found = await store.prune(retention=timedelta(0), now=datetime(2031, 5, 18, 23, 59, tzinfo=UTC))
    found = [(name, detached) for name, detached in found if name.startswith("job_history")]
    assert found == [(name, False) for name in before_all] + old
    assert await store.prune(retention=timedelta(0), now=datetime.now(UTC) - 3 * DAY) == []


async def test_prune_names_tombstones_when_their_day_has_been_over_for_a_day(store: Store, fleet: Fleet):
    await fleet.ensure_partitions(days=2, now=FAR)

    async def pruned(now: datetime) -> list[str]:
        found = await store.prune(retention=timedelta(days=36500), now=now)
        return [name for name, _ in found if name.startswith("tombstones_2031")]

    assert await pruned(datetime(2031, 5, 17, 23, 59, tzinfo=UTC)) == []
    assert await pruned(datetime(2031, 5, 18, tzinfo=UTC)) == ["tombstones_20310516"]
    assert await pruned(datetime(2031, 5, 19, tzinfo=UTC)) == ["tombstones_20310516", "tombstones_20310517"]


@pytest.mark.parametrize("name", ["tombstones_20310516", "job_history_20310516"])
async def test_a_day_of_either_is_dropped(door: Link, store: Store, fleet: Fleet, name: str):
    await fleet.ensure_partitions(days=0, now=FAR)
    detached = dict(await store.prune(retention=timedelta(0), now=FAR + DAY))[name]
    await drop_partition(door.database, name, detached=detached)
    assert name not in await names(door, name.rpartition("_")[0])


async def test_prune_leaves_tables_alone_that_jobd_did_not_make(door: Link, store: Store):
    await query(door, "create table jobd.archive (like jobd.job_history including all)")
    await query(
        door,
        "alter table jobd.job_history attach partition jobd.archive"
        " for values from ('1999-01-01') to ('2000-01-01')",
    )
    assert await store.prune(retention=timedelta(0), now=datetime(2001, 1, 1, tzinfo=UTC)) == []


async def test_a_partition_can_be_detached_and_dropped_while_jobs_end(door: Link, store: Store, fleet: Fleet):
    await fleet.ensure_partitions(days=0, now=FAR)
    name = "job_history_20310516"
    detached = dict(await store.prune(retention=timedelta(0), now=FAR))[name]
    assert detached is False
    await drop_partition(door.database, name, detached=detached)
    assert name not in await names(door)


async def test_a_drop_that_was_cut_off_after_the_detach_is_made_good(door: Link, store: Store, fleet: Fleet):
    await fleet.ensure_partitions(days=0, now=FAR)
    name = "job_history_20310516"
    await door.execute_plain(f"alter table jobd.job_history detach partition jobd.{name} concurrently")
    found = dict(await store.prune(retention=timedelta(0), now=FAR + DAY))
    assert found[name] is True
    await drop_partition(door.database, name, detached=True)
    assert name not in dict(await store.prune(retention=timedelta(0), now=FAR + DAY))


async def test_a_detach_that_a_reader_holds_up_is_finished_later(
    door: Link, store: Store, fleet: Fleet, direct_database_url: str
):
    await fleet.ensure_partitions(days=0, now=FAR)
    name = "job_history_20310516"
    reader = await asyncpg.connect(direct_database_url)
    try:
        async with reader.transaction():
            await reader.fetch("select count(*) from jobd.job_history")
            with pytest.raises(Transient):
                await drop_partition(Database(direct_database_url), name, detached=False)
        found = dict(await store.prune(retention=timedelta(0), now=FAR + DAY))
        assert found[name] is None
        await drop_partition(Database(direct_database_url), name, detached=None)
    finally:
        await reader.close()
    assert name not in dict(await store.prune(retention=timedelta(0), now=FAR + DAY))
