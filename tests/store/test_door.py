"""The door: connections come back after they broke, errors have one name each, nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from jobd.door import Database, Executes, Link, Record
from jobd.errors import (
    CallTimeout,
    ConfigError,
    DatabaseUnavailable,
    Locked,
    PartitionMissing,
    Refused,
    SchemaOutdated,
    Transient,
)
from jobd.pool import Pool
from jobd.sql import Block
from tests.factories import query, scalar
from tests.signals import eventually

SLEEP = "select 1 from pg_sleep(100) /* the sleeper */"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = Pool(Database(database_url), size=1, call_timeout=10)
    yield pool
    await pool.close()


@pytest.fixture
async def observer(direct_database_url: str) -> AsyncIterator[asyncpg.Connection[Record]]:
    connection = await asyncpg.connect(direct_database_url)
    yield connection
    await connection.close()


@pytest.fixture(params=["link", "pool"])
def either(request: pytest.FixtureRequest, door: Link, pool: Pool) -> Executes:
    return door if request.param == "link" else pool


async def backend_asleep(observer: asyncpg.Connection[Record]) -> int:
    """The process that runs SLEEP, once it does."""
    asleep = "select pid from pg_stat_activity where query like '%the sleeper%' and wait_event = 'PgSleep'"
    return int(await eventually(lambda: observer.fetchval(asleep)))


async def none_asleep(observer: asyncpg.Connection[Record]) -> None:
    asleep = "select 1 from pg_stat_activity where wait_event = 'PgSleep'"
    await eventually(lambda: observer.fetchval(asleep), until=lambda one: one is None)


async def test_a_connection_that_was_cut_is_opened_again(
    either: Executes, observer: asyncpg.Connection[Record]
):
    asleep = asyncio.create_task(query(either, SLEEP))
    await observer.execute("select pg_terminate_backend($1)", await backend_asleep(observer))
    with pytest.raises(DatabaseUnavailable):
        await asleep
    assert await scalar(either, "select 1") == 1


async def test_a_connection_that_was_cut_while_nobody_used_it_is_opened_again(
    door: Link, observer: asyncpg.Connection[Record]
):
    pid = await scalar(door, "select pg_backend_pid()")
    await observer.execute("select pg_terminate_backend($1)", pid)
    there = "select 1 from pg_stat_activity where pid = $1"
    await eventually(lambda: observer.fetchval(there, pid), until=lambda one: one is None)
    with contextlib.suppress(DatabaseUnavailable):  # the first to use it may be the one to find out
        await query(door, "select 1")
    assert await scalar(door, "select pg_backend_pid()") != pid


@pytest.mark.parametrize(
    ("sqlstate", "error"),
    [
        ("40001", Transient),
        ("40P01", Transient),
        ("55P03", Locked),
        ("57014", Transient),
        ("08006", DatabaseUnavailable),
        ("25006", DatabaseUnavailable),
        ("42501", DatabaseUnavailable),
        ("53100", DatabaseUnavailable),
        ("53300", DatabaseUnavailable),
        ("57P01", DatabaseUnavailable),
        ("57P03", DatabaseUnavailable),
        ("58030", DatabaseUnavailable),
        ("XX000", DatabaseUnavailable),
        ("22003", Refused),
        ("22P05", Refused),
        ("23502", Refused),
        ("23505", Refused),
    ],
)
async def test_an_error_of_the_server_has_one_name(either: Executes, sqlstate: str, error: type[Exception]):
    with pytest.raises(error) as raised:
        await query(either, f"do $$ begin raise exception 'on purpose' using errcode = '{sqlstate}'; end $$")
    assert type(raised.value) is error
    assert "on purpose" in str(raised.value)
    assert await scalar(either, "select 1") == 1


@pytest.mark.parametrize(
    "statement", ["select * from jobd.no_such", "select jobd.no_such()", "select 1 from nowhere.jobd"]
)
async def test_what_a_migration_would_bring_is_missing(either: Executes, statement: str):
    with pytest.raises(SchemaOutdated, match="jobd migrate"):
        await query(either, statement)


async def test_a_bug_in_a_statement_keeps_its_own_name(door: Link):
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await query(door, "selec 1")


async def test_a_missing_partition_has_a_name_of_its_own(either: Executes):
    await query(either, "create table jobd.parted (n int) partition by range (n)")
    with pytest.raises(PartitionMissing):
        await query(either, "insert into jobd.parted values (1)")


async def test_a_violated_rule_is_named(either: Executes):
    await query(either, "create temp table ruled (n int constraint positive check (n > 0))") if isinstance(
        either, Link
    ) else await query(either, "create table ruled (n int constraint positive check (n > 0))")
    with pytest.raises(Refused) as refused:
        await query(either, "insert into ruled values (-1)")
    assert (refused.value.constraint, refused.value.sqlstate) == ("positive", "23514")


@pytest.mark.parametrize("value", [2**40, "not a number", float("nan")])
async def test_a_value_that_cannot_be_sent_is_refused_and_no_outage(either: Executes, value: object):
    with pytest.raises(Refused):
        await query(either, "select $1::int", value)
    with pytest.raises(Refused):
        await query(either, "select $1::text", "\ud800")


async def test_a_server_that_is_not_there_is_unavailable():
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    for door in (Link(Database(nowhere)), Pool(Database(nowhere), size=1, call_timeout=5)):
        with pytest.raises(DatabaseUnavailable) as unavailable:
            await query(door, "select 1")
        assert not unavailable.value.permanent


async def test_a_database_that_does_not_exist_is_told_apart_from_an_outage(direct_database_url: str):
    link = Link(Database(direct_database_url.replace("/test_", "/no_such_")))
    with pytest.raises(DatabaseUnavailable) as unavailable:
        await query(link, "select 1")
    assert unavailable.value.permanent


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://user:secret@host/db", "postgresql://user:secret@host:port/db"]
)
async def test_an_address_that_makes_no_sense_is_a_wrong_setting(url: str):
    for door in (Link(Database(url)), Pool(Database(url), size=1, call_timeout=5)):
        with pytest.raises(ConfigError) as wrong:
            await query(door, "select 1")
        assert "secret" not in str(wrong.value)


async def test_a_call_on_the_pool_ends_within_its_limit(
    database_url: str, observer: asyncpg.Connection[Record]
):
    pool = Pool(Database(database_url), size=1, call_timeout=0.3)
    await pool.open()
    with pytest.raises(CallTimeout, match=r"0\.3 s"):
        await query(pool, SLEEP)
    await none_asleep(observer)
    pool.call_timeout = 10
    assert await scalar(pool, "select 1") == 1
    await pool.close()


async def test_waiting_for_a_connection_counts_too(database_url: str):
    pool = Pool(Database(database_url), size=1, call_timeout=10)
    async with pool.connection():
        pool.call_timeout = 0.3
        with pytest.raises(CallTimeout):
            await query(pool, "select 1")
    pool.call_timeout = 10
    assert await scalar(pool, "select 1") == 1
    await pool.close()


async def test_a_cancelled_call_gives_its_connection_back(pool: Pool, observer: asyncpg.Connection[Record]):
    asleep = asyncio.create_task(query(pool, SLEEP))
    await backend_asleep(observer)
    asleep.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asleep
    assert await scalar(pool, "select 1") == 1
    await none_asleep(observer)


async def test_a_connection_that_was_lent_comes_back_without_its_transaction(
    pool: Pool, observer: asyncpg.Connection[Record]
):
    """A handler that is cancelled inside `ctx.transaction()` must leave no locks."""
    inside = asyncio.Event()

    async def handler() -> None:
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("create table lost (n int)")
            inside.set()
            await connection.execute(SLEEP)

    running = asyncio.create_task(handler())
    await inside.wait()
    await backend_asleep(observer)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await scalar(pool, "select to_regclass('lost') is null")
    assert (
        await scalar(
            pool, "select count(*) from pg_locks where locktype = 'relation' and mode like '%Exclusive%'"
        )
        == 0
    )


async def test_what_a_handler_set_on_its_connection_does_not_stay(direct_database_url: str):
    """Without a pooler, that is: behind one, it stays on some connection of the pooler's."""
    pool = Pool(Database(direct_database_url), size=1, call_timeout=10)
    async with pool.connection() as connection:
        await connection.execute(
            "set statement_timeout = '1h'; set application_name = 'handler'; listen somewhere"
        )
    async with pool.connection() as connection:
        assert await connection.fetchval("show statement_timeout") == "0"
        assert await connection.fetchval("show application_name") == "jobd"
        assert await connection.fetchval("select count(*) from pg_listening_channels()") == 0
    await pool.close()


async def test_a_cancelled_call_on_a_link_leaves_it_usable(door: Link, observer: asyncpg.Connection[Record]):
    asleep = asyncio.create_task(query(door, SLEEP))
    await backend_asleep(observer)
    asleep.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asleep
    assert await scalar(door, "select 1") == 1


async def test_calls_on_one_link_take_turns(door: Link):
    assert await asyncio.gather(*[scalar(door, "select $1::int", n) for n in range(20)]) == list(range(20))


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_statements_run_read_committed_whatever_the_role_prefers(
    either: Executes, observer: asyncpg.Connection[Record], level: str
):
    database = await observer.fetchval("select current_database()")
    await observer.execute(f"alter database {database} set default_transaction_isolation = '{level}'")
    for _ in range(2):  # a pool's connection was reset in between
        assert await scalar(either, "select current_setting('transaction_isolation')") == "read committed"


async def test_a_role_that_prefers_to_read_only_writes_all_the_same(
    either: Executes, observer: asyncpg.Connection[Record]
):
    database = await observer.fetchval("select current_database()")
    await observer.execute(f"alter database {database} set default_transaction_read_only = on")
    for name in ("one", "two"):
        await query(either, "insert into jobd.queues (name) values ($1)", name)


async def test_closing_the_pool_while_a_connection_is_lent_raises_nothing_in_its_borrower(pool: Pool):
    lent, closed = asyncio.Event(), asyncio.Event()

    async def borrow() -> None:
        async with pool.connection() as connection:
            assert await connection.fetchval("select 1") == 1
            lent.set()
            await closed.wait()

    borrower = asyncio.create_task(borrow())
    await lent.wait()
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    closed.set()
    await asyncio.gather(borrower, closing)


async def test_a_link_that_is_closed_opens_again_when_it_is_used(direct_database_url: str):
    link = Link(Database(direct_database_url))
    before = await scalar(link, "select pg_backend_pid()")
    await link.close()
    await link.close()
    assert await scalar(link, "select pg_backend_pid()") != before
    await link.close()


async def test_plain_text_runs_outside_any_transaction(door: Link):
    await door.execute_plain("create table t (n int)")
    await door.execute_plain("create index concurrently t_n on t (n)")
    assert await scalar(door, "select indisvalid from pg_index where indexrelid = 't_n'::regclass")


async def test_a_block_shows_its_name_to_the_server(door: Link):
    """So that pg_stat_activity tells which statement hangs."""
    rows = await door.fetch(
        Block("x", (), "-- jobd: x\nselect query from pg_stat_activity where pid = pg_backend_pid()")
    )
    assert rows[0][0].startswith("-- jobd: x")
