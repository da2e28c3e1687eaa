"""Connections that are lent: to the client's calls, one each, and to handlers for as long as they like."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncpg

from jobd.door import SESSION, Database, Record, keep_alive, run
from jobd.errors import CallTimeout, DatabaseUnavailable
from jobd.sqlstate import translated

if TYPE_CHECKING:
    from jobd.sql import Block

    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection


class LentSession(_Connection):
    """A pool's connection. What a borrower set on it is undone when it comes back."""

    clean = False

    def leave_clean(self) -> None:
        """The borrower executes statements that leave nothing behind: save the round trip of a reset."""
        self.clean = True

    def get_reset_query(self) -> str:
        """What asyncpg executes when the connection comes back, after it rolled back what was open."""
        clean, self.clean = self.clean, False
        return "" if clean else f"{super().get_reset_query()};{SESSION}"


class LentPooled(LentSession):
    """The same behind a pooler: there is no session, and a reset would hit somebody else's."""

    def get_reset_query(self) -> str:
        """Nothing; what was open is rolled back all the same."""
        return ""


async def _prepare_session(connection: Any) -> None:
    keep_alive(connection)
    await connection.execute(SESSION)


async def _prepare_pooled(connection: Any) -> None:
    keep_alive(connection)


class Pool:
    """Connections for clients and handlers. Calls end within `call_timeout` seconds."""

    def __init__(self, database: Database, *, size: int, call_timeout: float) -> None:
        self.database = database
        self.size = size
        self.call_timeout = call_timeout
        self._pool: asyncpg.Pool[Record] | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Make sure that the database can be reached; needed once before anything else."""
        async with self._turn:
            if self._pool is None:
                with translated():
                    probe = await self.database.connect()
                    await probe.close()
                    prepares = self.database.prepares
                    self._pool = await asyncpg.create_pool(
                        self.database.url,
                        min_size=0,
                        max_size=self.size,
                        init=_prepare_session if prepares else _prepare_pooled,
                        connection_class=LentSession if prepares else LentPooled,
                        # Calls have a limit of their own, and a handler's statements that of its attempt.
                        **{**self.database.options(prepares), "command_timeout": None},
                    )

    async def close(self) -> None:
        """Close every connection, the busy ones too after five seconds."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(5):
                    await pool.close()
            except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
                pool.terminate()

    async def fetch(self, block: Block, *args: Any) -> list[Record]:
        """Execute `block` on any connection. Raises CallTimeout when it takes too long."""
        try:
            async with asyncio.timeout(self.call_timeout) as limit:
                return await self._fetch(block, args)
        except TimeoutError as error:
            if limit.expired():
                raise CallTimeout(block.name, self.call_timeout) from error
            raise

    async def _fetch(self, block: Block, args: tuple[Any, ...]) -> list[Record]:
        with translated():
            pool, lease = await self._lend()
            lease.leave_clean()
            try:
                return await run(lease, block, args, prepares=self.database.prepares)
            except asyncpg.ReadOnlySQLTransactionError:
                # A failover left us on a standby: none of these connections will ever write again.
                await pool.expire_connections()
                raise
            finally:
                await _give_back(pool, lease)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection[Record]]:
        """A connection of one's own for as long as the block lasts."""
        with translated():
            pool, lease = await self._lend()
        try:
            yield lease
        except (asyncpg.ReadOnlySQLTransactionError, DatabaseUnavailable) as error:
            if isinstance(error.__cause__ or error, asyncpg.ReadOnlySQLTransactionError):
                # A failover left us on a standby: none of these connections will ever write again.
                await pool.expire_connections()
            raise
        finally:
            await _give_back(pool, lease)

    async def _lend(self) -> tuple[asyncpg.Pool[Record], Any]:
        if self._pool is None:
            await self.open()
        pool = self._pool
        if pool is None:
            raise DatabaseUnavailable("the pool is closed")
        return pool, await pool.acquire()


async def _give_back(pool: asyncpg.Pool[Record], lease: Any) -> None:
    # Whoever is cancelled here leaks no connection with its locks: asyncpg shields its own part of it.
    with contextlib.suppress(OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
        await pool.release(lease, timeout=5)
