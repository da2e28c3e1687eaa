"""Listens and serves one ASGI application inside somebody else's loop, by uvicorn.

uvicorn expects to own its process; here it owns nothing. It takes no signals, leaves the logging
configuration alone (the host of an embedded daemon may be served by uvicorn itself), and ends within
a second of being cancelled, whatever its clients hold open.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from jobd.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

DRAIN_SECONDS: Final = 0.5
"""How long requests that are being answered may go on after the server was told to end."""

REQUEST_SECONDS: Final = 10.0
MAX_CONNECTIONS: Final = 256

WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

_wire = logging.getLogger(f"{__name__}.wire")
_wire.setLevel(logging.ERROR)


class HttpServer:
    """Serves `app` on `host` and `port` while `run` runs; port 0 takes any free one."""

    def __init__(self, app: ASGIApp, *, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None

    def bind(self) -> None:
        """Take the port; `run` does it if nobody has. Connections wait until `run` serves them.

        Raises ConfigError naming JOBD_HTTP_PORT or JOBD_HTTP_HOST when that is impossible.
        """
        if self._socket is None:
            self._socket = _listening_socket(self._host, self._port)

    def close(self) -> None:
        """Give the port back; for a server that was bound and perhaps never ran."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def address(self) -> str:
        """The URL to reach it at from this machine, known once it is bound."""
        if self._socket is None:
            raise RuntimeError("the HTTP server has no address before bind() or after its end")
        host, port = self._socket.getsockname()[:2]
        host = WILDCARDS.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def run(self) -> None:
        """Serve until cancelled, and end within a second of it. Raises as `bind` does."""
        self.bind()
        assert self._socket is not None
        try:
            await _Server(self._app).serve(sockets=[self._socket])
        finally:
            self.close()


class _Server(uvicorn.Server):
    """uvicorn's server without its claims on the process, and with a firm end."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                loop="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,  # and access_log stays True: False would empty the host's access logger
                proxy_headers=False,
                server_header=False,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # uvicorn's own looks ten times a second whether it should end; once, for the Date header, will do.
        try:
            while True:
                await self.on_tick(0)
                await asyncio.sleep(1)
        finally:
            # Being cancelled is how it ends here, and uvicorn would leave all connections open then.
            await self._end()

    async def _end(self) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self.shutdown()
        finally:
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            for task in list(self.server_state.tasks):
                task.cancel()


class _Protocol(H11Protocol):
    """HTTP/1.1 for a port that anybody may reach.

    Strangers can neither fill the log (no line a request) nor use up the file descriptors that the
    database connections of this process need: connections are counted, and one that brings no whole
    request within REQUEST_SECONDS is closed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False
        self.logger = _wire
        self._request_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answering():
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._answering():  # or the next request had come along with the last one
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _await_request(self) -> None:
        self._stop_waiting()
        self._request_due = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._request_due is not None:
            self._request_due.cancel()
            self._request_due = None


def _listening_socket(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:  # the resolver would take it modulo 65536
        raise ConfigError("JOBD_HTTP_PORT", port, "must be from 0 (any free port) to 65535")
    try:
        # IPv4 first, which is what `localhost` means to those who probe it.
        found = sorted(
            socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE),
            key=lambda info: info[0] != socket.AF_INET,
        )
        family, _, _, _, address = found[0]
        dualstack = address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=128, dualstack_ipv6=dualstack)
    except OSError as error:
        raise _unusable(error, host, port) from None


def _unusable(error: OSError, host: str, port: int) -> ConfigError:
    match error.errno:
        case errno.EADDRINUSE:
            remedy = (
                f"another process listens on {host}:{port}; stop it, or choose another port (0 = any free)"
            )
            return ConfigError("JOBD_HTTP_PORT", port, remedy)
        case errno.EACCES:
            remedy = "this user may not listen there; choose a port above 1023 (0 = any free one)"
            return ConfigError("JOBD_HTTP_PORT", port, remedy)
        case _:
            remedy = f"cannot listen there ({error.strerror or error}); name an address of this machine"
            return ConfigError("JOBD_HTTP_HOST", host, remedy)
