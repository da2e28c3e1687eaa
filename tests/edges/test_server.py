"""The HTTP server as a service of somebody else's loop: binding, ending, and strangers on the port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
import uvloop

from jobd.api import server as server_module
from jobd.api.probes import create_app
from jobd.api.server import HttpServer
from jobd.errors import ConfigError
from tests.edges.served import KnownCondition, new_metrics, served

REQUEST = b"GET /livez HTTP/1.1\r\nHost: jobd\r\n\r\n"
UNREADY = REQUEST.replace(b"livez", b"readyz")


def app(condition: KnownCondition | None = None):
    return create_app(condition or KnownCondition(), new_metrics())


class Connections:
    """Raw connections, closed with the test."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []

    async def send(self, server: HttpServer, sent: bytes = b"") -> asyncio.StreamReader:
        url = httpx.URL(server.address)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        self._writers.append(writer)
        writer.write(sent)
        await writer.drain()
        return reader

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    await connections.close()


async def was_ended(reader: asyncio.StreamReader) -> bool:
    """True once the server has closed the connection, politely or not."""
    try:
        async with asyncio.timeout(5):
            await reader.read()
    except ConnectionError:
        pass
    return True


async def test_port_0_takes_a_free_port_and_the_address_names_it() -> None:
    async with served(app()) as server, httpx.AsyncClient() as client:
        assert (await client.get(f"{server.address}/livez")).status_code == 200


def test_a_taken_port_is_an_error_that_names_the_setting_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^JOBD_HTTP_PORT = {port}: another process listens") as caught:
            HttpServer(app(), host="127.0.0.1", port=port).bind()

    assert caught.value.setting == "JOBD_HTTP_PORT"


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=r"^JOBD_HTTP_PORT"):
        HttpServer(app(), host="127.0.0.1", port=port).bind()


# 192.0.2.1 is set apart for documentation (RFC 5737), `.invalid` for names that never are (RFC 2606).
@pytest.mark.parametrize("host", ["192.0.2.1", "not-a-host.invalid"])
def test_an_address_of_another_machine_is_an_error_that_names_the_setting(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^JOBD_HTTP_HOST"):
        HttpServer(app(), host=host, port=0).bind()


def test_the_address_of_a_wildcard_can_be_asked_on_this_machine() -> None:
    server = HttpServer(app(), host="0.0.0.0", port=0)
    server.bind()
    try:
        assert server.address.startswith("http://127.0.0.1:")
    finally:
        server.close()


async def test_connections_wait_from_bind_until_the_server_runs(connections: Connections) -> None:
    server = HttpServer(app(), host="127.0.0.1", port=0)
    server.bind()
    answer = await connections.send(server, REQUEST)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.run())
        assert (await answer.readline()).startswith(b"HTTP/1.1 200")
        serving.cancel()


async def test_the_port_is_free_again_after_the_end() -> None:
    async with served(app()) as server, httpx.AsyncClient() as client:
        await client.get(f"{server.address}/livez")
        port = httpx.URL(server.address).port
    assert port is not None
    again = HttpServer(app(), host="127.0.0.1", port=port)
    again.bind()
    again.close()


async def test_it_ends_within_a_second_whatever_clients_hold_open(connections: Connections) -> None:
    condition = KnownCondition(checking=anyio.sleep_forever)
    async with served(app(condition)) as server:
        idle = await connections.send(server)
        kept_alive = await connections.send(server, REQUEST)
        await kept_alive.readuntil(b"\r\n\r\n")
        half = await connections.send(server, REQUEST[:20])
        hanging = await connections.send(server, UNREADY)
        began = time.monotonic()
    assert time.monotonic() - began < 1

    for reader in (idle, kept_alive, half, hanging):
        assert await was_ended(reader)


async def test_a_request_under_way_is_answered_before_the_end(connections: Connections) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def check() -> None:
        asked.set()
        await go_on.wait()

    server = HttpServer(app(KnownCondition(checking=check)), host="127.0.0.1", port=0)
    server.bind()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.run())
        answer = await connections.send(server, UNREADY)
        await asked.wait()
        serving.cancel()
        go_on.set()
        assert (await answer.readline()).startswith(b"HTTP/1.1 200")


async def test_signals_and_log_settings_of_the_process_are_left_alone() -> None:
    access = logging.getLogger("uvicorn.access")
    handler = logging.NullHandler()
    access.addHandler(handler)
    try:
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        async with served(app()) as server, httpx.AsyncClient() as client:
            await client.get(f"{server.address}/livez")
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
            assert access.handlers == [handler]
            assert access.propagate
    finally:
        access.removeHandler(handler)


def test_it_serves_from_a_thread_with_its_own_uvloop() -> None:
    server = HttpServer(app(), host="127.0.0.1", port=0)
    server.bind()
    control = uvloop.new_event_loop()
    serving: list[asyncio.Task[None]] = []

    def serve() -> None:
        serving.append(control.create_task(server.run()))
        with contextlib.suppress(asyncio.CancelledError):
            control.run_until_complete(serving[0])
        control.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with httpx.Client(base_url=server.address) as client:  # keeps its connection open past the end
        assert client.get("/livez").status_code == 200
        control.call_soon_threadsafe(serving[0].cancel)
        thread.join(1)
        assert not thread.is_alive()


async def test_a_connection_that_brings_no_request_is_closed(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.05)
    async with served(app()) as server:
        silent = await connections.send(server)
        half = await connections.send(server, REQUEST[:20])
        assert await was_ended(silent)
        assert await was_ended(half)


async def test_a_long_answer_outlives_the_time_for_requests(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.05)
    condition = KnownCondition(checking=anyio.sleep_forever)
    async with served(create_app(condition, new_metrics(), limit=0.2)) as server:
        answer = await connections.send(server, UNREADY)
        assert (await answer.readline()).startswith(b"HTTP/1.1 503")


async def test_connections_past_the_cap_are_closed_and_the_others_are_served(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    async with served(app()) as server:
        served_ones = [await connections.send(server, REQUEST) for _ in range(3)]
        for answer in served_ones:
            assert (await answer.readline()).startswith(b"HTTP/1.1 200")

        assert await was_ended(await connections.send(server))

        assert not any(answer.at_eof() for answer in served_ones)


async def test_two_requests_in_one_packet_are_both_answered(connections: Connections) -> None:
    async with served(app()) as server:
        answers = await connections.send(server, REQUEST * 2)
        for _ in range(2):
            head = await answers.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await answers.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


async def test_strangers_leave_no_line_in_the_log(
    connections: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with served(app()) as server:
        for sent in (REQUEST, b"\x16\x03\x01 not http\r\n\r\n", REQUEST.replace(b"livez", b"nothing")):
            assert await (await connections.send(server, sent)).readline()

    assert [record for record in caplog.records if record.name.startswith(("uvicorn.access", "jobd"))] == []
