"""Fixtures: one PostgreSQL a run, a migrated template, a clone of it for each test that asks.

postgres             the run's server; do not stop it
own_postgres         a server for one test that stops or restarts it; not migrated
database_url         a fresh migrated database (through the pooler, in that lane)
direct_database_url  the same database, never through the pooler
empty_database_url   a fresh database without jobd's schema
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from tests.postgres import PgBouncer, PostgresServer, running_server

TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def pooler(postgres: PostgresServer) -> Iterator[PgBouncer | None]:
    match os.environ.get("JOBD_TEST_POOLER", ""):
        case "":
            yield None
        case "pgbouncer":
            with postgres.pooled() as pooler:
                yield pooler
        case other:
            raise pytest.UsageError(f"JOBD_TEST_POOLER={other}: only pgbouncer is known")


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> str:
    postgres.execute(f"create database {TEMPLATE}")
    postgres.migrate(TEMPLATE)
    return TEMPLATE


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def _clone(postgres: PostgresServer, migrated_template: str) -> Iterator[str]:
    with postgres.database(migrated_template) as name:
        yield name


@pytest.fixture
def direct_database_url(postgres: PostgresServer, _clone: str) -> str:
    return postgres.dsn(_clone)


@pytest.fixture
def database_url(postgres: PostgresServer, pooler: PgBouncer | None, _clone: str) -> str:
    return pooler.dsn(_clone) if pooler else postgres.dsn(_clone)


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as name:
        yield postgres.dsn(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may hold texts that UTF-8 cannot; parallel runs send it over a pipe."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
