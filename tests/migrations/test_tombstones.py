"""0002: a database of the first schema, with jobs in it and a worker's role, goes on as before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from jobd import migrate
from tests.postgres import PostgresServer

FIRST = 1


@pytest.fixture
async def session(empty_database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A database that has the first schema alone."""
    connection = await asyncpg.connect(empty_database_url)
    first = migrate.migrations()[0]
    assert first.version == FIRST
    await connection.execute(migrate.BOOTSTRAP)
    await connection.execute(first.text)
    await connection.execute("insert into jobd.schema_version (version, name) values (1, 'initial')")
    yield connection
    await connection.close()


async def test_queues_that_are_known_keep_all(session: asyncpg.Connection[Any], empty_database_url: str):
    await session.execute("insert into jobd.queues (name) values ('images')")
    assert await migrate.migrate(empty_database_url) == [
        "0002_tombstones",
        "0003_schedules",
        "0004_open_runs",
        "0005_limits",
        "0006_audit",
        "0007_unique_keys",
        "0008_admission",
        "0009_ordered_keys",
    ]
    assert await session.fetchval("select keep from jobd.queues") == "all"
    # The statement of a daemon of the release before.
    await session.execute(
        "insert into jobd.queues (name) select unnest($1::text[]) on conflict do nothing", ["a"]
    )
    assert await session.fetchval("select count(*) from jobd.queues where keep = 'all'") == 2


async def test_who_may_work_with_the_history_may_work_with_tombstones(
    session: asyncpg.Connection[Any], empty_database_url: str, postgres: PostgresServer
):
    role = f"works_{await session.fetchval('select oid from pg_database where datname = current_database()')}"
    await session.execute(f"create role {role}")
    await session.execute(f"grant select, insert, delete on jobd.job_history to {role}")
    await session.execute("grant select on jobd.job_history to public")
    await migrate.migrate(empty_database_url)
    rights = "select has_table_privilege($1, 'jobd.tombstones', $2)"
    for right, held in {"select": True, "insert": True, "delete": True, "update": False}.items():
        assert await session.fetchval(rights, role, right) is held, right
    assert await session.fetchval("select has_table_privilege('public', 'jobd.tombstones', 'select')")
    assert not await session.fetchval("select has_table_privilege('public', 'jobd.tombstones', 'insert')")
    await session.execute(f"drop owned by {role}; drop role {role}")
