"""claim_governed: ready -> running under limits that count over all daemons."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.job import Claimed, FinishedRun, JobState
from jobd.store import Store
from tests.factories import SECOND, claim_all, make_job, make_jobs, make_worker, query, scalar
from tests.store.governed import FILL, claimed, finish, governed, limit

DAY = timedelta(days=1)


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door)


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


async def test_behind_a_long_backlog_of_a_kind_that_has_no_room_here_others_run(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "queues", "default", max_running=50)
    await query(door, FILL.format(column="tenant_id", value="'t'"), 3000)
    other = await make_job(door, kind="other")
    assert await claimed(store, worker, 20, kind_rooms={"noop": 0}) == [other]


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


async def test_all_keys_of_a_long_backlog_have_their_turn(door: Link, store: Store):
    worker = await make_worker(door, lease=3600 * SECOND)
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


async def test_other_keys_run_behind_one_keys_backlog_though_jobs_without_a_key_fill_the_room(
    door: Link, store: Store, worker: UUID
):
    await query(door, FILL.format(column="concurrency_key", value="'full'"), 3000)
    others = [
        await make_job(door, concurrency_key=f"k{n}", run_at=datetime.now(UTC) - 1800 * SECOND)
        for n in range(3)
    ]
    await make_jobs(door, 100)
    assert {*others} < {*await claimed(store, worker)}


@pytest.mark.parametrize("fair", [False, True])
async def test_jobs_without_a_tenant_run_behind_the_backlog_of_one_that_is_full(
    door: Link, store: Store, worker: UUID, fair: bool
):
    await limit(door, "queues", "default", fair=fair)
    await limit(door, "tenants", "full", max_running=0)
    await query(door, FILL.format(column="tenant_id", value="'full'"), 3000)
    id = await make_job(door)
    assert await claimed(store, worker) == [id]


async def test_jobs_that_crashed_run_behind_many_for_which_there_is_no_room(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "tenants", "full", max_running=0)
    for _ in range(15):
        await make_job(door, crashes=1, tenant_id="full")
    id = await make_job(door, crashes=1, tenant_id="free")
    assert await claimed(store, worker) == [id]


RATES = {
    "faster": ({"rate_count": 100, "rate_period": DAY}, {"rate_count": 100, "rate_period": SECOND}),
    "very much faster": (
        {"rate_count": 5, "rate_period": 7 * DAY},
        {"rate_count": 10_000, "rate_period": SECOND},
    ),
}


@pytest.mark.parametrize("before, after", RATES.values(), ids=RATES.keys())
async def test_what_another_rate_has_spent_is_no_debt_of_this_one(
    door: Link, store: Store, worker: UUID, before: dict[str, Any], after: dict[str, Any]
):
    await limit(door, "queues", "default", **before)
    await make_jobs(door, 150)
    assert len(await governed(store, worker, 150)) == before["rate_count"]
    await query(
        door,
        "update jobd.queues set rate_count = $1, rate_period = $2 where name = 'default'",
        *after.values(),
    )
    assert len(await governed(store, worker, 20)) == 20


async def test_a_clock_that_was_ahead_leaves_no_debt(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", rate_count=10, rate_period=SECOND)
    await make_jobs(door, 40)
    now = datetime.now(UTC)
    await query(door, "update jobd.workers set lease_until = lease_until + interval '2 days'")
    assert len(await governed(store, worker, 20, now=now + DAY)) == 10
    assert len(await governed(store, worker, 20, now=now)) == 10
    assert await governed(store, worker, 20, now=now) == []
    assert len(await governed(store, worker, 20, now=now + SECOND)) == 10


async def test_the_slowest_rate_there_can_be_and_its_largest_burst(door: Link, store: Store, worker: UUID):
    await limit(door, "queues", "default", rate_count=1, rate_period=366 * DAY, rate_burst=1_000_000)
    await query(door, "insert into jobd.rates values ('queue', 'default', '294000-01-01')")
    await make_jobs(door, 3)
    assert len(await governed(store, worker)) == 3


async def test_the_rates_of_two_kinds_that_share_a_key_are_each_its_own(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "kinds", "slow", key_limit=100, rate_count=2, rate_period=3600 * SECOND)
    await limit(door, "kinds", "quick", key_limit=100, rate_count=100, rate_period=SECOND, rate_burst=1)
    for kind in ("slow", "quick"):
        await make_jobs(door, 20, kind=kind, concurrency_key="k")
    now, started = datetime.now(UTC), Counter[str]()
    # The first claim, in which the slow ones come first, and ten more.
    for n in range(11):
        claims = await governed(store, worker, now=now + n * SECOND / 50)
        started.update(claim.kind for claim in claims)
    assert started == {"slow": 2, "quick": 10}


@pytest.mark.parametrize("column", ["concurrency_key", "tenant_id"])
async def test_of_a_use_case_jobs_run_behind_many_that_wait_for_a_key_or_a_tenant(
    door: Link, store: Store, worker: UUID, column: str
):
    await limit(door, "tenants", "full", max_running=0)
    await limit(door, "kinds", "noop", key_limit=1)
    await make_job(door, concurrency_key="full")
    assert len(await governed(store, worker)) == 1
    await make_jobs(door, 300, use_case="labels", **{column: "full"})
    id = await make_job(door, use_case="labels")
    assert await claimed(store, worker, 3) == [id]


@pytest.mark.parametrize("column", ["concurrency_key", "use_case"])
async def test_of_a_tenant_no_more_run_than_may_though_a_thousand_others_are_looked_at_before_it(
    door: Link, store: Store, worker: UUID, column: str
):
    await limit(door, "tenants", "z", max_running=0)
    await make_job(door, concurrency_key="busy")
    assert len(await governed(store, worker)) == 1
    await query(door, FILL.format(column="concurrency_key", value="'busy'"), 300)
    await query(door, "update jobd.jobs set priority = 1 where state = 'ready'")
    await query(door, FILL.format(column="tenant_id", value="'t' || n"), 1100)
    await query(door, f"update jobd.jobs set {column} = tenant_id where tenant_id is not null")
    # Earlier than those, and found by its key or use case.
    early = datetime.now(UTC) - DAY
    await make_job(door, tenant_id="z", run_at=early, **{column: "a"})
    claims = await governed(store, worker, 20)
    assert len(claims) == 20
    assert "z" not in {claim.tenant_id for claim in claims}


async def test_of_a_key_others_run_behind_those_that_wait_for_a_use_case(
    door: Link, store: Store, worker: UUID
):
    await limit(door, "use_cases", "full", max_running=0)
    await query(door, FILL.format(column="concurrency_key", value="'k' || n % 10"), 500)
    await query(door, "update jobd.jobs set use_case = 'full'")
    id = await make_job(door, concurrency_key="k7")
    assert await claimed(store, worker) == [id]


@pytest.mark.parametrize("column", ["concurrency_key", "use_case", "tenant_id"])
async def test_a_suspect_that_may_not_run_now_keeps_no_room_from_others(
    door: Link, store: Store, worker: UUID, column: str
):
    await limit(door, "use_cases", "one", max_running=1)
    await limit(door, "tenants", "one", max_running=1)
    await make_job(door, crashes=2, priority=1, **{column: "one"})
    id = await make_job(door, **{column: "one"})
    assert await claimed(store, worker, suspects=0) == [id]
