"""The PostgreSQL servers that tests run against: a private one each, on a unix socket, without fsync.

JOBD_TEST_POSTGRES=15 takes the programs of Debian's package of that version instead of the bundled
ones. JOBD_TEST_POOLER=pgbouncer puts PgBouncer in transaction mode between the tests and the server.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from jobd.embedded import PORT, EmbeddedPostgres, StopMode, find_binaries

POOLER_PORT = 6432
PREFIX = "jobd-pg-"

# Durability is not what these tests look at: they restart processes, never machines.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "1h",
    "max_wal_size": "512MB",
    "log_min_duration_statement": "5s",
}

_numbers = itertools.count(1)


def binaries() -> Path:
    version = os.environ.get("JOBD_TEST_POSTGRES", "")
    return Path(f"/usr/lib/postgresql/{version}/bin") if version else find_binaries()


class PostgresServer:
    """One server of a test run or of a single test. All calls block; databases are cheap, servers are not."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._cluster = EmbeddedPostgres(folder, binaries=binaries(), settings={**SETTINGS, **settings})
        self.folder = folder

    def start(self) -> None:
        self._cluster.start()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it, as an outage does: connections see it go."""
        self._cluster.halt(mode)

    def close(self) -> None:
        self._cluster.stop("immediate")

    def dsn(self, database: str = "jobd") -> str:
        return self._cluster.dsn(database)

    def log(self) -> str:
        return self._cluster.log.read_text(errors="replace")

    def execute(self, statement: sql.Composed | str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement outside a transaction, on a connection of its own."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            text = statement if isinstance(statement, sql.Composed) else sql.SQL(statement)
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The name of a fresh copy of `template`, dropped at the end whoever is still connected.

        Fails the test when it leaves a transaction open: such a connection holds back the vacuum of
        every table, and in a pool it would be handed to the next caller.
        """
        name = f"test_{os.getpid()}_{next(_numbers)}"
        clone = sql.SQL("create database {} template {} strategy file_copy").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        self.execute(clone)
        yield name
        left_open = self._open_transactions(name)
        self.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        assert not left_open, f"connections were left idle in transaction: {left_open}"

    def migrate(self, database: str) -> None:
        """Bring a database to the newest schema, as `jobd migrate` does."""
        from jobd.migrate import migrate

        # On a thread of its own: pytest-asyncio's loop belongs to the tests.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(migrate(self.dsn(database)))).result()

    @contextmanager
    def pooled(self) -> Iterator[PgBouncer]:
        pooler = PgBouncer(self._cluster)
        with pooler.running():
            yield pooler

    def _open_transactions(self, database: str) -> list[tuple[object, ...]]:
        query = sql.SQL(
            "select pid, application_name, state, left(query, 200) from pg_stat_activity"
            " where datname = {} and state like 'idle in transaction%'"
        ).format(sql.Literal(database))
        # A connection that was just closed hard is seen until its backend notices.
        for _ in range(40):
            found = self.execute(query)
            if not found:
                return []
            time.sleep(0.05)
        return found


class PgBouncer:
    """PgBouncer in transaction mode, in front of every database of one server."""

    def __init__(self, cluster: EmbeddedPostgres) -> None:
        self._cluster = cluster
        self.folder = cluster.folder / "pooler"

    def dsn(self, database: str) -> str:
        direct = self._cluster.dsn(database)
        return direct.replace(f"&port={PORT}", f"&port={POOLER_PORT}")

    @contextmanager
    def running(self) -> Iterator[None]:
        sockets = self._cluster.sockets
        self.folder.mkdir(exist_ok=True)
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(
            f"""
            [databases]
            * = host={sockets} port={PORT} user=postgres
            [pgbouncer]
            listen_addr =
            listen_port = {POOLER_PORT}
            unix_socket_dir = {sockets}
            auth_type = any
            pool_mode = transaction
            max_client_conn = 1000
            default_pool_size = 20
            server_idle_timeout = 5
            ignore_startup_parameters = extra_float_digits,options
            logfile = {self.folder}/log
            pidfile = {self.folder}/pid
            """.replace("            ", "")
        )
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, (
            "JOBD_TEST_POOLER=pgbouncer needs the program pgbouncer (Debian: apt-get install pgbouncer)"
        )
        self._cluster.run(program, "--daemon", "--quiet", str(configuration))
        try:
            yield
        finally:
            os.kill(int((self.folder / "pid").read_text()), signal.SIGTERM)


@contextmanager
def running_server(**settings: str) -> Iterator[PostgresServer]:
    """A server in a folder of its own, gone with all its files at the end."""
    _sweep()
    # Not pytest's tmp_path: its names are too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_fast_folder()))
    server = PostgresServer(folder, **settings)
    try:
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def _fast_folder() -> Path:
    """In memory where there is room: a copy of the template takes a third of the time."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 2**30:
        return memory
    return Path(tempfile.gettempdir())


def _sweep() -> None:
    """End the servers of test runs that were killed: nobody holds their lock any more."""
    for users in _fast_folder().glob(f"{PREFIX}*/users"):
        with suppress(OSError), users.open("r+") as lock:
            if time.time() - users.stat().st_mtime < 120:
                continue  # it may be about to take its lock
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for pid_file in (users.parent / "data/postmaster.pid", users.parent / "pooler/pid"):
                with suppress(OSError):
                    os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
            shutil.rmtree(users.parent, ignore_errors=True)
