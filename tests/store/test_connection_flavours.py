"""What connections differ in: rows, cursors, autocommit, blocking or not; and what is no connection."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg.rows import class_row, dict_row, namedtuple_row, scalar_row
from psycopg2.extras import DictCursor, NamedTupleCursor, RealDictCursor
from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from jobd import sql
from jobd.bulk import CHUNK_JOBS
from jobd.client import Client
from jobd.connections import rendered
from jobd.door import Database, Link
from jobd.errors import CallTimeout, ConfigError
from jobd.events import Events
from jobd.pool import Pool
from jobd.registry import Registry
from jobd.sync import SyncClient
from tests.factories import query, scalar
from tests.store.conftest import Held
from tests.store.lending import alchemy, alchemy_async, alchemy_url, done

MANY = CHUNK_JOBS + 3


async def count(door: Link) -> int:
    return int(await scalar(door, "select count(*) from jobd.jobs"))


@pytest.mark.parametrize("factory", [dict_row, namedtuple_row, scalar_row, class_row(dict)])
async def test_psycopg_may_be_set_to_any_kind_of_rows(client: Client, direct_database_url: str, factory: Any):
    with psycopg.connect(direct_database_url, row_factory=factory) as connection:
        enqueued = SyncClient(client).enqueue("greet", connection=connection)
    assert (await client.get(enqueued.id)).kind == "greet"


@pytest.mark.parametrize("factory", [psycopg.ClientCursor, psycopg.RawCursor, psycopg.ServerCursor])
async def test_psycopg_may_be_set_to_any_kind_of_cursors(
    client: Client, direct_database_url: str, factory: Any
):
    with psycopg.connect(direct_database_url) as connection:
        connection.cursor_factory = factory if factory is not psycopg.ServerCursor else psycopg.Cursor
        connection.server_cursor_factory = psycopg.ServerCursor
        enqueued = SyncClient(client).enqueue("greet", {"share": "5 %"}, connection=connection)
        many = SyncClient(client).enqueue_many("greet", ({} for _ in range(MANY)), connection=connection)
    assert (await client.get(enqueued.id)).payload == {"share": "5 %"}
    assert (await client.get(many[-1])).payload == {}


@pytest.mark.parametrize("factory", [DictCursor, NamedTupleCursor, RealDictCursor])
async def test_psycopg2_may_be_set_to_any_kind_of_cursors(
    client: Client, direct_database_url: str, factory: Any
):
    connection = psycopg2.connect(direct_database_url, cursor_factory=factory)
    enqueued = SyncClient(client).enqueue("greet", connection=connection)
    connection.commit()
    connection.close()
    assert (await client.get(enqueued.id)).kind == "greet"


async def test_an_asyncpg_connection_may_have_codecs_of_its_own(client: Client, direct_database_url: str):
    connection = await asyncpg.connect(direct_database_url)
    for name in ("uuid", "json", "jsonb"):
        await connection.set_type_codec(name, encoder=str, decoder=str, schema="pg_catalog")
    enqueued = await client.enqueue("greet", {"a": 1}, connection=connection)
    await connection.close()
    assert (await client.get(enqueued.id)).payload == {"a": 1}


def broken() -> Iterator[Any]:
    yield from ({} for _ in range(MANY))
    raise LookupError("the caller's own trouble")


def _psycopg2_autocommit(url: str) -> Any:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    return connection


def _alchemy_autocommit(url: str, driver: str) -> Connection:
    engine = create_engine(alchemy_url(url, driver), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    return engine.connect()


AUTOCOMMIT: dict[str, Callable[[str], Any]] = {
    "psycopg2": _psycopg2_autocommit,
    "psycopg": lambda url: psycopg.connect(url, autocommit=True),
    "SQLAlchemy, psycopg": lambda url: _alchemy_autocommit(url, "psycopg"),
    "SQLAlchemy, psycopg2": lambda url: _alchemy_autocommit(url, "psycopg2"),
}


@pytest.mark.parametrize("kind", AUTOCOMMIT)
async def test_many_jobs_are_a_unit_on_a_blocking_connection_without_a_transaction(
    client: Client, direct_database_url: str, door: Link, kind: str
):
    connection = AUTOCOMMIT[kind](direct_database_url)
    sync = SyncClient(client)
    with pytest.raises(LookupError, match="trouble"):
        sync.enqueue_many("greet", broken(), connection=connection)
    assert await count(door) == 0
    assert len(sync.enqueue_many("greet", ({} for _ in range(MANY)), connection=connection)) == MANY
    sync.enqueue("greet", connection=connection)
    connection.close()
    assert await count(door) == MANY + 1


@pytest.mark.parametrize("driver", ["bare asyncpg", "bare psycopg", "asyncpg", "psycopg_async"])
async def test_many_jobs_are_a_unit_on_an_asyncio_connection_without_a_transaction(
    client: Client, direct_database_url: str, door: Link, driver: str
):
    connection: Any
    match driver:
        case "bare asyncpg":
            connection = await asyncpg.connect(direct_database_url)
        case "bare psycopg":
            connection = await psycopg.AsyncConnection.connect(direct_database_url, autocommit=True)
        case _:
            url = alchemy_url(direct_database_url, driver)
            connection = await create_async_engine(
                url, poolclass=NullPool, isolation_level="AUTOCOMMIT"
            ).connect()
    with pytest.raises(LookupError, match="trouble"):
        await client.enqueue_many("greet", broken(), connection=connection)
    assert await count(door) == 0
    await client.enqueue_many("greet", ({} for _ in range(MANY)), connection=connection)
    await client.enqueue("greet", connection=connection)
    await connection.close()
    assert await count(door) == MANY + 1


@pytest.mark.parametrize("autocommit", [False, True])
async def test_many_jobs_are_taken_on_a_psycopg_connection_in_pipeline_mode(
    client: Client, direct_database_url: str, door: Link, autocommit: bool
):
    sync = SyncClient(client)
    with psycopg.connect(direct_database_url, autocommit=autocommit) as connection, connection.pipeline():
        sync.enqueue("greet", connection=connection)
        with pytest.raises(LookupError, match="trouble"):
            sync.enqueue_many("greet", broken(), connection=connection)
        sync.enqueue_many("greet", ({} for _ in range(MANY)), connection=connection)
    assert await count(door) == MANY + 1


@pytest.mark.parametrize("autocommit", [False, True])
async def test_many_jobs_are_taken_on_an_asyncio_psycopg_connection_in_pipeline_mode(
    client: Client, direct_database_url: str, door: Link, autocommit: bool
):
    connection = await psycopg.AsyncConnection.connect(direct_database_url, autocommit=autocommit)
    async with connection, connection.pipeline():
        await client.enqueue("greet", connection=connection)
        with pytest.raises(LookupError, match="trouble"):
            await client.enqueue_many("greet", broken(), connection=connection)
        await client.enqueue_many("greet", ({} for _ in range(MANY)), connection=connection)
    assert await count(door) == MANY + 1


async def test_what_the_database_refuses_in_a_pipeline_leaves_the_callers_transaction_usable(
    client: Client, direct_database_url: str, door: Link
):
    await query(door, "create unique index one_n on jobd.jobs ((payload->>'n'))")
    sync = SyncClient(client)
    with psycopg.connect(direct_database_url) as connection, connection.pipeline():
        sync.enqueue("greet", {"n": MANY - 1}, connection=connection)
        with pytest.raises(psycopg.errors.UniqueViolation):
            sync.enqueue_many("greet", ({"n": n} for n in range(MANY)), connection=connection)
        sync.enqueue("greet", connection=connection)
    assert await count(door) == 2


async def test_many_jobs_are_taken_where_psycopg2_waits_by_a_callback(
    client: Client, direct_database_url: str, door: Link
):
    # As psycogreen sets one for gevent. It is one for the whole process.
    psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
    try:
        with contextlib.closing(psycopg2.connect(direct_database_url)) as connection:
            SyncClient(client).enqueue_many("greet", ({} for _ in range(MANY)), connection=connection)
            connection.commit()
    finally:
        psycopg2.extensions.set_wait_callback(None)
    assert await count(door) == MANY


async def test_a_transaction_that_autocommit_was_told_to_begin_stays_the_callers(
    client: Client, direct_database_url: str, door: Link
):
    connection = psycopg.connect(direct_database_url, autocommit=True)
    with pytest.raises(LookupError), connection.transaction():
        SyncClient(client).enqueue_many("greet", ({} for _ in range(MANY)), connection=connection)
        raise LookupError
    connection.close()
    assert await count(door) == 0


async def test_sessions_of_a_scope_are_taken(client: Client, direct_database_url: str, door: Link):
    engine = create_engine(alchemy_url(direct_database_url, "psycopg"), poolclass=NullPool)
    scoped = scoped_session(sessionmaker(engine))
    SyncClient(client).enqueue("greet", connection=scoped)
    scoped.commit()
    scoped.remove()
    async_engine = create_async_engine(alchemy_url(direct_database_url, "asyncpg"), poolclass=NullPool)
    async_scoped = async_scoped_session(async_sessionmaker(async_engine), scopefunc=lambda: 1)
    await client.enqueue("greet", connection=async_scoped)
    await async_scoped.commit()
    await async_scoped.remove()
    assert await count(door) == 2


async def test_a_blocking_function_inside_an_async_session_uses_the_blocking_client(
    client: Client, direct_database_url: str, door: Link
):
    async with alchemy_async("asyncpg", AsyncSession)(direct_database_url) as loan:
        session = loan.connection
        await session.run_sync(lambda inner: SyncClient(client).enqueue("greet", connection=inner))
        assert await count(door) == 0
        await session.commit()
    assert await count(door) == 1


async def test_a_savepoint_of_the_caller_takes_its_jobs_back(
    client: Client, direct_database_url: str, door: Link
):
    async with alchemy("psycopg", Session)(direct_database_url) as loan:
        session, sync = loan.connection, SyncClient(client)
        sync.enqueue("outer", connection=session)
        inner = session.begin_nested()
        sync.enqueue_many("inner", ({} for _ in range(MANY)), connection=session)
        inner.rollback()
        session.commit()
    assert await scalar(door, "select array_agg(kind) from jobd.jobs") == ["outer"]


async def test_a_call_on_an_asyncio_connection_ends_within_its_limit(
    database_url: str, direct_database_url: str, held: Held
):
    pool = Pool(Database(database_url), size=1, call_timeout=0.2)
    client = Client(pool, registry=Registry(), events=Events())
    await held.fetch(sql.Block("", (), "select jobd.enqueue('greet', unique_key => 'k')"))
    async with AsyncExitStack() as stack:
        for lender in (
            alchemy_async("asyncpg", AsyncConnection),
            alchemy_async("psycopg_async", AsyncConnection),
        ):
            loan = await stack.enter_async_context(lender(direct_database_url))
            with pytest.raises(CallTimeout, match=r"enqueue did not end within 0\.2 s"):
                await loan.enqueue(client, "greet", unique_key="k")
            await done(loan.rollback())
    await held.rollback()


async def test_the_wrong_flavour_is_told_where_to_go(client: Client, direct_database_url: str):
    connection = psycopg.connect(direct_database_url)
    with pytest.raises(ConfigError, match=r"'psycopg.Connection': .* use jobs\.sync"):
        await client.enqueue("greet", connection=connection)
    with pytest.raises(ConfigError, match=r"'psycopg.Connection': .* use jobs\.sync"):
        await client.enqueue_many("greet", [{}], connection=connection)
    connection.close()
    other = await psycopg.AsyncConnection.connect(direct_database_url)
    with pytest.raises(ConfigError, match=r"'psycopg.AsyncConnection': .* use `await jobs\.enqueue"):
        SyncClient(client).enqueue("greet", connection=other)
    await other.close()


async def test_what_is_no_connection_is_refused(client: Client, direct_database_url: str):
    engine = create_engine(alchemy_url(direct_database_url, "psycopg"))
    async_engine = create_async_engine(alchemy_url(direct_database_url, "asyncpg"))
    for thing in (engine, async_engine, direct_database_url, object()):
        with pytest.raises(ConfigError, match="take a connection first"):
            await client.enqueue("greet", connection=thing)
        with pytest.raises(ConfigError, match="take a connection first"):
            SyncClient(client).enqueue("greet", connection=thing)


def test_every_style_of_parameters_renders_the_same_statement():
    text = "select '5 %', $2::text, $1::int, $2"
    assert rendered(text, [1, "b"], "numeric_dollar") == (text, (1, "b"))
    assert rendered(text, [1, "b"], "pyformat") == (
        "select '5 %%', %(p2)s::text, %(p1)s::int, %(p2)s",
        {"p1": 1, "p2": "b"},
    )
    assert rendered(text, [1, "b"], "format") == ("select '5 %%', %s::text, %s::int, %s", ("b", 1, "b"))
    with pytest.raises(ConfigError, match="qmark"):
        rendered(text, [], "qmark")


def test_rendering_meets_each_placeholder_of_the_blocks_that_callers_connections_run():
    for name in ("enqueue", "enqueue_many"):
        block = sql.blocks("entry")[name]
        text, parameters = rendered(block.text, range(len(block.parameters)), "pyformat")
        assert set(re.findall(r"%\((\w+)\)s", text)) == set(parameters)
        assert "$" not in text
