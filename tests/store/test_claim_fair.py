"""claim_governed: whose turn it is in a fair queue."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from jobd.door import Link
from jobd.store import Store
from tests.factories import make_job, make_jobs, make_worker, query
from tests.store.governed import FILL, claimed, finish, governed, limit


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door)


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


async def test_one_slot_goes_round_by_weight(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", fair=True)
    await limit(door, "tenants", "heavy", weight=3)
    for tenant in ("light", "heavy"):
        await make_jobs(door, 1000, tenant_id=tenant)
    seen: Counter[str | None] = Counter()
    for _ in range(1000):
        claims = await governed(store, worker, 1)
        seen.update(claim.tenant_id for claim in claims)
        await finish(store, claims)
    # A quarter, and four standard deviations of such a lottery.
    assert 250 - 55 <= seen["light"] <= 250 + 55


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


@pytest.mark.parametrize("fair", [True, False])
async def test_a_tenants_jobs_without_a_key_run_behind_its_long_backlog_of_one(
    door: Link, store: Store, worker: UUID, fair: bool
):
    await limit(door, "queues", "default", fair=fair)
    await limit(door, "tenants", "full", max_running=1)
    await query(door, FILL.format(column="tenant_id", value="'full'"), 200)
    await make_jobs(door, 300, tenant_id="t", concurrency_key="one")
    ids = await make_jobs(door, 8, tenant_id="t")
    assert {*ids} < {*await claimed(store, worker)}


async def test_a_tenants_job_that_crashed_runs_behind_its_long_backlog_of_a_key(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "queues", "default", fair=True)
    first = await make_job(door, tenant_id="t", concurrency_key="one")
    assert await claimed(store, worker) == [first]
    await make_jobs(door, 300, tenant_id="t", concurrency_key="one")
    id = await make_job(door, tenant_id="t", crashes=1)
    assert await claimed(store, worker) == [id]


async def test_what_others_leave_of_the_room_goes_to_who_has_more(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", fair=True)
    await query(door, FILL.format(column="tenant_id", value="'flood'"), 700)
    await make_jobs(door, 1, tenant_id="t")
    assert len(await claimed(store, worker, 500)) == 500


@pytest.mark.parametrize("tenant", ["t0001", "t1500"])
async def test_of_each_of_many_tenants_others_run_behind_the_job_that_waits_for_a_key(
    door: Link, store: Store, worker: UUID, tenant: str
):
    await query(door, "insert into jobd.queues (name, fair) values ('default', true)")
    await make_job(door, concurrency_key="full")
    assert len(await governed(store, worker)) == 1
    await query(door, FILL.format(column="tenant_id", value="'t' || lpad(n::text, 4, '0')"), 1500)
    await query(door, "update jobd.jobs set concurrency_key = 'full' where tenant_id is not null")
    await make_jobs(door, 3, tenant_id=tenant, concurrency_key="full")
    id = await make_job(door, tenant_id=tenant)
    assert id in [*await claimed(store, worker, 1), *await claimed(store, worker, 1)]
