"""From settings to an open door: where the database is, an embedded one if nobody named one, one call.

Verbs that make a single call on the store use `call`; `run` and `enqueue` take `database` and open what
they need themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from jobd.cli.output import note
from jobd.errors import MISSING, ConfigError, DatabaseUnavailable

if TYPE_CHECKING:
    from jobd.door import Database, Link
    from jobd.settings import Settings

Answer = TypeVar("Answer")

EMBEDDED_FOLDER = Path(".jobd")
# Made by Docker, and by Podman and CRI-O.
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def load(*, under: Mapping[str, Any] | None = None, **flags: Any) -> Settings:
    """The settings, with the options that were given (those not None) on top; `under` them, an application's.

    Raises ConfigError.
    """
    from jobd.settings import load_settings

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return load_settings(**{**(under or {}), **given})
    except ConfigError as error:
        if error.setting not in given:
            raise
        # It was an option of this very command line that was wrong: name it as it was typed.
        raise ConfigError(f"--{error.setting.replace('_', '-')}", error.value, error.remedy) from error


def load_for_database(*, database_url: str | None) -> Settings:
    """The settings of a verb that needs the database alone.

    The application is imported only where nobody else says where that is: its `Jobs(...)` may.
    """
    settings = load(database_url=database_url)
    if settings.database_url is not None or settings.app is None:
        return settings
    from jobd.cli.application import load_jobs

    return load(under=load_jobs(settings.app).overrides)


def call(work: Callable[[Link], Awaitable[Answer]], *, database_url: str | None) -> Answer:
    """Run `work` on a connection of its own and return its answer."""
    import asyncio

    from jobd.door import Link

    settings = load_for_database(database_url=database_url)

    async def connected(database: Database) -> Answer:
        link = Link(database)
        try:
            return await work(link)
        finally:
            await link.close()

    with database(settings) as url:
        return asyncio.run(connected(database_at(url, settings)))


@contextmanager
def one_database(database_url: str | None) -> Iterator[str | None]:
    """The URL for several calls, of which each would otherwise start and stop an embedded server."""
    settings = load_for_database(database_url=database_url)
    if settings.database_url is not None:
        yield database_url
        return
    with database(settings) as url:
        yield url


def database_at(url: str, settings: Settings) -> Database:
    """The database at `url`, reached as the settings say."""
    from jobd.door import Database

    return Database(url, prepared_statements=settings.prepared_statements, application="jobd cli")


@contextmanager
def database(settings: Settings, *, migrates: bool = True) -> Iterator[str]:
    """The URL of the database: the one of the settings, else an embedded server as long as the block lasts.

    An embedded one is brought to the newest schema first, if `migrates`, and stopped at the end
    unless somebody else uses it. Raises ConfigError in a container, where its data would be lost.
    """
    if settings.database_url is not None:
        from jobd.settings import redact_url

        try:
            yield settings.database_url
        except DatabaseUnavailable as error:
            remedy = (
                "correct the user, the password or the database's name in it"
                if error.permanent
                else "check that PostgreSQL runs there and can be reached from here"
            )
            error.add_note(f"JOBD_DATABASE_URL = {redact_url(settings.database_url)!r}: {remedy}")
            raise
        return
    if in_container():
        raise ConfigError(
            "JOBD_DATABASE_URL",
            MISSING,
            "a container needs a database outside it, like postgresql://user@host:5432/name; "
            "JOBD_IN_CONTAINER=0 allows one inside all the same, to be lost with the container",
        )
    from jobd.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(EMBEDDED_FOLDER)
    note(f"no JOBD_DATABASE_URL: using the embedded PostgreSQL in {EMBEDDED_FOLDER}/ (development only)")
    with _termination_unwinds():
        try:
            url = server.start()
            if migrates and settings.migrate == "auto":
                import asyncio

                from jobd.migrate import migrate

                asyncio.run(migrate(database_at(url, settings)))
            yield url
        finally:
            server.stop()


def in_container() -> bool:
    """Whether this is a container: its folder is gone with it, so no data may live there."""
    said = os.environ.get("JOBD_IN_CONTAINER", "")
    if said:
        return said != "0"
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(mark.exists() for mark in CONTAINER_MARKS)


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process by an exception, so that the embedded server is stopped too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unwind(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def who() -> str:
    """Who is at the terminal, for those who find later what was changed."""
    import getpass
    import socket

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name, as in containers
        return socket.gethostname()
