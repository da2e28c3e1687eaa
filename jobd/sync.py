"""The client for callers without an event loop: `jobs.sync.enqueue(...)`, `get`, `wait` and the rest.

Nothing is implemented twice: each call runs the client's own coroutine, in the caller's thread, over doors
that block. The pool lives on a loop in a thread of its own, which starts with the first call that needs it:

    caller's thread    Client.enqueue(...) -> Crossing.fetch --+      +--> back with the rows
    background thread                                          +-> Pool.fetch

So generators of payloads and subscribers of events run where the call was made. Calls are safe from
several threads. Made from a thread that runs an event loop they work, and block that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from jobd.client import Client
from jobd.doors import Copies, PoolDoor, Unit, caller_door, driven
from jobd.errors import PayloadError
from jobd.limits import Kinds, Queues, Tenants, UseCases
from jobd.pool import Pool

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)

CLOSING_SECONDS = 10.0


class Background:
    """An event loop in a daemon thread, with a pool of its own."""

    def __init__(self, like: Pool) -> None:
        self.pool = Pool(like.database, size=like.size, call_timeout=like.call_timeout)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jobd-sync", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns or raises, once it has; interrupted, it is cancelled."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Close the pool and end the thread; calls still under way are cancelled."""
        if threading.current_thread() is self._thread:
            # The collector found the client gone while it ran here, where waiting would be for ever.
            self._loop.stop()
            return
        try:
            asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result(CLOSING_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSING_SECONDS)
            self._loop.close()

    async def _wind_up(self) -> None:
        await self.pool.close()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)


class Crossing:
    """A door whose calls happen on the background's loop, while this thread waits."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._reset()
        _crossings.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._background: Background | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    async def fetch(self, block: Any, *args: Any) -> Any:
        """Execute one block on any connection of the background's pool."""
        background = self._started()
        return background.call(background.pool.fetch(block, *args))

    @contextlib.asynccontextmanager
    async def all_or_nothing(self) -> AsyncIterator[Unit]:
        """A transaction of its own, on one connection."""
        background = self._started()
        unit = PoolDoor(background.pool).all_or_nothing()
        inner = background.call(unit.__aenter__())
        with contextlib.ExitStack() as stack:
            stack.push(lambda *error: background.call(unit.__aexit__(*error)))
            yield _Unit(background, inner)

    async def sleep(self, seconds: float) -> None:
        """Block this thread; a loop in it would stand still anyway."""
        time.sleep(seconds)  # noqa: ASYNC251

    def close(self) -> None:
        """Close the connections and end the thread, if there are any. The next call would start anew."""
        with self._lock:
            finalizer, self._finalizer, self._background = self._finalizer, None, None
        if finalizer is not None:
            finalizer()

    def forget(self) -> None:
        """In a forked child: neither the parent's thread nor its sockets are ours; start anew when needed."""
        if self._background is not None:
            # Collected, its connections would speak to the parent's sessions.
            _parents.append(self._background)
        if self._finalizer is not None:
            self._finalizer.detach()
        self._reset()

    def _started(self) -> Background:
        with self._lock:
            if self._background is None:
                self._background = Background(self._pool)
                # At the latest when the interpreter ends; a thread frozen there leaves sessions behind.
                self._finalizer = weakref.finalize(self, self._background.stop)
            return self._background


class _Unit:
    """What `all_or_nothing` gives, on this side."""

    copies: Copies = "whole"  # The parts are made in this thread, and sent in the other one.

    def __init__(self, background: Background, inner: Unit) -> None:
        self._background = background
        self._inner = inner

    async def fetch(self, block: Any, *args: Any) -> Any:
        return self._background.call(self._inner.fetch(block, *args))

    async def copy(self, block: Any, parts: Iterable[bytes]) -> None:
        self._background.call(self._inner.copy(block, list(parts)))


_crossings: weakref.WeakSet[Crossing] = weakref.WeakSet()
_parents: list[Background] = []


def _after_fork() -> None:
    for crossing in _crossings:
        crossing.forget()


os.register_at_fork(after_in_child=_after_fork)


class _Blocking(Protocol[C_co]):
    @property
    def _client(self) -> C_co: ...


def blocking(
    method: Callable[Concatenate[C, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Blocking[C], P], T]:
    """A method of the client, or of a part of it, as one that returns what it would, once it has."""

    def call(self: _Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if any(isinstance(value, AsyncIterable) for value in (*args, *kwargs.values())):
            raise PayloadError(
                "$", "is an async iterable", "use `await jobs.enqueue_many(...)` with it, or an iterable here"
            )
        if (connection := kwargs.get("connection")) is not None:
            kwargs["connection"] = caller_door(connection, blocking=True)
        return driven(method(self._client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class SyncQueues:
    """Limits of queues; see `jobs.queues`."""

    def __init__(self, client: Client) -> None:
        self._client = Queues(client)

    set = blocking(Queues.set)
    reset = blocking(Queues.reset)
    get = blocking(Queues.get)
    list = blocking(Queues.list)
    drain = blocking(Queues.drain)


class SyncTenants:
    """Limits of tenants; see `jobs.tenants`."""

    def __init__(self, client: Client) -> None:
        self._client = Tenants(client)

    set = blocking(Tenants.set)
    reset = blocking(Tenants.reset)
    get = blocking(Tenants.get)
    list = blocking(Tenants.list)
    remove = blocking(Tenants.remove)


class SyncKinds:
    """Limits of each key of a kind; see `jobs.kinds`."""

    def __init__(self, client: Client) -> None:
        self._client = Kinds(client)

    set = blocking(Kinds.set)
    reset = blocking(Kinds.reset)
    get = blocking(Kinds.get)
    list = blocking(Kinds.list)


class SyncUseCases:
    """Limits of use cases; see `jobs.use_cases`."""

    def __init__(self, client: Client) -> None:
        self._client = UseCases(client)

    set = blocking(UseCases.set)
    reset = blocking(UseCases.reset)
    get = blocking(UseCases.get)
    list = blocking(UseCases.list)


class SyncClient:
    """A client whose calls block, made of one that awaits; what each does and raises is said there.

    A `connection` given to `enqueue` and `enqueue_many` is a blocking one: of psycopg or psycopg2, or a
    connection or session of SQLAlchemy. A blocking driver waits as long as its server does; a limit
    is `statement_timeout` on that connection. A forked child may go on using the client.
    """

    def __init__(self, client: Client) -> None:
        self._crossing = Crossing(client.pool)
        self._client = client.through(self._crossing)
        self.queues = SyncQueues(self._client)
        self.tenants = SyncTenants(self._client)
        self.kinds = SyncKinds(self._client)
        self.use_cases = SyncUseCases(self._client)

    enqueue = blocking(Client.enqueue)
    enqueue_many = blocking(Client.enqueue_many)
    get = blocking(Client.get)
    wait = blocking(Client.wait)
    explain = blocking(Client.explain)
    cancel = blocking(Client.cancel)
    retry = blocking(Client.retry)
    reschedule = blocking(Client.reschedule)
    run_now = blocking(Client.run_now)
    move = blocking(Client.move)
    delete = blocking(Client.delete)
    cancel_many = blocking(Client.cancel_many)
    retry_many = blocking(Client.retry_many)
    reschedule_many = blocking(Client.reschedule_many)
    move_many = blocking(Client.move_many)
    delete_many = blocking(Client.delete_many)
    list = blocking(Client.list)

    def close(self) -> None:
        """Close the client's own connections and end its thread; a later call opens them anew."""
        self._crossing.close()
