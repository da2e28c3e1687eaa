"""The store of one contestant during one measurement: what is in it, and what using it cost.

Completions are counted here and never by a handler: what a queue has not stored it has not done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.contestant import Failed, Running
from benchmarks.servers import Postgres, Redis

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Counters:
    """What PostgreSQL counts of one database; each difference is what happened between."""

    wal_bytes: int
    commits: int
    dead_tuples: int

    def __sub__(self, before: Counters) -> Counters:
        return Counters(
            self.wal_bytes - before.wal_bytes,
            self.commits - before.commits,
            self.dead_tuples - before.dead_tuples,
        )


class Store(Protocol):
    """Where a contestant keeps its jobs."""

    url: str

    def unfinished(self) -> int: ...
    def completed(self) -> int: ...
    def cpu_seconds(self) -> float: ...
    def settle(self) -> None:
        """Bring statistics up to date, as an hour of peace would."""
        ...

    def close(self) -> None: ...


class PostgresStore:
    """A database with the contestant's tables in it."""

    def __init__(self, server: Postgres, database: str, described: dict[str, Any]) -> None:
        self.server = server
        self.database = database
        self.url = server.url(database)
        self.connection = server.connect(database)
        self.described = described
        self._polls = 0

    def value(self, sql: str) -> Any:
        """The one value that a statement returns."""
        self._polls += 1
        row = self.connection.execute(sql.encode()).fetchone()
        return row[0] if row else None

    def unfinished(self) -> int:
        return int(self.value(self.described["unfinished"]))

    def completed(self) -> int:
        return int(self.value(self.described["completed"]))

    def finish_times(self) -> list[float] | None:
        """When each job ended, in seconds and in order, if the contestant stores that."""
        if not (sql := self.described.get("times")):
            return None
        return [float(row[0]) for row in self.connection.execute(sql.encode())]

    def cpu_seconds(self) -> float:
        return self.server.cpu_seconds(without=self.connection.info.backend_pid)

    def settle(self) -> None:
        self.connection.execute("analyze")

    def counters(self) -> Counters:
        """Exact once the contestant's sessions have ended or been idle for a second."""
        self.connection.execute("select pg_stat_force_next_flush()")
        self.connection.execute("select pg_stat_clear_snapshot()")
        row = self.connection.execute(
            "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, d.xact_commit,"
            " (select coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint from pg_stat_user_tables)"
            " from pg_stat_database d where d.datname = current_database()"
        ).fetchone()
        assert row is not None
        self._polls += 3
        return Counters(row[0], row[1] - self._polls, row[2])

    def close(self) -> None:
        self.connection.close()


class RedisStore:
    """The one Redis, emptied."""

    def __init__(self, server: Redis, described: dict[str, Any]) -> None:
        self.server = server
        self.url = server.url
        self.described = described

    def unfinished(self) -> int:
        return self.server.total(self.described["unfinished"])

    def completed(self) -> int:
        return self.server.total(self.described["completed"])

    def cpu_seconds(self) -> float:
        return self.server.cpu_seconds()

    def settle(self) -> None:
        """Redis has no statistics."""

    def close(self) -> None:
        """The connection is the server's."""


def until_done(store: Store, *workers: Running, seconds: float) -> float | None:
    """Poll until nothing is unfinished; when that was seen (time.monotonic()), or None where time ran out.

    Raises Failed when a worker ends meanwhile.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if store.unfinished() == 0:
            return asked
        if asked > deadline:
            return None
        for worker in workers:
            worker.check()
        time.sleep(POLL_SECONDS)


def until_completed(store: Store, above: int, *workers: Running, seconds: float = 60) -> tuple[float, int]:
    """Poll until more than `above` are completed; when that was counted, and how many there were.

    Raises Failed when a worker ends or nothing happens.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if (completed := store.completed()) > above:
            return asked, completed
        if asked > deadline:
            raise Failed(f"nothing was completed within {seconds:.0f} s")
        for worker in workers:
            worker.check()
        time.sleep(POLL_SECONDS)
