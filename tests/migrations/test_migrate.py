"""migrate: from any older schema to this one, once, however many start at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from jobd.door import Database, Record
from jobd.errors import SchemaError, SchemaOutdated, SchemaTooNew
from jobd.migrate import (
    LOCK,
    check,
    found_version,
    functions_version,
    migrate,
    migrations,
    needed_version,
    script,
)
from tests.postgres import PostgresServer

# The number that jobd/sql/functions.sql bears, and the fingerprint of all functions.
FUNCTIONS = (12, "1bffb7b341d0a5cc")


if TYPE_CHECKING:
    Session = asyncpg.Connection[Record]

# What two databases must have in common to have the same schema.
CATALOG = {
    "columns": """
        select c.relname, c.relkind, c.reloptions, a.attname, format_type(a.atttypid, a.atttypmod),
               a.attnotnull, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
          from pg_class c
          join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
          left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
         where c.relnamespace = 'jobd'::regnamespace order by c.relname, a.attnum""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
         where connamespace = 'jobd'::regnamespace order by 1, 2""",
    "indexes": """
        select tablename, indexname, indexdef from pg_indexes where schemaname = 'jobd' order by 1, 2""",
    "views": "select viewname, definition from pg_views where schemaname = 'jobd' order by 1",
    "functions": """
        select proname, pg_get_functiondef(oid) from pg_proc
         where pronamespace = 'jobd'::regnamespace order by 1, 2""",
    "partitions": """
        select inhparent::regclass::text, c.relname, pg_get_expr(c.relpartbound, c.oid)
          from pg_inherits join pg_class c on c.oid = inhrelid order by 1, 2""",
    "versions": "select version, name from jobd.schema_version order by 1",
}


@pytest.fixture
async def session(empty_database_url: str) -> AsyncIterator[Session]:
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


async def schema(session: Session) -> dict[str, list[Any]]:
    return {name: [tuple(row) for row in await session.fetch(text)] for name, text in CATALOG.items()}


async def tables(session: Session) -> int:
    return int(
        await session.fetchval("select count(*) from pg_class where relnamespace = to_regnamespace('jobd')")
    )


async def test_ten_migrations_of_an_empty_database_apply_each_file_once(
    empty_database_url: str, session: Session
):
    applied = await asyncio.gather(*[migrate(empty_database_url) for _ in range(10)])
    shipped = [f"{migration.version:04}_{migration.name}" for migration in migrations()]
    assert sorted(applied) == [[]] * 9 + [shipped]
    assert await session.fetchval("select count(*) from jobd.schema_version") == len(shipped)


async def test_a_second_migration_changes_nothing(empty_database_url: str, session: Session):
    await migrate(empty_database_url)
    before = await schema(session)
    assert await migrate(empty_database_url) == []
    assert await schema(session) == before


async def test_the_printed_script_makes_the_same_schema(
    empty_database_url: str, session: Session, postgres: PostgresServer
):
    await session.execute(script())
    # Made at the same time: the other tests' databases may be from before midnight.
    with postgres.database() as name:
        await migrate(postgres.dsn(name))
        migrated = await asyncpg.connect(postgres.dsn(name))
        printed, applied = await schema(session), await schema(migrated)
        await migrated.close()
    assert printed == applied
    assert len(applied["indexes"]) > 10
    await check(Database(empty_database_url))
    assert await migrate(empty_database_url) == []


async def test_functions_of_another_release_are_made_anew(empty_database_url: str, session: Session):
    await migrate(empty_database_url)
    before = await schema(session)
    await session.execute(
        "create or replace function jobd.wake(queues text[]) returns void language sql as 'select';"
        "create or replace function jobd.functions_version() returns text language sql as 'select $$other$$'"
    )
    assert await migrate(empty_database_url) == []
    assert await schema(session) == before


async def test_functions_of_a_newer_release_are_left_alone(empty_database_url: str, session: Session):
    await migrate(empty_database_url)
    await session.execute(
        "create or replace function jobd.functions_version() returns text language sql as 'select $$9999:x$$'"
    )
    assert await migrate(empty_database_url) == []
    assert await session.fetchval("select jobd.functions_version()") == "9999:x"


def test_a_change_of_the_functions_raises_their_number():
    # Two jobds with the same number and different functions would replace each other's for ever.
    assert functions_version() == FUNCTIONS, "raise the number in functions.sql, and put both down here"


async def test_a_newer_schema_is_refused_and_left_as_it_is(empty_database_url: str, session: Session):
    await migrate(empty_database_url)
    await session.execute("insert into jobd.schema_version (version, name) values (9999, 'future')")
    before = await schema(session)
    for verb in (migrate, check):
        with pytest.raises(SchemaTooNew, match=r"version 9999.*upgrade jobd"):
            await verb(Database(empty_database_url))
    assert await schema(session) == before


async def test_check_says_what_to_do_on_an_empty_database(empty_database_url: str, session: Session):
    with pytest.raises(SchemaOutdated, match="jobd migrate"):
        await check(Database(empty_database_url))
    assert await found_version(Database(empty_database_url)) == 0
    assert await tables(session) == 0


async def test_check_is_content_after_a_migration(empty_database_url: str):
    await migrate(empty_database_url)
    await check(Database(empty_database_url))
    assert await found_version(Database(empty_database_url)) == needed_version()


async def test_a_migration_polls_for_the_lock_and_never_waits_in_it(
    empty_database_url: str, session: Session
):
    holder = await asyncpg.connect(empty_database_url)
    await holder.execute("begin")
    await holder.execute(f"select pg_advisory_xact_lock({LOCK})")
    task = asyncio.create_task(migrate(empty_database_url))
    seen: set[int] = set()
    async with asyncio.timeout(20):
        while len(seen) < 4:
            rows = await session.fetch("select pid from pg_stat_activity where application_name = 'jobd'")
            seen |= {row["pid"] for row in rows}
            assert not await session.fetchval("select count(*) from pg_locks where not granted")
    assert not task.done()
    await holder.close()
    assert await task == [f"{migration.version:04}_{migration.name}" for migration in migrations()]


async def test_a_failed_migration_leaves_nothing(empty_database_url: str, session: Session):
    """Something of ours is already there that jobd did not make."""
    await session.execute("create schema jobd; create table jobd.queues (name text)")
    with pytest.raises(asyncpg.DuplicateTableError):
        await migrate(empty_database_url)
    assert await session.fetchval("select to_regclass('jobd.jobs')") is None


@pytest.fixture
async def weak_url(postgres: PostgresServer, session: Session, empty_database_url: str) -> AsyncIterator[str]:
    """The same database as `session`, as a role that owns nothing."""
    role = f"weak_{await session.fetchval('select oid from pg_database where datname = current_database()')}"
    await session.execute(f"create role {role} login")
    yield empty_database_url.replace("postgres@", f"{role}@")
    await session.execute(f"drop owned by {role}; drop role {role}")


async def test_a_role_without_rights_is_told_so(weak_url: str, session: Session):
    with pytest.raises(SchemaError, match="run `jobd migrate`, as a role that may create"):
        await migrate(weak_url)
    assert await tables(session) == 0


async def test_a_role_that_may_only_read_finds_a_current_schema_good(
    weak_url: str, empty_database_url: str, session: Session
):
    await migrate(empty_database_url)
    role = weak_url.split("//")[1].split("@", maxsplit=1)[0]
    await session.execute(
        f"grant usage on schema jobd to {role}; grant select on all tables in schema jobd to {role}"
    )
    assert await migrate(weak_url) == []
    await check(Database(weak_url))
    # Functions of another release are left to somebody who may change them.
    await session.execute(
        "create or replace function jobd.functions_version() returns text language sql as 'select $$other$$'"
    )
    assert await migrate(weak_url) == []


async def test_a_role_that_may_not_even_look_is_told_so(
    weak_url: str, empty_database_url: str, session: Session
):
    await migrate(empty_database_url)
    for verb in (migrate, check):
        with pytest.raises(SchemaError, match="grant usage on schema jobd"):
            await verb(Database(weak_url))


def test_versions_are_numbered_without_gaps():
    assert [migration.version for migration in migrations()] == list(range(1, needed_version() + 1))
