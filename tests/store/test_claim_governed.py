"""claim_governed: ready -> running under limits that count over all daemons."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Database, Link
from jobd.job import Claimed, FinishedRun, JobState
from jobd.store import Store
from tests.factories import SECOND, claim_all, make_job, make_jobs, make_worker, query, scalar


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door)


async def governed(store: Store, worker: UUID, room: int = 10, **options: Any) -> list[Claimed]:
    given: dict[str, Any] = {"rooms": {"default": room}, "kind_rooms": {}, "suspects": 1, "suspect_from": 2}
    return await store.claim_governed(worker, **given | options)


async def claimed(store: Store, worker: UUID, room: int = 10, **options: Any) -> list[UUID]:
    return [claim.id for claim in await governed(store, worker, room, **options)]


async def limit(door: Link, table: str, name: str, **columns: Any) -> None:
    key = "id" if table == "tenants" else "name"
    await query(
        door,
        f"insert into jobd.{table} ({key}, {', '.join(columns)})"
        f" values ($1, {', '.join(f'${n}' for n in range(2, len(columns) + 2))})",
        name,
        *columns.values(),
    )


async def finish(store: Store, claims: list[Claimed], state: str = "succeeded") -> None:
    await store.succeed([FinishedRun(id=c.id, claim_no=c.claim_no, state=JobState(state)) for c in claims])


async def test_a_plain_claim_passes_over_all_that_is_under_a_limit(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "few", max_running=3)
    plain = await make_job(door)
    await make_job(door, queue="few")
    await make_job(door, concurrency_key="user:7")
    await make_job(door, use_case="labels")
    await make_job(door, concurrency_key="user:8", crashes=1)
    await make_job(door, queue="few", crashes=1)
    claims = await claim_all(store, worker, rooms={"default": 10, "few": 10})
    assert [claim.id for claim in claims] == [plain]
    assert await store.claim_victims(worker, rooms={"default": 9, "few": 9}, suspects=1, suspect_from=2) == []


async def test_while_a_tenant_is_limited_no_claim_is_plain(door: Link, store: Store, worker: UUID):
    await limit(door, "tenants", "t", max_running=3)
    id = await make_job(door)
    assert await claim_all(store, worker, rooms={"default": 10}) == []
    assert await claimed(store, worker) == [id]


async def test_a_claim_takes_higher_priority_first_and_the_earlier_deadline_within_it(
    door: Link, store: Store, worker: UUID
):
    now = datetime.now(UTC)
    last = await make_job(door, priority=-1, run_at=now - 60 * SECOND)
    third = await make_job(door, run_at=now, concurrency_key="a")
    second = await make_job(door, run_at=now - SECOND, use_case="b")
    first = await make_job(door, priority=7, run_at=now, concurrency_key="c")
    assert await claimed(store, worker, 3) == [first, second, third]
    assert await claimed(store, worker, 3) == [last]


async def test_a_worker_without_a_lease_gets_nothing(door: Link, store: Store):
    await make_job(door)
    assert await claimed(store, uuid4()) == []
    assert await claimed(store, await make_worker(door, lease=-SECOND)) == []


async def test_of_a_queue_no_more_run_than_may(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", max_running=3)
    await make_jobs(door, 10)
    other = await make_worker(door)
    assert len(await governed(store, worker, 2)) == 2
    claims = await governed(store, other, 5)
    assert len(claims) == 1
    assert await governed(store, worker) == []
    await finish(store, claims)
    assert len(await governed(store, worker)) == 1


async def test_of_a_key_no_more_run_than_may_and_one_where_nothing_is_said(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "kinds", "wide", key_limit=2)
    for _ in range(4):
        await make_job(door, concurrency_key="a", kind="wide")
        await make_job(door, concurrency_key="b", kind="plain")
    claims = await governed(store, worker)
    keys = Counter(await keys_of(door, claims))
    assert keys == {"a": 2, "b": 1}
    assert await governed(store, worker) == []
    await finish(store, claims)
    assert Counter(await keys_of(door, await governed(store, worker))) == {"a": 2, "b": 1}


async def keys_of(door: Link, claims: list[Claimed]) -> list[str]:
    ids = [claim.id for claim in claims]
    rows = await query(door, "select concurrency_key as key from jobd.jobs where id = any ($1)", ids)
    return [row["key"] for row in rows]


async def test_in_order_one_after_the_other_and_who_is_between_two_attempts_holds_the_key(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "kinds", "noop", key_limit=5, ordered=True)
    first = await make_job(door, concurrency_key="a", priority=0)
    second = await make_job(door, concurrency_key="a", priority=9)
    third = await make_job(door, concurrency_key="a")
    (claim,) = await governed(store, worker)
    assert claim.id == first
    assert await governed(store, worker) == []
    await store.finish(
        [
            FinishedRun(
                id=first,
                claim_no=claim.claim_no,
                state=JobState.SCHEDULED,
                delay=timedelta(hours=1),
                error="{}",
            )
        ]
    )
    assert await governed(store, worker) == []
    await store.cancel(first, reason="enough")
    (claim,) = await governed(store, worker)
    assert claim.id == second
    await finish(store, [claim])
    assert await claimed(store, worker) == [third]


async def test_in_order_the_first_is_found_behind_many_of_a_higher_priority(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "kinds", "noop", ordered=True)
    first = await make_job(door, concurrency_key="a")
    await query(door, FILL.format(column="concurrency_key", value="'a'"), 3000)
    await query(door, "update jobd.jobs set priority = 1 where id <> $1", first)
    assert await claimed(store, worker) == [first]


async def test_a_job_that_was_only_ever_delayed_holds_no_key(door: Link, store: Store, worker: UUID):
    await limit(door, "kinds", "noop", key_limit=1, ordered=True)
    await make_job(door, concurrency_key="a", state="scheduled")
    later = await make_job(door, concurrency_key="a")
    assert await claimed(store, worker) == [later]


async def test_of_a_use_case_ten_run_unless_said(door: Link, store: Store, worker: UUID):
    await limit(door, "use_cases", "few", max_running=2)
    await make_jobs(door, 15, use_case="labels")
    await make_jobs(door, 5, use_case="few")
    claims = await governed(store, worker, 30)
    assert Counter(claim.use_case for claim in claims) == {"labels": 10, "few": 2}


async def test_of_a_tenant_no_more_run_than_may_in_all_queues_together(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "tenants", "t", max_running=3)
    for queue in ("default", "mail"):
        await make_jobs(door, 5, queue=queue, tenant_id="t")
    await make_jobs(door, 2, tenant_id="free")
    claims = await governed(store, worker, rooms={"default": 10, "mail": 10})
    assert Counter(claim.tenant_id for claim in claims) == {"t": 3, "free": 2}


async def test_of_a_kind_no_more_than_this_process_has_room_for(door: Link, store: Store, worker: UUID):
    await make_jobs(door, 4, kind="a")
    await make_jobs(door, 4, kind="b")
    await make_jobs(door, 4, kind="c")
    claims = await governed(store, worker, 12, kind_rooms={"a": 2, "b": 0})
    assert Counter(claim.kind for claim in claims) == {"a": 2, "c": 4}


async def test_of_suspects_as_many_as_may_run(door: Link, store: Store, worker: UUID):
    await make_jobs(door, 3, crashes=2)
    await make_jobs(door, 2, crashes=1, concurrency_key="a")
    await make_jobs(door, 2)
    claims = await governed(store, worker)
    assert Counter(claim.crashes for claim in claims) == {2: 1, 1: 1, 0: 2}
    assert await governed(store, worker, suspects=0) == []


async def test_a_paused_queue_gives_nothing(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", max_running=3, paused_at=datetime.now(UTC))
    await make_job(door)
    assert await governed(store, worker) == []


async def test_a_job_of_policy_drop_is_not_started_after_its_deadline(door: Link, store: Store, worker: UUID):
    now = datetime.now(UTC)
    await make_job(
        door, run_at=now - 60 * SECOND, delay_tolerance=SECOND, deadline_policy="drop", concurrency_key="a"
    )
    assert await governed(store, worker) == []


@pytest.mark.parametrize("scope", ["queue", "tenant", "key"])
async def test_a_rate_lets_its_burst_through_and_then_one_after_the_other(
    door: Link, store: Store, worker: UUID, scope: str
):
    rate = {"rate_count": 10, "rate_period": 60 * SECOND, "rate_burst": 3}
    match scope:
        case "queue":
            await limit(door, "queues", "default", **rate)
        case "tenant":
            await limit(door, "tenants", "t", **rate)
        case _:
            await limit(door, "kinds", "noop", key_limit=100, **rate)
    await make_jobs(door, 20, tenant_id="t", concurrency_key="k" if scope == "key" else None)
    moment = datetime.now(UTC)
    await query(door, "update jobd.workers set lease_until = now() + interval '1 day'")

    async def at(seconds: float) -> int:
        return len(await governed(store, worker, 20, now=moment + seconds * SECOND))

    assert [await at(0), await at(0), await at(5.9), await at(6.1), await at(6.2)] == [3, 0, 0, 1, 0]
    assert [await at(18.1), await at(18.1), await at(3600), await at(3600)] == [2, 0, 3, 0]


async def test_a_fair_queue_serves_each_tenant_alike(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", fair=True)
    await make_jobs(door, 100, tenant_id="flood")
    for n in range(9):
        await make_jobs(door, 10, tenant_id=f"t{n}")
    claims = await governed(store, worker, 20)
    assert set(Counter(claim.tenant_id for claim in claims).values()) == {2}


async def test_a_fair_queue_serves_by_weight(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", fair=True)
    await limit(door, "tenants", "heavy", weight=3)
    for tenant in ("heavy", "a", "b"):
        await make_jobs(door, 50, tenant_id=tenant)
    claims = await governed(store, worker, 25)
    assert Counter(claim.tenant_id for claim in claims) == {"heavy": 15, "a": 5, "b": 5}


async def test_a_few_slots_go_to_all_tenants_in_the_long_run(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", fair=True)
    for n in range(10):
        await make_jobs(door, 30, tenant_id=f"t{n}")
    served: Counter[str | None] = Counter()
    for _ in range(60):
        claims = await governed(store, worker, 2)
        served.update(claim.tenant_id for claim in claims)
        await finish(store, claims)
    square_of_sum, sum_of_squares = sum(served.values()) ** 2, sum(n * n for n in served.values())
    assert square_of_sum / (10 * sum_of_squares) > 0.8


async def test_in_a_fair_queue_jobs_without_a_tenant_are_one_more(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", fair=True)
    await make_jobs(door, 5, tenant_id="t")
    await make_jobs(door, 5)
    await make_jobs(door, 2, concurrency_key="k")
    claims = await governed(store, worker, 20)
    assert Counter(claim.tenant_id for claim in claims) == {"t": 5, None: 6}


async def test_beside_a_flood_another_tenant_comes_with_the_next_claim(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "queues", "default", fair=True)
    await query(door, FILL.format(column="tenant_id", value="'flood'"), 3000)
    for _ in range(5):
        late = await make_job(door, tenant_id="other")
        claims = await governed(store, worker, 20)
        assert len(claims) == 20
        assert late in {claim.id for claim in claims}
        await finish(store, claims)


async def test_tenants_with_unequal_backlogs_get_equal_shares_while_each_has_one(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "queues", "default", fair=True)
    # Idle ones are no part of it.
    await query(
        door, "insert into jobd.tenants (id, weight) select 'idle' || n, 5 from generate_series(1, 500) n"
    )
    for rank in range(1, 21):
        await query(door, FILL.format(column="tenant_id", value=f"'t{rank}'"), 1200 // rank)
    served: Counter[str | None] = Counter()
    while max(served.values(), default=0) < 40:
        claims = await governed(store, worker, 30)
        served.update(claim.tenant_id for claim in claims)
        await finish(store, claims)
    assert sum(served.values()) ** 2 / (20 * sum(n * n for n in served.values())) > 0.95


async def test_in_a_fair_queue_a_tenants_other_keys_run_behind_a_long_backlog_of_one(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "queues", "default", fair=True)
    await query(
        door,
        FILL.format(column="tenant_id, concurrency_key", value="'t', 'full'"),
        3000,
    )
    other = await make_job(door, tenant_id="t", concurrency_key="other")
    claims = await governed(store, worker, 20)
    assert len(claims) == 2
    assert other in {claim.id for claim in claims}


async def test_behind_a_long_backlog_of_a_kind_that_has_no_room_here_others_run(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "queues", "default", max_running=50)
    await query(door, FILL.format(column="tenant_id", value="'t'"), 3000)
    other = await make_job(door, kind="other")
    assert await claimed(store, worker, 20, kind_rooms={"noop": 0}) == [other]


FILL = (
    "insert into jobd.jobs (id, queue, kind, state, priority, run_at, deadline_at, deadline_policy, payload,"
    " created_at, {column}) select jobd.uuid7(), 'default', 'noop', 'ready', 0, now() - interval '1 hour',"
    " now() - interval '1 hour', 'run', '{{}}', now(), {value} from generate_series(1, $1) n"
)


@pytest.mark.parametrize("column", ["concurrency_key", "use_case", "tenant_id"])
async def test_behind_a_long_backlog_others_run(door: Link, store: Store, worker: UUID, column: str):
    await limit(door, "tenants", "full", max_running=2)
    await limit(door, "use_cases", "full", max_running=1)
    await query(door, FILL.format(column=column, value="'full'"), 3000)
    for n in range(3):
        await make_job(door, **{column: f"other{n}"})
    claims = await governed(store, worker, 20)
    keys = await query(
        door, f"select {column} as key from jobd.jobs where id = any ($1)", [claim.id for claim in claims]
    )
    assert {row["key"] for row in keys} == {"full", "other0", "other1", "other2"}


async def test_all_keys_of_a_long_backlog_have_their_turn(door: Link, store: Store, worker: UUID):
    await query(door, FILL.format(column="concurrency_key", value="'full'"), 500)
    await query(door, FILL.format(column="concurrency_key", value="'k' || lpad(n::text, 4, '0')"), 2500)
    await query(
        door,
        "update jobd.jobs set deadline_at = deadline_at - interval '1 hour' where concurrency_key = 'full'",
    )
    seen = 0
    for _ in range(80):
        claims = await governed(store, worker, 50)
        seen += len(claims)
        await finish(store, claims)
        # More of the same, in front of all others.
        await query(door, "update jobd.jobs set priority = 1 where concurrency_key = 'full'")
    assert await scalar(door, "select count(*) from jobd.jobs where concurrency_key <> 'full'") == 0
    assert seen > 2500


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
