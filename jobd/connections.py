"""Other people's connections: which library one is of, and how to execute a block of `sql/` on it.

asyncpg, psycopg (3 and 2) and SQLAlchemy 2 are told apart by the names in a class's ancestry, so that
jobd imports none of them. One code serves asyncio and blocking drivers: the calls of the latter are done
when they return. What a call means for the transaction, and its errors, are matters of `doors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID

from jobd.errors import ConfigError, Refused, TenantFull
from jobd.sqlstate import tenant_full

Rows = list[dict[str, Any]]

PLACEHOLDER = re.compile(r"\$(\d+)")
COPY = re.compile(r"^copy (\w+)\.(\w+) \(([^)]*)\)\s+from stdin \(format binary\)$", re.MULTILINE)

Copy = Callable[[str, Iterable[bytes]], Awaitable[None]]
"""Takes the statement, and the stream in parts."""


class Driver(Protocol):
    """What the libraries have in common. Blocking ones never suspend."""

    async def fetch(self, text: str, args: Sequence[Any]) -> Rows: ...
    async def execute(self, text: str) -> None: ...

    @property
    def copy(self) -> Copy | None:
        """Executes a COPY in binary format from stdin, whose texts are in UTF-8; None where it cannot now.

        Not in another encoding: the server reads the texts in the connection's.
        """
        ...

    async def in_transaction(self) -> bool:
        """Whether the next statement runs inside a transaction, also one that it opens itself."""
        ...


class Asyncpg:
    """A connection of asyncpg, also one borrowed from its pool."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, text: str, args: Sequence[Any]) -> Rows:
        return [_row(record.items()) for record in await self._connection.fetch(text, *args)]

    async def execute(self, text: str) -> None:
        await self._connection.execute(text)

    async def _copy(self, text: str, parts: Iterable[bytes]) -> None:
        target = COPY.search(text)
        assert target is not None
        schema, table, columns = target.groups()
        async with contextlib.aclosing(_one_by_one(parts)) as source:
            await self._connection.copy_to_table(
                table,
                schema_name=schema,
                columns=re.findall(r"\w+", columns),
                source=source,
                format="binary",
            )

    @property
    def copy(self) -> Copy | None:
        return self._copy if _is_utf8(self._connection.get_settings().client_encoding) else None

    async def in_transaction(self) -> bool:
        return bool(self._connection.is_in_transaction())


class Psycopg:
    """A connection of psycopg 3, asyncio or blocking, or of psycopg2; whatever rows it is set to return."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, text: str, args: Sequence[Any]) -> Rows:
        cursor = self._cursor()
        try:
            # psycopg's raw cursors take the server's own placeholders.
            raw = any(base.__name__ == "RawCursorMixin" for base in type(cursor).__mro__)
            await _done(cursor.execute(*rendered(text, args, "numeric_dollar" if raw else "pyformat")))
            rows = await _done(cursor.fetchall())
            # Only now: in pipeline mode there was no answer before.
            names = [column[0] for column in cursor.description]
            return [_row(zip(names, row, strict=True)) for row in rows]
        finally:
            await _done(cursor.close())

    async def execute(self, text: str) -> None:
        await self._answered()
        cursor = self._cursor()
        try:
            await _done(cursor.execute(text))
        finally:
            await _done(cursor.close())
        await self._answered()

    async def _copy(self, text: str, parts: Iterable[bytes]) -> None:
        cursor = self._cursor()
        try:
            if hasattr(cursor, "copy_expert"):  # psycopg2 reads a file.
                cursor.copy_expert(text, io.BytesIO(b"".join(parts)))
                return
            copying = cursor.copy(text)
            if hasattr(copying, "__aenter__"):
                async with copying as copy, contextlib.aclosing(_one_by_one(parts)) as source:
                    async for part in source:
                        await copy.write(part)
            else:
                with copying as copy:
                    for part in parts:
                        copy.write(part)
        finally:
            await _done(cursor.close())

    @property
    def copy(self) -> Copy | None:
        # psycopg2 cannot where a callback waits for it, as with gevent.
        unable = self._pipelined if self._is_3 else sys.modules["psycopg2.extensions"].get_wait_callback()
        utf8 = _is_utf8(self._connection.info.parameter_status("client_encoding"))
        return self._copy if utf8 and not unable else None

    async def in_transaction(self) -> bool:
        await self._answered()
        return not self._connection.autocommit or bool(self._connection.info.transaction_status)

    @property
    def _is_3(self) -> bool:
        return hasattr(self._connection, "row_factory")

    @property
    def _pipelined(self) -> bool:
        return self._is_3 and bool(self._connection.pgconn.pipeline_status)

    async def _answered(self) -> None:
        """In pipeline mode, wait for the answers to all that was sent: psycopg does where pipelines nest."""
        if self._pipelined:
            pipeline = self._connection.pipeline()
            if hasattr(pipeline, "__aenter__"):
                async with pipeline:
                    pass
            else:
                with pipeline:
                    pass

    def _cursor(self) -> Any:
        if self._is_3:
            return self._connection.cursor(row_factory=lambda cursor: tuple)
        return self._connection.cursor(cursor_factory=sys.modules["psycopg2.extensions"].cursor)


class Sqlalchemy:
    """A connection or session of SQLAlchemy 2, asyncio or blocking, over asyncpg, psycopg or psycopg2."""

    copy = None  # SQLAlchemy has no COPY of its own.

    def __init__(self, connection: Any) -> None:
        self._given = connection

    async def fetch(self, text: str, args: Sequence[Any]) -> Rows:
        connection = await self._connection()
        statement, parameters = rendered(text, args, connection.dialect.paramstyle)
        result = await _done(connection.exec_driver_sql(statement, parameters))
        return [_row(row.items()) for row in result.mappings().all()]

    async def execute(self, text: str) -> None:
        await _done((await self._connection()).exec_driver_sql(text))

    async def in_transaction(self) -> bool:
        connection = await self._connection()
        pooled = getattr(connection, "sync_connection", connection).connection
        if not pooled.dbapi_connection.autocommit:
            return True
        below = pooled.driver_connection
        return bool(
            below.is_in_transaction()
            if hasattr(below, "is_in_transaction")
            else below.info.transaction_status
        )

    async def _connection(self) -> Any:
        """The connection itself; a session hands out the one of its transaction, and begins that."""
        if hasattr(self._given, "exec_driver_sql"):
            return self._given
        return await _done(self._given.connection())


# Library and class, and whether its calls block.
FLAVOURS: dict[tuple[str, str], tuple[Callable[[Any], Driver], bool]] = {
    ("asyncpg", "Connection"): (Asyncpg, False),
    ("asyncpg", "PoolConnectionProxy"): (Asyncpg, False),
    ("psycopg", "AsyncConnection"): (Psycopg, False),
    ("psycopg", "Connection"): (Psycopg, True),
    ("psycopg2", "connection"): (Psycopg, True),
    ("sqlalchemy", "AsyncConnection"): (Sqlalchemy, False),
    ("sqlalchemy", "AsyncSession"): (Sqlalchemy, False),
    ("sqlalchemy", "async_scoped_session"): (Sqlalchemy, False),
    ("sqlalchemy", "Connection"): (Sqlalchemy, True),
    ("sqlalchemy", "Session"): (Sqlalchemy, True),
    ("sqlalchemy", "scoped_session"): (Sqlalchemy, True),
}

BLOCKS = "is a connection whose calls block: use jobs.sync with it, or an asyncio connection here"
AWAITS = "is an asyncio connection: use `await jobs.enqueue(...)` with it, or a blocking connection here"
NO_CONNECTION = (
    "has to be a connection of asyncpg or psycopg, or a connection or session of SQLAlchemy 2; "
    "out of a pool or an engine, take a connection first; out of Django's, its .connection"
)


def driver_of(connection: Any, *, blocking: bool) -> Driver:
    """The way to execute on somebody's connection or session; `blocking` says which flavour is wanted.

    Subclasses count: SQLModel's session is one of SQLAlchemy. Raises ConfigError for what is no such
    connection, and for one of the other flavour.
    """
    remedy = NO_CONNECTION
    for ancestor in type(connection).__mro__:
        known = FLAVOURS.get((_library(ancestor), ancestor.__name__))
        if known is not None:
            driver, blocks = known
            if blocks == blocking:
                return driver(connection)
            remedy = BLOCKS if blocks else AWAITS
            break
    raise ConfigError("connection", f"{_library(type(connection))}.{type(connection).__name__}", remedy)


def refusal(error: BaseException) -> Refused | TenantFull | None:
    """What jobd itself refuses in the database, out of any library's wrapping.

    An id that a job of another kind or tenant has, and a tenant of which no more jobs may wait.
    """
    cause: Any = error
    while cause is not None:
        facts = getattr(cause, "diag", cause)  # where psycopg keeps them
        if getattr(facts, "constraint_name", None) == "jobs_pkey":
            return Refused(str(error), sqlstate="23505", constraint="jobs_pkey")
        if (full := tenant_full(cause)) is not None:
            return full
        cause = getattr(cause, "orig", None) or cause.__cause__  # SQLAlchemy's, and its adapters'
    return None


def rendered(text: str, args: Sequence[Any], paramstyle: str) -> tuple[str, Any]:
    """A block's text and arguments as a driver of this DB-API paramstyle takes them (PEP 249).

    Values never become part of the text here. A block has neither placeholders nor percent signs in
    strings or comments that would need more than this.
    """
    match paramstyle:
        case "numeric_dollar":
            return text, tuple(args)
        case "pyformat":
            return PLACEHOLDER.sub(r"%(p\1)s", text.replace("%", "%%")), {
                f"p{n}": arg for n, arg in enumerate(args, 1)
            }
        case "format":
            order = [int(number) for number in PLACEHOLDER.findall(text)]
            return PLACEHOLDER.sub("%s", text.replace("%", "%%")), tuple(args[n - 1] for n in order)
    raise ConfigError(
        "connection", paramstyle, "is no parameter style of asyncpg, psycopg or psycopg2; use one of them"
    )


async def _one_by_one(parts: Iterable[bytes]) -> AsyncGenerator[bytes]:
    """The parts, with a turn for others on the loop after each: a socket that has room waits for nobody."""
    for part in parts:
        yield part
        await asyncio.sleep(0)


async def _done(result: Any) -> Any:
    """What a driver's call returned, or, of an asyncio one, will."""
    return await result if inspect.isawaitable(result) else result


def _row(columns: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(columns)
    # psycopg2, and connections with codecs of their own, give a uuid as text.
    if "id" in row and not isinstance(row["id"], UUID):
        row["id"] = UUID(str(row["id"]))
    return row


def _is_utf8(encoding: object) -> bool:
    # A pooler repeats what the client said, quotes and all; the server has one spelling.
    return re.sub(r"\W", "", str(encoding)).lower() == "utf8"


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]
