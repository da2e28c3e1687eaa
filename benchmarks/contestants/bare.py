"""The limit: bare claim and finish on jobd's own tables, one connection, one statement after the other.

The best forms known: prepared statements of 500 jobs, no outer state in the claim, claim_no as the only
fence in the finish, a lateral select that keeps its plan under any statistics. Nothing else happens: no
lease, no limits, no cancel, no handler. Bulk enqueue is COPY, single enqueue one insert on a pool.
`bare_fused` is the same with finish and claim in one statement; the faster of the two is the limit.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import random
import struct
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.contestants.program import URL, Load, on_signal, program

STORE = "postgresql"
BATCH = 500
IDLE_SECONDS = 0.01

CLAIM = """
update jobd.jobs j
   set state = 'running', claim_no = j.claim_no + 1, attempt = j.attempt + 1, worker_id = $1::uuid,
       claimed_at = clock_timestamp()
 where j.id = any (array(
     select picked.id from (select 'default' as queue, $2::int as room) q
      cross join lateral (
            select r.id from jobd.jobs r
             where r.queue = q.queue and r.state = 'ready' and r.crashes = 0
               and r.concurrency_key is null and r.use_case is null
             order by r.priority desc, r.deadline_at, r.id
             limit q.room for update skip locked) picked))
returning j.id, j.claim_no, j.kind, j.payload
"""
FINISH = """
delete from jobd.jobs j using unnest($1::uuid[], $2::bigint[]) as u (id, claim_no)
 where j.id = u.id and j.claim_no = u.claim_no
returning j.*
"""


async def install() -> None:
    from jobd.migrate import migrate

    await migrate(URL)


def _ids() -> Iterator[UUID]:
    """Ordered ids (UUIDv7 with a counter for its random half), the kindest to the indexes."""
    first = time.time_ns() // 1_000_000 << 80 | 7 << 76 | 2 << 62 | random.getrandbits(48)
    return (UUID(int=first + number) for number in itertools.count())


async def enqueue(count: int) -> float:
    """COPY, in binary, of the columns that a ready job needs."""
    import asyncpg

    connection = await asyncpg.connect(URL)
    columns = ["id", "queue", "kind", "state", "priority", "run_at", "deadline_at", "deadline_policy"]
    columns += ["payload", "created_at"]
    rows = _binary(count)
    start = time.perf_counter()
    await connection.copy_to_table(
        "jobs", schema_name="jobd", columns=columns, source=io.BytesIO(rows), format="binary", timeout=None
    )
    seconds = time.perf_counter() - start
    await connection.close()
    return seconds


def _binary(count: int) -> bytes:
    """The rows as COPY reads them, made before the clock runs."""
    now = int((datetime.now(UTC) - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
    instant = struct.pack("!iq", 8, now)

    def text(value: bytes) -> bytes:
        return struct.pack("!i", len(value)) + value

    middle = text(b"default") + text(b"noop") + text(b"ready") + struct.pack("!ii", 4, 0)
    middle += instant + instant + text(b"run")
    rows = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
    for number, id in zip(range(count), _ids(), strict=False):
        payload = b'\x01{"n": %d}' % number  # jsonb, version 1
        rows.append(b"\0\x0a" + text(id.bytes) + middle + text(payload) + instant)
    return b"".join([*rows, b"\xff\xff"])


async def produce(load: Load) -> dict[str, float]:
    """One insert and one commit a job, prepared, on `tasks` connections that nobody resets."""
    import asyncpg

    sql = (
        "insert into jobd.jobs (id, queue, kind, state, priority, run_at, deadline_at, deadline_policy,"
        " payload, created_at)"
        " values ($1, 'default', $2, 'ready', 0, now(), now(), 'run', $3, now())"
    )
    ids = _ids()
    connections = [await asyncpg.connect(URL) for _ in range(load.tasks)]
    free = [await connection.prepare(sql) for connection in connections]

    async def insert(kind: str, n: int) -> None:
        statement = free.pop()
        await statement.fetch(next(ids), kind, f'{{"n": {n}}}')
        free.append(statement)

    produced = await load.run(insert)
    for connection in connections:
        await connection.close()
    return produced


async def work(concurrency: int | None) -> None:
    """Claim and finish until a signal; the handler is nothing at all."""
    import asyncpg

    fused = os.environ.get("BENCH_BARE") == "fused"
    stopped = asyncio.Event()
    on_signal(stopped.set, loop=asyncio.get_running_loop())
    connection = await asyncpg.connect(URL)
    kept = await _finish_into_history(connection)
    worker = uuid4()
    claim = await connection.prepare(CLAIM)
    finish = await connection.prepare(f"with gone as ({FINISH}), kept as ({kept}) select count(*) from kept")
    both = await connection.prepare(
        f"with gone as ({FINISH}), kept as ({kept}), claimed as ({_numbered_after(CLAIM, 2)})"
        " select * from claimed"
    )
    runs: list[Any] = []
    while not stopped.is_set():
        ids, claims = [run["id"] for run in runs], [run["claim_no"] for run in runs]
        if fused:
            runs = await both.fetch(ids, claims, worker, BATCH)
        else:
            if runs:
                await finish.fetchval(ids, claims)
            runs = await claim.fetch(worker, BATCH)
        if not runs:
            await asyncio.sleep(IDLE_SECONDS)
    if runs:
        await finish.fetchval([run["id"] for run in runs], [run["claim_no"] for run in runs])
    await connection.close()


def _numbered_after(sql: str, count: int) -> str:
    """The statement with its parameters counted from count + 1."""
    return sql.replace("$2", f"${count + 2}").replace("$1", f"${count + 1}")


async def _finish_into_history(connection: Any) -> str:
    """The insert of what `gone` deleted, with every column the history has."""
    rows = await connection.fetch(
        "select h.attname::text as name, j.attname is not null as live from pg_attribute h"
        " left join pg_attribute j on j.attrelid = 'jobd.jobs'::regclass and j.attname = h.attname"
        "                         and j.attnum > 0 and not j.attisdropped"
        " where h.attrelid = 'jobd.job_history'::regclass and h.attnum > 0 and not h.attisdropped"
        " order by h.attnum"
    )
    values = {
        "state": "'succeeded'",
        "claim_no": "g.claim_no + 1",
        "finished_at": "clock_timestamp()",
    }
    names = [row["name"] for row in rows if row["live"] or row["name"] in values]
    return (
        f"insert into jobd.job_history ({', '.join(names)})"
        f" select {', '.join(values.get(name, f'g.{name}') for name in names)} from gone g returning 1"
    )


def describe() -> dict[str, str]:
    return {
        # Each by its own index, the waiting ones from their end: what is done already is never read.
        "unfinished": "select case"
        " when exists (select from (select from jobd.jobs"
        "     where queue = 'default' and state = 'ready' and crashes = 0"
        "       and concurrency_key is null and use_case is null"
        "     order by priority, deadline_at desc, id desc limit 1) t) then 1"
        " when exists (select from jobd.jobs where state = 'running' and worker_id is not null) then 1"
        " else 0 end",
        "completed": "select count(*) from jobd.job_history"
        " where state = 'succeeded' and finished_at > now() - interval '12 hours'",
        "times": "select extract(epoch from finished_at)::float8 from jobd.job_history"
        " where finished_at > now() - interval '12 hours' order by 1",
    }


if __name__ == "__main__":
    program(install=install, enqueue=enqueue, produce=produce, work=work, describe=describe)
