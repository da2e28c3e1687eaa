"""awa-pg 0.6: a Rust runtime (sqlx, tokio) that calls Python handlers through the event loop.

Fast settings, by its README, docs/configuration.md and the docstring of AsyncClient.start():
- bulk enqueue by enqueue_many_copy(), "for high-volume Python producers", straight into queue storage;
- max_workers 512 and claim_batch_size of the same size, for short asynchronous handlers. In single runs 64
  workers drained half as fast, and 256 to 1,000 lay within the machine's spread. The docstring asks to
  measure two or four `claimers`: neither was faster;
- uvloop, for less CPU in the worker; it drained no faster;
- LISTEN/NOTIFY is always on; the poll behind it stays at 200 ms, which latency does not feel.

migrate() leaves the old storage active until the first worker starts, so install() starts and stops one.
sqlx wants a host or none at all in a URL, so a user before an empty host moves into the query.

Finished jobs live in batches of a ring that is emptied within seconds: what stays is a counter of each queue
(queue_terminal_rollups). `completed` adds the counter and the batches; `unfinished` takes that from what the
lanes' sequences gave out, which holds as long as no handler fails. There is no row to write for past().
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit

import uvloop
from awa import AsyncClient, Job
from program import URL, Load, burn, program, stamp, until_signal

PINS = ["awa-pg==0.6.9", "uvloop==0.23.0"]
PYTHON = "3.13"
STORE = "postgresql"

QUEUE = "bench"
CHUNK = 5_000
WORKERS = 512


@dataclass
class Noop:
    n: int


@dataclass
class Stamp:
    sent: int


def _client(connections: int = 10) -> AsyncClient:
    parts = urlsplit(URL)
    if parts.hostname or not parts.username:
        return AsyncClient(URL, connections)
    query = urlencode({**dict(parse_qsl(parts.query)), "user": parts.username})
    return AsyncClient(f"{parts.scheme}://{parts.path}?{query}", connections)


def _register(client: AsyncClient) -> None:
    @client.task(Noop, queue=QUEUE)
    async def noop(job: Job) -> None:
        burn()

    @client.task(Stamp, queue=QUEUE)
    async def stamped(job: Job) -> None:
        stamp(job.args.sent)


async def _install() -> None:
    client = _client()
    await client.migrate()
    _register(client)
    await client.start([(QUEUE, 1)])
    await client.shutdown()
    await client.close()


async def _enqueue(count: int, *, due: datetime | None = None) -> float:
    client = _client()
    start = time.perf_counter()
    for first in range(0, count, CHUNK):
        jobs = [Noop(n) for n in range(first, min(first + CHUNK, count))]
        await client.enqueue_many_copy(jobs, queue=QUEUE, run_at=due)
    seconds = time.perf_counter() - start
    await client.close()
    return seconds


async def _produce(load: Load) -> dict[str, float]:
    client = _client(load.tasks)
    counted = await load.run(
        lambda kind, value: client.insert(Stamp(value) if kind == "stamp" else Noop(value), queue=QUEUE)
    )
    await client.close()
    return counted


async def _work(concurrency: int | None) -> None:
    client = _client()
    _register(client)
    workers = concurrency or WORKERS
    await client.start([{"name": QUEUE, "max_workers": workers, "claim_batch_size": min(workers, WORKERS)}])
    await until_signal()
    await client.shutdown(timeout_ms=30_000)


COMPLETED = """(
    select coalesce((select sum(pruned_completed_count) from awa.queue_terminal_rollups), 0)
         + coalesce((select sum(completed_count) from awa.receipt_completion_batches), 0)
         + (select count(*) from awa.done_entries where state = 'completed'))"""
ENQUEUED = """(
    select coalesce(sum(pg_sequence_last_value(format('awa.%I', seq_name)::regclass)), 0)
      from awa.queue_enqueue_heads)"""


def describe() -> dict[str, str]:
    return {"unfinished": f"select {ENQUEUED} - {COMPLETED}", "completed": f"select {COMPLETED}"}


def past(count: int) -> tuple[int, float]:
    return 0, 0.0


if __name__ == "__main__":
    program(
        install=lambda: uvloop.run(_install()),
        enqueue=lambda count: uvloop.run(_enqueue(count)),
        produce=lambda load: uvloop.run(_produce(load)),
        work=lambda concurrency: uvloop.run(_work(concurrency)),
        describe=describe,
        future=lambda count: uvloop.run(_enqueue(count, due=datetime.now(UTC) + timedelta(days=365))),
        past=past,
    )
