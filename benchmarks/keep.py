"""What `[queues.NAME] keep` saves: WAL, disk and time of 500 jobs from enqueue to their end, over and over.

    uv run python -m benchmarks.keep [rounds]

The statements alone, on one connection, one after the other, as a drain executes them, against an embedded
PostgreSQL with default durability. One job in fifty dies. Rounds of the three are interleaved; the medians
count.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from jobd.embedded import EmbeddedPostgres
from jobd.ids import uuid7
from jobd.job import FinishedRun, JobState, NewJob
from jobd.migrate import migrate
from jobd.sql import Block
from jobd.store import Store

BATCH = 500
DYING = 10
PAYLOAD = '{"user": 48213, "template": "welcome", "locale": "de"}'
RESULT = '{"sent": true, "message_id": "0192f0c1-22e5"}'
ERROR = (
    '{"type": "ValueError", "message": "no", "attempt": 1, "at": "2026-01-01T00:00:00Z", "traceback": "..."}'
)
KEEPS = ("all", "errors", "nothing")


class Door:
    """One plain connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def fetch(self, block: Block, *args: Any) -> Any:
        return await self.connection.fetch(block.text, *args)


async def measure(url: str, rounds: int) -> None:
    await migrate(url)
    connection = await asyncpg.connect(url)
    store, worker = Store(Door(connection)), uuid4()
    await connection.execute(
        "insert into jobd.workers (id, host, pid, version, queues, kinds, roles, concurrency, started_at,"
        " beat_at, confirmed_since, lease_until) values ($1, 'h', 1, '0', '{}', '{}', '{}', 1, now(), now(),"
        " now(), now() + interval '1 day')",
        worker,
    )
    for keep in KEEPS:
        await connection.execute("insert into jobd.queues (name, keep) values ($1, $1)", keep)
    seconds: dict[str, list[float]] = {keep: [] for keep in KEEPS}
    ending: dict[str, list[float]] = {keep: [] for keep in KEEPS}
    wal: dict[str, list[float]] = {keep: [] for keep in KEEPS}
    for number in range(rounds):
        await connection.execute("vacuum jobd.jobs")
        for keep in KEEPS if number % 2 else KEEPS[::-1]:
            before, start = await _wal(connection), time.perf_counter()
            end = await _cycle(store, worker, keep)
            seconds[keep].append(time.perf_counter() - start)
            ending[keep].append(end)
            wal[keep].append(await _wal(connection) - before)
    print("keep      us/job   end us/job   WAL bytes/job   disk bytes/job")
    for keep in KEEPS:
        disk = await _disk(connection, keep) / (rounds * BATCH)
        print(
            f"{keep:<8}{_median(seconds[keep]) * 1e6:>8.1f}{_median(ending[keep]) * 1e6:>13.1f}"
            f"{_median(wal[keep]):>16,.0f}{disk:>17,.0f}"
        )
    await connection.close()


async def _cycle(store: Store, worker: Any, keep: str) -> float:
    """Enqueue, claim and end a batch; return the seconds that its end took."""
    ids = [uuid7() for _ in range(BATCH)]
    job = NewJob(id=ids[0], kind="noop", payload=PAYLOAD, queue=keep)
    await store.enqueue_many(job, ids=ids, payloads=[PAYLOAD] * BATCH)
    claims = await store.claim(worker, rooms={keep: BATCH})
    assert len(claims) == BATCH
    good = [FinishedRun(job.id, job.claim_no, JobState.SUCCEEDED, result=RESULT) for job in claims[DYING:]]
    bad = [
        FinishedRun(job.id, job.claim_no, JobState.DEAD, reason="no", error=ERROR) for job in claims[:DYING]
    ]
    start = time.perf_counter()
    await (store.succeed if keep == "all" else store.succeed_tersely)(good)
    await store.finish(bad)
    return time.perf_counter() - start


async def _disk(connection: Any, queue: str) -> float:
    """The bytes of this queue's finished jobs, indexes included, by its share of rows in each table."""
    total = 0.0
    for table in ("job_history", "tombstones"):
        mine, rows = await connection.fetchrow(
            f"select count(*) filter (where queue = $1), count(*) from jobd.{table}", queue
        )
        size = await connection.fetchval(
            "select sum(pg_total_relation_size(relid)) from pg_partition_tree('jobd.' || $1::text)"
            " where isleaf",
            table,
        )
        total += float(size) * mine / max(rows, 1)
    return total


def _median(values: list[float]) -> float:
    return statistics.median(values) / BATCH


async def _wal(connection: Any) -> float:
    return float(await connection.fetchval("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory(prefix="jobd-keep-") as folder,
        EmbeddedPostgres(Path(folder), settings={"autovacuum": "off"}) as server,
    ):
        asyncio.run(measure(server.dsn(), int(sys.argv[1]) if sys.argv[1:] else 60))
