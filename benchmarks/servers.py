"""The two servers everything runs against, each started once and stated in the report.

PostgreSQL is the one pip installs, with default durability (fsync and synchronous_commit on). Redis is
Debian's, with the configuration its package ships, on a port and in a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.machine import cpu_seconds
from benchmarks.venvs import Missing
from jobd.embedded import PORT, SUPERUSER, EmbeddedPostgres

SETTINGS = {
    "shared_buffers": "1GB",
    # So that no checkpoint falls into one contestant's minute and not into another's.
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "max_connections": "200",
    # What statementlog.py reads, where a workload turns statement logging on for one database.
    "log_line_prefix": "%m|%p|%d|%a| ",
}
SHOWN = ("fsync", "synchronous_commit", "full_page_writes", "wal_level", "autovacuum", *SETTINGS)
OURS = "benchmarks"
REDIS_CONF = Path("/etc/redis/redis.conf")


class Postgres:
    """One PostgreSQL; a fresh database for each measurement."""

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedPostgres(folder, settings=SETTINGS)
        if self._server.data.exists():  # of a run that was killed, or kept
            self._server.halt("immediate")
            shutil.rmtree(folder)
        try:
            self._server.start()
            self.log = self._server.log
            pid_file = self._server.data / "postmaster.pid"
            self.pid = int(pid_file.read_text().split("\n", 1)[0])
            self._admin = self.connect("postgres")
            self.settings = {"version": self._value("show server_version")}
            self.settings |= {name: self._value(f"show {name}") for name in SHOWN}
        except BaseException:
            if self._server.data.exists():
                self._server.halt("immediate")
            raise

    def _value(self, sql: str) -> str:
        row = self._admin.execute(sql).fetchone()
        return str(row[0]) if row else ""

    def url(self, database: str) -> str:
        return self._server.dsn(database)

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A connection of the harness; its work is told from the contestants' by its application name."""
        return psycopg.connect(self.url(database), autocommit=True, application_name=OURS)

    def fresh(self, database: str, *, template: str = "template1") -> str:
        """Make the database anew and return its URL; whoever is connected to it is thrown out."""
        self.drop(database)
        self._admin.execute(f"create database {database} template {template} strategy file_copy")
        self._admin.execute("checkpoint")
        return self.url(database)

    def drop(self, database: str) -> None:
        self._admin.execute(f"drop database if exists {database} with (force)")

    def log_statements(self, database: str, *, on: bool) -> None:
        """For sessions of this database that begin from now on."""
        self._admin.execute(f"alter database {database} set log_min_duration_statement = {0 if on else -1}")

    def pgbench(self, *arguments: str) -> str:
        """What pgbench prints."""
        server = ("-h", str(self._server.sockets), "-p", str(PORT), "-U", SUPERUSER)
        return self._server.run("pgbench", *server, *arguments).stdout

    def cpu_seconds(self, *, without: int) -> float:
        """CPU of all of the server's processes but the harness's own backend."""
        return cpu_seconds(self.pid, without=frozenset([without]))

    def stop(self) -> None:
        self._admin.close()
        self._server.stop()


class Redis:
    """One Redis; emptied for each measurement. Speaks just enough of the protocol to count."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            raise Missing("redis-server is not installed: run `apt-get install redis-server`")
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        conf = [str(REDIS_CONF)] if os.access(REDIS_CONF, os.R_OK) else []
        self._process = subprocess.Popen(
            [
                *("redis-server", *conf, "--port", str(self._port), "--bind", "127.0.0.1"),
                *("--daemonize", "no", "--supervised", "no", "--dir", str(folder), "--logfile", ""),
                *("--pidfile", str(folder / "redis.pid")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        self.url = f"redis://127.0.0.1:{self._port}/0"
        try:
            self._connect()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _connect(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=60)
                break
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise Missing("redis-server did not start: is another one using its files?") from None
                time.sleep(0.05)
        self._file = self._socket.makefile("rb")
        self.settings = {
            "version": next(
                line.partition(":")[2]
                for line in str(self.command("INFO", "server")).splitlines()
                if line.startswith("redis_version:")
            ),
            **{name: self._setting(name) for name in ("save", "appendonly", "maxmemory-policy")},
        }

    def _setting(self, name: str) -> str:
        return str(self.command("CONFIG", "GET", name)[1])

    def command(self, *words: str) -> Any:
        """Send one command and return its answer; RuntimeError with Redis's own words."""
        parts = [word.encode() for word in words]
        text = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(b"*%d\r\n%s" % (len(parts), text))
        return self._reply()

    def _reply(self) -> Any:
        line = self._file.readline().rstrip(b"\r\n")
        sort, rest = line[:1], line[1:]
        if sort == b":":
            return int(rest)
        if sort == b"+":
            return rest.decode()
        if sort == b"$":
            if rest == b"-1":
                return None
            return self._file.read(int(rest) + 2)[:-2].decode(errors="replace")
        if sort == b"*":
            return [self._reply() for _ in range(int(rest))]
        raise RuntimeError(rest.decode())

    def total(self, commands: Sequence[Sequence[str]]) -> int:
        """The sum of the integers these commands answer."""
        return sum(int(self.command(*words) or 0) for words in commands)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def stop(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait()
