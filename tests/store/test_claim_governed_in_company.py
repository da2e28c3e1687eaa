"""claim_governed beside others: rival claims, jobs that change meanwhile, rows that somebody holds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from jobd import sql
from jobd.door import Database, Link
from jobd.store import Store
from tests.factories import SECOND, make_job, make_jobs, make_worker, query, scalar
from tests.signals import eventually
from tests.store.conftest import Held
from tests.store.governed import FILL, claimed, finish, governed, limit


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door)


@pytest.fixture
async def rivals(database_url: str) -> AsyncIterator[list[Store]]:
    links = [Link(Database(database_url)) for _ in range(4)]
    yield [Store(link) for link in links]
    for link in links:
        await link.close()


async def test_four_that_compete_never_exceed_a_limit_at_any_commit(door: Link, rivals: list[Store]):
    await limit(door, "queues", "default", max_running=7)
    await limit(door, "kinds", "noop", key_limit=2)
    await limit(door, "tenants", "t0", max_running=1)
    rng = random.Random(5)
    for n in range(300):
        await make_job(door, tenant_id=f"t{n % 3}", concurrency_key=f"k{n % 5}" if n % 2 else None)
    worker_ids = [await make_worker(door, lease=3600 * SECOND) for _ in rivals]
    worst: Counter[str] = Counter()

    async def work(store: Store, worker: UUID) -> None:
        while claims := await governed(store, worker, rng.randint(1, 6)):
            await asyncio.sleep(0)
            await finish(store, claims)

    async def watch() -> None:
        # Each look is one snapshot: what was running at one commit.
        text = (
            "select concurrency_key as key, tenant_id, count(*) as n from jobd.jobs where state = 'running'"
            " group by grouping sets ((), (concurrency_key), (tenant_id))"
        )
        while True:
            for row in await query(door, text):
                name = row["key"] or row["tenant_id"] or "all"
                worst[name] = max(worst[name], row["n"])
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    try:
        while await scalar(door, "select count(*) from jobd.jobs"):
            await asyncio.gather(*map(work, rivals, worker_ids))
    finally:
        watching.cancel()
    assert worst["all"] <= 7
    assert worst["t0"] <= 1
    assert max(worst[f"k{n}"] for n in range(5)) <= 2


@pytest.mark.parametrize("change", ["queue = 'closed'", "concurrency_key = 'busy'"])
async def test_a_job_that_changed_since_it_was_counted_is_left(
    door: Link, store: Store, worker: UUID, held: Held, crowd: list[Link], change: str
):
    await limit(door, "queues", "closed", max_running=0)
    await make_job(door, concurrency_key="busy")
    (busy,) = await governed(store, worker, rooms={"default": 1})
    id = await make_job(door, concurrency_key="free")
    # The claim counts what runs, and then waits to note what it spends.
    await query(held, "lock table jobd.rates in share mode")
    claim = await held.until_it_blocks(governed(store, worker, rooms={"default": 5, "closed": 5}))
    await query(crowd[0], f"update jobd.jobs set {change} where id = $1", id)
    await held.commit()
    assert await claim == []
    await finish(store, [busy])
    assert len(await governed(store, worker, rooms={"default": 5, "closed": 5})) == ("key" in change)


@pytest.mark.parametrize(
    "columns",
    [{}, {"crashes": 1}, {"concurrency_key": "k", "kind": "two"}],
    ids=["a queue's limit", "a queue's limit, and they crashed", "a key's limit"],
)
@pytest.mark.parametrize("room, many", [(1, 2), (1, 9), (10, 2), (10, 15), (10, 500)])
async def test_what_somebody_holds_keeps_no_room(
    door: Link, store: Store, worker: UUID, held: Held, columns: dict[str, Any], room: int, many: int
):
    await limit(door, "queues", "default", max_running=2)
    await limit(door, "kinds", "two", key_limit=2)
    ids = await make_jobs(door, many + 5, **columns)
    await query(held, "select from jobd.jobs where id = any ($1) for update", ids[:many])
    assert await claimed(store, worker, room) == ids[many : many + min(2, room)]
    await held.rollback()
    assert len(await claimed(store, worker)) == 2 - min(2, room)


@pytest.mark.parametrize("state", ["ready", "scheduled"])
async def test_in_order_nobody_overtakes_a_job_that_is_due_and_that_somebody_holds(
    door: Link, store: Store, worker: UUID, held: Held, state: str
):
    await limit(door, "kinds", "noop", ordered=True)
    due = datetime.now(UTC) - SECOND
    ids = [await make_job(door, concurrency_key="k", state=state, run_at=due)]
    ids += await make_jobs(door, 2, concurrency_key="k")
    await query(held, "select from jobd.jobs where id = $1 for update", ids[0])
    await store.stage(batch=10)
    assert await claimed(store, worker) == []
    await held.rollback()
    await store.stage(batch=10)
    assert await claimed(store, worker) == ids[:1]


async def test_a_process_that_does_not_read_what_it_claimed_keeps_no_other_from_claiming(
    door: Link, store: Store, worker: UUID, direct_database_url: str
):
    # More than all buffers on the way hold.
    await query(
        door,
        "select jobd.enqueue('noop', jsonb_build_object('text', repeat('x', 200000)),"
        " concurrency_key => n::text)"
        " from generate_series(1, 150) n",
    )
    deaf = psycopg.connect(direct_database_url)
    try:
        sleepy = await make_worker(door)
        text = sql.blocks("lifecycle")["claim_governed"].text
        arguments = [str(sleepy), "{default}", "{100}", "{}", "{}", "1", "2", None]
        deaf.pgconn.send_query_params(text.encode(), [None if a is None else a.encode() for a in arguments])
        running = "select count(*) from jobd.jobs where worker_id = $1"
        await eventually(lambda: scalar(door, running, sleepy), until=lambda count: count == 100)
    finally:
        deaf.close()


async def test_what_comes_later_of_a_key_in_order_is_read_once_a_claim(
    door: Link, store: Store, worker: UUID, held: Held
):
    await limit(door, "kinds", "noop", ordered=True)
    fill = FILL.format(column="concurrency_key", value="'k'")
    await query(door, fill, 1000)
    await query(door, "update jobd.jobs set state = 'scheduled', run_at = now() + interval '1 day'")
    await query(door, fill, 300)
    await query(held, "select")
    # However long until the next statement.
    endless = "set_config('idle_in_transaction_session_timeout', '0', true)"
    claim = f"select {endless} from jobd.claim_governed($1, '{{default}}', '{{10}}', '{{}}', '{{}}', 1, 2)"
    assert len(await query(held, claim, worker)) == 1
    reads = "select idx_tup_fetch from pg_stat_xact_user_tables where relid = 'jobd.jobs'::regclass"
    assert await scalar(held, reads) < 10_000
    await held.rollback()


async def test_who_does_not_commit_what_it_claimed_keeps_the_others_for_a_second(
    door: Link, store: Store, worker: UUID, held: Held
):
    ids = await make_jobs(door, 2, concurrency_key="k")
    asked: dict[str, Any] = {"rooms": {"default": 10}, "kind_rooms": {}, "suspects": 1, "suspect_from": 2}
    assert await Store(held).claim_governed(worker, **asked) == ids[:1]
    async with asyncio.timeout(5):
        assert await claimed(store, worker) == ids[:1]
