"""The doors that a client's calls go through: the application's pool, and a connection on loan.

Each executes blocks one by one, or several as a unit. Over a blocking driver nothing ever suspends, so
`driven` runs a call to its end without a loop: that is how one client serves both kinds of callers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from jobd.connections import Asyncpg, Driver, driver_of, refusal
from jobd.door import Executes
from jobd.errors import CallTimeout, JobdError
from jobd.pool import Pool
from jobd.sqlstate import translate

if TYPE_CHECKING:
    from jobd.sql import Block

T = TypeVar("T")

# How to begin, keep and undo several calls as a unit: outside a transaction, and inside one.
TRANSACTION = ("begin isolation level read committed, read write", "commit", "rollback")
SAVEPOINT = (
    "savepoint jobd_enqueue",
    "release savepoint jobd_enqueue",
    "rollback to savepoint jobd_enqueue",
)


# How a COPY's parts are taken: not at all, all of them first, or each as it is made.
Copies = Literal["whole", "streamed"] | None


class Unit(Executes, Protocol):
    """A transaction or a savepoint, in which blocks are executed, and rows copied where `copies` says so."""

    @property
    def copies(self) -> Copies: ...

    async def copy(self, block: Block, parts: Iterable[bytes]) -> None:
        """Execute a COPY from these parts; what they raise passes as it is."""
        ...


class Door(Executes, Protocol):
    """A way to execute blocks, one by one or several as a unit."""

    def all_or_nothing(self) -> AbstractAsyncContextManager[Unit]:
        """A door through which either all calls take effect, or, if the block raises, none."""
        ...


class OwnDoor(Door, Protocol):
    """A door of jobd's own, which can also let time pass."""

    async def sleep(self, seconds: float) -> None: ...


class PoolDoor:
    """The application's pool as a door; each call may take `call_timeout`."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def fetch(self, block: Any, *args: Any) -> Any:
        """Execute one block on any connection."""
        return await self.pool.fetch(block, *args)

    @contextlib.asynccontextmanager
    async def all_or_nothing(self) -> AsyncIterator[Unit]:
        """One connection, in a transaction of its own. Where COMMIT gets no answer, nobody knows which."""
        limit = self.pool.call_timeout
        async with contextlib.AsyncExitStack() as stack:
            connection = await within(limit, "connect", stack.enter_async_context(self.pool.connection()))
            door = BorrowedDoor(Asyncpg(connection), limit=limit, named=translate)
            yield await stack.enter_async_context(door.all_or_nothing())

    async def sleep(self, seconds: float) -> None:
        """Let others run."""
        await asyncio.sleep(seconds)


class BorrowedDoor:
    """A door over one connection that is not ours to open, commit or close.

    `named` turns errors of the driver into jobd's; those it has no name for pass as they are. Each call on
    an asyncio driver ends within `limit` seconds; a blocking one takes as long as the server lets it.
    """

    def __init__(
        self, driver: Driver, *, limit: float | None, named: Callable[[BaseException], JobdError | None]
    ) -> None:
        self._driver = driver
        self._limit = limit
        self._named = named

    async def fetch(self, block: Block, *args: Any) -> Any:
        """Execute one block."""
        return await self._call(block.name, self._driver.fetch(block.text, args))

    @property
    def copies(self) -> Copies:
        """A blocking connection's owner may read payloads from it: they have to be there before the COPY."""
        if self._driver.copy is None:
            return None
        return "whole" if self._limit is None else "streamed"

    async def copy(self, block: Block, parts: Iterable[bytes]) -> None:
        """Execute a COPY; each of the parts may take as long as a call."""
        copying = self._driver.copy
        assert copying is not None, "see `copies`"
        source = Source(parts)
        try:
            if self._limit is None:
                await copying(block.text, source)
            else:
                async with limited(self._limit, block.name) as timer:
                    source.timer, source.limit = timer, self._limit
                    await copying(block.text, source)
        except Exception as error:
            if source.failure is not None:  # asyncpg takes a TimeoutError for one of its own.
                raise source.failure from None
            self._raise_named(error)
            raise

    @contextlib.asynccontextmanager
    async def all_or_nothing(self) -> AsyncIterator[Unit]:
        """A savepoint inside an open transaction, which a failure thus leaves usable; else one of our own."""
        inside = await self._call("begin", self._driver.in_transaction())
        begin, keep, undo = SAVEPOINT if inside else TRANSACTION
        await self._call("begin", self._driver.execute(begin))
        try:
            yield self
        except BaseException:
            # Where this fails, too, the connection is lost: what went wrong first tells more.
            with contextlib.suppress(Exception):
                await self._call("rollback", self._driver.execute(undo))
            raise
        await self._call("commit", self._driver.execute(keep))

    async def _call(self, what: str, call: Awaitable[T]) -> T:
        try:
            return await (call if self._limit is None else within(self._limit, what, call))
        except Exception as error:
            self._raise_named(error)
            raise

    def _raise_named(self, error: Exception) -> None:
        named = None if isinstance(error, JobdError) else self._named(error)
        if named is not None:
            raise named from error


class Source:
    """The parts of a COPY as a driver takes them: each starts the time anew; their own failure is kept."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self.failure: BaseException | None = None
        self.timer: asyncio.Timeout | None = None
        self.limit = 0.0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            part = next(self._parts)
        except StopIteration:
            raise
        except BaseException as error:
            self.failure = error
            # Drivers tell the server why a COPY ends midway, and it writes that into its log.
            raise RuntimeError("the caller's iterator failed") from None
        finally:
            # Not the database's time: making a part may have taken long.
            if self.timer is not None:
                self.timer.reschedule(asyncio.get_running_loop().time() + self.limit)
        return part


def caller_door(connection: Any, *, blocking: bool, limit: float | None = None) -> BorrowedDoor:
    """The door over a caller's connection; see `driver_of`.

    The driver's errors pass as they are, but for what jobd itself refuses.
    """
    driver = driver_of(connection, blocking=blocking)
    return BorrowedDoor(driver, limit=None if blocking else limit, named=refusal)


async def within(limit: float, what: str, call: Awaitable[T]) -> T:
    """Await `call` for at most `limit` seconds. Raises CallTimeout."""
    async with limited(limit, what):
        return await call


@contextlib.asynccontextmanager
async def limited(limit: float, what: str) -> AsyncIterator[asyncio.Timeout]:
    """A block that may take `limit` seconds; its timer can be set anew. Raises CallTimeout."""
    try:
        async with asyncio.timeout(limit) as timer:
            yield timer
    except TimeoutError as error:
        if timer.expired():
            raise CallTimeout(what, limit) from error
        raise


def driven(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nothing but blocking calls; needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a blocking call reached something that only an event loop can wait for")
