"""Bring the schema `jobd` to the version this jobd needs, once, however many daemons start at the same time.

Everything happens in one transaction under an advisory lock: the schema, the files of `migrations/`
that are not in `schema_version` yet, the functions of `sql/functions*.sql`, and the partitions of
the next days. Waiting for the lock is polling, never blocking in it: a blocked waiter holds a snapshot, and
an index built concurrently elsewhere would wait for that snapshot for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import asyncpg

from jobd import sql
from jobd.door import Database
from jobd.errors import DatabaseUnavailable, SchemaError, SchemaOutdated, SchemaTooNew, Transient
from jobd.sqlstate import translated

LOCK = 0x6A6F6264  # "jobd"
LOCK_PATIENCE_SECONDS = 120.0
FILE = re.compile(r"^(\d{4})_(\w+)\.sql$")

BOOTSTRAP = """\
create schema if not exists jobd;
create table if not exists jobd.schema_version (
    version    integer primary key,
    name       text not null,
    applied_at timestamptz not null default now()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`: `0001_initial.sql` is version 1."""

    version: int
    name: str
    text: str


def migrations() -> list[Migration]:
    """The files that this jobd ships, in order."""
    found = []
    for entry in _folder().iterdir():
        if match := FILE.match(entry.name):
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def needed_version() -> int:
    """The schema version that this jobd works with."""
    return migrations()[-1].version


def script() -> str:
    """All that `migrate` would run on an empty database, for somebody who runs it by hand."""
    parts = ["begin;", BOOTSTRAP]
    for migration in migrations():
        parts += [
            f"-- migration {migration.version:04}: {migration.name}",
            migration.text,
            _record(migration),
        ]
    parts += [_functions(), "select jobd.ensure_partitions();", "commit;", ""]
    return "\n".join(parts)


async def found_version(database: Database) -> int:
    """The version of the schema in the database; 0 where there is none."""
    with translated:
        connection = await database.connect()
        try:
            return await _version(connection)
        finally:
            await connection.close()


async def check(database: Database) -> None:
    """Raise SchemaOutdated or SchemaTooNew unless the schema is the one this jobd needs."""
    _compare(await found_version(database))


async def migrate(target: Database | str) -> list[str]:
    """Apply what is missing; return the names of the files applied. Safe to run any number of times.

    Raises SchemaTooNew and changes nothing where a newer jobd was here; SchemaOutdated when the
    role may not change the schema and it needs changes; SchemaError when another migration
    holds the lock for two minutes.
    """
    database = Database(target) if isinstance(target, str) else target
    deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE_SECONDS
    rng = random.Random()
    while True:
        try:
            with translated:
                applied = await _attempt(database)
        except Transient:
            applied = None
        if applied is not None:
            return applied
        if asyncio.get_running_loop().time() > deadline:
            raise SchemaError(
                f"another migration has held its lock for {LOCK_PATIENCE_SECONDS:g} s: "
                "look for it in pg_stat_activity"
            )
        await asyncio.sleep(rng.uniform(0.05, 0.25))


async def _attempt(database: Database) -> list[str] | None:
    """Migrate if the lock is free; None when it is not."""
    connection = await database.connect()
    try:
        # A database that is up to date needs no lock and no rights beyond reading.
        version = await _version(connection)
        if version > needed_version():
            raise SchemaTooNew(version, needed_version())
        if version == needed_version() and await _functions_current(connection):
            return []
        async with connection.transaction(isolation="read_committed"):
            if not await connection.fetchval("select pg_try_advisory_xact_lock($1::bigint)", LOCK):
                return None
            return await _apply(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        version = await _version(connection)
        if version == needed_version():
            return []
        raise SchemaError(
            f"{SchemaOutdated(version, needed_version())}, as a role that may create schemas and tables "
            f"(this one may not: {error})"
        ) from error
    finally:
        await connection.close()


async def _apply(connection: Any) -> list[str]:
    await connection.execute("set local lock_timeout = '2s'; set local client_min_messages = 'warning'")
    await connection.execute(BOOTSTRAP)
    version = await _version(connection)
    if version > needed_version():
        raise SchemaTooNew(version, needed_version())
    applied = []
    for migration in migrations():
        if migration.version > version:
            await connection.execute(migration.text)
            await connection.execute(_record(migration))
            applied.append(f"{migration.version:04}_{migration.name}")
    if not await _functions_current(connection):
        await connection.execute(_functions())
    await connection.fetch("select jobd.ensure_partitions()")
    return applied


def _compare(found: int) -> None:
    needed = needed_version()
    if found > needed:
        raise SchemaTooNew(found, needed)
    if found < needed:
        raise SchemaOutdated(found, needed)


async def _version(connection: Any) -> int:
    try:
        if await connection.fetchval("select to_regclass('jobd.schema_version')") is None:
            return 0
        return int(await connection.fetchval("select coalesce(max(version), 0) from jobd.schema_version"))
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(
            f"this role may not look at the schema: {error}; grant usage on schema jobd to it, "
            "and select, insert, update and delete on its tables"
        ) from error


def functions_version() -> tuple[int, str]:
    """The number that `sql/functions.sql` bears, and a fingerprint of all functions.

    Of two jobds with the same schema the higher number's functions win, however often the other starts.
    """
    text = sql.functions()
    number = re.search(r"^-- functions: (\d+)$", text, re.MULTILINE)
    assert number is not None
    return int(number[1]), hashlib.sha256(text.encode()).hexdigest()[:16]


def _functions() -> str:
    number, mark = functions_version()
    return (
        sql.functions()
        + "\ncreate or replace function jobd.functions_version() returns text language sql immutable\n"
        + f"as $$ select '{number}:{mark}' $$;\n"
    )


async def _functions_current(connection: Any) -> bool:
    """Whether the database's functions are ours, or a newer jobd's."""
    if await connection.fetchval("select to_regproc('jobd.functions_version')") is None:
        return False
    number, _, mark = str(await connection.fetchval("select jobd.functions_version()")).partition(":")
    ours, our_mark = functions_version()
    return (int(number) if number.isdigit() else 0) > ours or (number, mark) == (str(ours), our_mark)


def _record(migration: Migration) -> str:
    return (
        f"insert into jobd.schema_version (version, name) values ({migration.version}, '{migration.name}');"
    )


def _folder() -> Traversable:
    """`migrations/` inside an installed package; beside it in a checkout."""
    installed = resources.files("jobd").joinpath("migrations")
    if installed.is_dir():
        return installed
    beside = resources.files("jobd").joinpath("..", "migrations")
    if not beside.is_dir():
        raise DatabaseUnavailable("this installation of jobd lacks its migrations: reinstall it")
    return beside
