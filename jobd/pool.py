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

# What was not needed for so long goes back to the pool, which closes it some minutes later.
KEPT_SECONDS = 10.0


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
    """Connections for clients and handlers. Calls end within `call_timeout` seconds.

    Between calls a connection is kept at hand: to give it back and take it again would cost more than the
    rest of a call. Whoever waits for one comes first, and what is not needed for a while goes back.
    """

    def __init__(self, database: Database, *, size: int, call_timeout: float) -> None:
        self.database = database
        self.size = size
        self.call_timeout = call_timeout
        self._pool: asyncpg.Pool[Record] | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        # The last one was used last. So many of the first were never needed since the last look.
        self._kept: list[Any] = []
        self._spare = 0
        self._look: asyncio.TimerHandle | None = None
        self._returning: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Make sure that the database can be reached; needed once before anything else."""
        async with self._turn:
            if self._pool is None:
                with translated:
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
                    await self._return_kept(pool)
                    await pool.close()
            except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
                pool.terminate()
        if self._look is not None:
            self._look.cancel()
            self._look = None

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
        with translated:
            pool, lease = await self._lend()
            try:
                rows = await run(lease, block, args, prepares=self.database.prepares)
            except BaseException as error:
                await _give_back(pool, lease, clean=True)
                if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                    await self._expire(pool)
                raise
            if self._waiting or self._pool is not pool:
                await _give_back(pool, lease, clean=True)
            else:
                self._kept.append(lease)
                if self._look is None:
                    self._look_later()
            return rows

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection[Record]]:
        """A connection of one's own for as long as the block lasts."""
        with translated:
            pool, lease = await self._lend()
        try:
            yield lease
        except (asyncpg.ReadOnlySQLTransactionError, DatabaseUnavailable) as error:
            if isinstance(error.__cause__ or error, asyncpg.ReadOnlySQLTransactionError):
                await self._expire(pool)
            raise
        finally:
            await _give_back(pool, lease)

    async def _lend(self) -> tuple[asyncpg.Pool[Record], Any]:
        if self._pool is None:
            await self.open()
        pool = self._pool
        if pool is None:
            raise DatabaseUnavailable("the pool is closed")
        while self._kept:
            lease = self._kept.pop()
            self._spare = min(self._spare, len(self._kept))
            if not _is_lost(lease):
                return pool, lease
            await _give_back(pool, lease)
        self._waiting += 1
        try:
            return pool, await pool.acquire()
        finally:
            self._waiting -= 1

    async def _expire(self, pool: asyncpg.Pool[Record]) -> None:
        """A failover left us on a standby: none of these connections will ever write again."""
        await pool.expire_connections()
        await self._return_kept(pool)

    async def _return_kept(self, pool: asyncpg.Pool[Record], count: int | None = None) -> None:
        """Give the first so many of those at hand back, or all."""
        leases = self._kept[:count]
        del self._kept[:count]
        for lease in leases:
            await _give_back(pool, lease, clean=True)

    def _look_later(self) -> None:
        self._spare = len(self._kept)
        self._look = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._look_at_kept)

    def _look_at_kept(self) -> None:
        self._look = None
        if self._spare and self._pool is not None:
            task = asyncio.get_running_loop().create_task(self._return_kept(self._pool, self._spare))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)
        if len(self._kept) > self._spare:
            self._look_later()


def _is_lost(lease: Any) -> bool:
    """Whether the connection broke; the pool may have taken its place back then."""
    try:
        return bool(lease.is_closed())
    except asyncpg.InterfaceError:
        return True


async def _give_back(pool: asyncpg.Pool[Record], lease: Any, *, clean: bool = False) -> None:
    # Whoever is cancelled here leaks no connection with its locks: asyncpg shields its own part of it.
    with contextlib.suppress(OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
        if clean and not _is_lost(lease):
            lease.leave_clean()
        await pool.release(lease, timeout=5)
