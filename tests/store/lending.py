"""Connections as an application has them, of every library that `connection=` takes.

A `Loan` is one of them with what its owner does: execute, commit, roll back. Blocking ones block the
test's loop; that is what they do.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import psycopg
import psycopg2
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from jobd.client import Client
from jobd.ids import IdSequence
from jobd.job import Enqueued
from jobd.sync import SyncClient


@dataclass
class Loan:
    """A connection and its owner's ways to use it; `library` is where its errors come from."""

    connection: Any
    library: str
    blocking: bool
    run: Callable[[str], Any]
    commit: Callable[[], Any]
    rollback: Callable[[], Any]

    async def enqueue(self, client: Client, *args: Any, **options: Any) -> Enqueued:
        enqueue: Any = SyncClient(client).enqueue if self.blocking else client.enqueue
        return await done(enqueue(*args, connection=self.connection, **options))

    async def enqueue_many(self, client: Client, *args: Any, **options: Any) -> IdSequence:
        enqueue_many: Any = SyncClient(client).enqueue_many if self.blocking else client.enqueue_many
        return await done(enqueue_many(*args, connection=self.connection, **options))


async def done(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def asyncpg_connection(url: str) -> AsyncIterator[Loan]:
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    yield Loan(connection, "asyncpg", False, connection.execute, transaction.commit, transaction.rollback)
    await connection.close()


@asynccontextmanager
async def asyncpg_pooled(url: str) -> AsyncIterator[Loan]:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield Loan(connection, "asyncpg", False, connection.execute, transaction.commit, transaction.rollback)


@asynccontextmanager
async def psycopg_async(url: str) -> AsyncIterator[Loan]:
    connection = await psycopg.AsyncConnection.connect(url)
    yield Loan(connection, "psycopg", False, connection.execute, connection.commit, connection.rollback)
    await connection.close()


@asynccontextmanager
async def psycopg_blocking(url: str) -> AsyncIterator[Loan]:
    connection = psycopg.connect(url)
    yield Loan(connection, "psycopg", True, connection.execute, connection.commit, connection.rollback)
    connection.close()


@asynccontextmanager
async def psycopg2_connection(url: str) -> AsyncIterator[Loan]:
    connection = psycopg2.connect(url)
    run = connection.cursor().execute
    yield Loan(connection, "psycopg2", True, run, connection.commit, connection.rollback)
    connection.close()


def alchemy_async(driver: str, kind: type[Any]) -> Callable[[str], AbstractAsyncContextManager[Loan]]:
    @asynccontextmanager
    async def lend(url: str, **options: Any) -> AsyncIterator[Loan]:
        engine = create_async_engine(alchemy_url(url, driver), poolclass=NullPool, **options)
        given: Any = engine.connect() if kind is AsyncConnection else kind(engine)
        async with given:

            async def run(text: str) -> None:
                connection = given if kind is AsyncConnection else await given.connection()
                await connection.exec_driver_sql(text)

            yield Loan(given, "sqlalchemy", False, run, given.commit, given.rollback)
        await engine.dispose()

    return lend


def alchemy(driver: str, kind: type[Any]) -> Callable[[str], AbstractAsyncContextManager[Loan]]:
    @asynccontextmanager
    async def lend(url: str, **options: Any) -> AsyncIterator[Loan]:
        engine = create_engine(alchemy_url(url, driver), poolclass=NullPool, **options)
        given: Any = engine.connect() if kind is Connection else kind(engine)
        with given:

            def run(text: str) -> None:
                (given if kind is Connection else given.connection()).exec_driver_sql(text)

            yield Loan(given, "sqlalchemy", True, run, given.commit, given.rollback)
        engine.dispose()

    return lend


def alchemy_url(url: str, driver: str) -> Any:
    return make_url(url).set(drivername=f"postgresql+{driver}")


LENDERS: dict[str, Callable[..., AbstractAsyncContextManager[Loan]]] = {
    "asyncpg": asyncpg_connection,
    "asyncpg, from a pool": asyncpg_pooled,
    "psycopg, asyncio": psycopg_async,
    "psycopg, blocking": psycopg_blocking,
    "psycopg2": psycopg2_connection,
    "SQLAlchemy AsyncConnection, asyncpg": alchemy_async("asyncpg", AsyncConnection),
    "SQLAlchemy AsyncSession, asyncpg": alchemy_async("asyncpg", AsyncSession),
    "SQLAlchemy AsyncConnection, psycopg": alchemy_async("psycopg_async", AsyncConnection),
    "SQLAlchemy AsyncSession, psycopg": alchemy_async("psycopg_async", AsyncSession),
    "SQLAlchemy Connection, psycopg": alchemy("psycopg", Connection),
    "SQLAlchemy Session, psycopg": alchemy("psycopg", Session),
    "SQLAlchemy Connection, psycopg2": alchemy("psycopg2", Connection),
    "SQLAlchemy Session, psycopg2": alchemy("psycopg2", Session),
}
