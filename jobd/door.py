"""The one door to PostgreSQL: connecting, executing a block, and naming what went wrong.

Nothing above this layer sees asyncpg. `Link` is a single connection that is opened when needed
and again when it broke: one for each service of the engine, so that no handler can ever exhaust
them; `pool` serves clients and handlers. Both execute blocks of `sql/`; with prepared statements
off, as behind a pooler in transaction mode, each call is wrapped in BEGIN and COMMIT, since its messages
could reach different servers otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from jobd.errors import (
    ConfigError,
    PartitionMissing,
    Refused,
    Transient,
)
from jobd.redaction import hide_passwords, redact_url
from jobd.sqlstate import translate, translated

if TYPE_CHECKING:
    from jobd.sql import Block

Record = asyncpg.Record

CONNECT_TIMEOUT = 5.0
STATEMENT_TIMEOUT = 30.0

# What our sessions are, whatever the role or the database prefers.
SESSION = (
    "set session characteristics as transaction isolation level read committed, read write; set jit = off"
)


class Executes(Protocol):
    """What a store needs: a way to execute one block."""

    async def fetch(self, block: Block, *args: Any) -> list[Record]: ...


class Database:
    """Where the database is and how to talk to it. Opens connections; holds none."""

    def __init__(self, url: str, *, prepared_statements: str = "auto", application: str = "jobd") -> None:
        self.url = url
        self.application = application
        self._prepared = {"auto": None, "on": True, "off": False}[prepared_statements]

    @property
    def prepares(self) -> bool:
        """Whether statements are prepared; known for `auto` after the first connection."""
        return bool(self._prepared)

    async def connect(self) -> asyncpg.Connection[Record]:
        """A new connection with dead peers detected within seconds, READ COMMITTED, and writable."""
        if self._prepared is None:
            self._prepared = not await self._behind_a_pooler()
        connection = await self._open(self._prepared)
        try:
            keep_alive(connection)
            if self._prepared:
                await connection.execute(SESSION)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _open(self, prepares: bool) -> asyncpg.Connection[Record]:
        with self._address():
            return await asyncpg.connect(self.url, **self.options(prepares))

    @contextlib.contextmanager
    def _address(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            # The driver found it before it spoke to anybody. Its words may repeat the password.
            said = hide_passwords(str(error))
            raise ConfigError(
                "JOBD_DATABASE_URL",
                redact_url(self.url),
                f"must look like postgresql://user@host:5432/database: {said}",
            ) from error

    async def _behind_a_pooler(self) -> bool:
        """A pooler tells its clients process numbers of its own; the server behind it says another one."""
        connection = await self._open(False)
        try:
            told = connection.get_server_pid()
            async with connection.transaction():
                return bool(await connection.fetchval("select pg_backend_pid()") != told)
        finally:
            connection.terminate()

    def options(self, prepares: bool) -> dict[str, Any]:
        """What every connection is opened with."""
        return {
            "command_timeout": STATEMENT_TIMEOUT,
            "timeout": CONNECT_TIMEOUT,
            "statement_cache_size": 200 if prepares else 0,
            "max_cached_statement_lifetime": 0,
            "server_settings": {"application_name": self.application},
        }


def keep_alive(connection: asyncpg.Connection[Record]) -> None:
    """Let the kernel find a dead peer in seconds; its defaults are two hours idle, a quarter of one busy."""
    transport = getattr(connection, "_transport", None)
    sock = transport.get_extra_info("socket") if transport else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 5000),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Link:
    """One connection for one service; opened when first used and again after it broke. One call at a time."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection: asyncpg.Connection[Record] | None = None
        self._turn = asyncio.Lock()

    async def fetch(self, block: Block, *args: Any) -> list[Record]:
        """Execute `block`. A connection that broke, or whose state is unknown, is not used again."""
        async with self._turn:
            with translated:
                try:
                    connection = await self.opened()
                    return await run(connection, block, args, prepares=self.database.prepares)
                except BaseException as error:
                    if not isinstance(translate(error), (Transient, Refused, PartitionMissing)):
                        self.drop()
                    raise

    async def execute_plain(self, text: str) -> None:
        """Execute text that takes no parameters outside any transaction (DDL that demands it)."""
        async with self._turn:
            with translated:
                connection = await self.opened()
                await connection.execute(text)

    async def opened(self) -> asyncpg.Connection[Record]:
        """The connection, opened if there is none."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self.database.connect()
        return self._connection

    def drop(self) -> None:
        """Cut the connection, without a word to the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Say goodbye to the server, within two seconds."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=2)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()


async def run(connection: Any, block: Block, args: tuple[Any, ...], *, prepares: bool) -> list[Record]:
    """Execute one block on one connection."""
    if prepares or connection.is_in_transaction():
        return await connection.fetch(block.text, *args)  # type: ignore[no-any-return]
    # Not asyncpg's transaction(): it cannot say READ WRITE.
    await connection.execute("begin isolation level read committed, read write")
    try:
        rows: list[Record] = await connection.fetch(block.text, *args)
    except BaseException:
        # Where this fails, too, the connection is lost: what went wrong first tells more.
        with contextlib.suppress(Exception):
            await connection.execute("rollback")
        raise
    await connection.execute("commit")
    return rows
