"""Admission: how many jobs of a tenant may wait, by whatever door they come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from jobd import Jobs, bulk
from jobd.bulk import CHUNK_JOBS
from jobd.client import Client
from jobd.door import Link
from jobd.errors import CallTimeout, TenantFull
from jobd.job import JobState
from jobd.store import Store
from tests.factories import SECOND, make_job, make_jobs, new_job, query, scalar
from tests.store.conftest import Held
from tests.store.lending import LENDERS, Loan

MINUTE = timedelta(minutes=1)
MANY = CHUNK_JOBS + 3


async def tenant(door: Link, id: str = "t", *, most: int | None, on_full: str = "refuse", exact: bool = True):
    await query(
        door,
        "insert into jobd.tenants (id, max_pending, on_full, exact) values ($1, $2, $3, $4)",
        id,
        most,
        on_full,
        exact,
    )


async def count(door: Link, state: str | None = None) -> int:
    return int(
        await scalar(door, "select count(*) from jobd.all_jobs where coalesce(state = $1, true)", state)
    )


@pytest.fixture(params=[True, False], ids=["exact", "soft"])
def exact(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_no_more_jobs_of_a_tenant_wait_than_may(client: Client, door: Link, exact: bool):
    await tenant(door, most=2, exact=exact)
    for _ in range(2):
        assert (await client.enqueue("greet", tenant_id="t")).created
    with pytest.raises(TenantFull) as raised:
        await client.enqueue("greet", tenant_id="t")
    full = raised.value
    assert (full.tenant_id, full.limit, full.waiting, full.surplus) == ("t", 2, 2, 1)
    await client.enqueue("greet", tenant_id="other")
    await client.enqueue("greet")
    assert await count(door) == 4


async def test_a_tenant_may_be_shut_out(client: Client, door: Link):
    await tenant(door, most=0)
    with pytest.raises(TenantFull, match="'t' has 0 jobs waiting, and its max_pending is 0"):
        await client.enqueue("greet", tenant_id="t")


async def test_a_count_that_stopped_says_so(client: Client, door: Link):
    await query(
        door,
        "select jobd.enqueue('noop', tenant_id => 't') from generate_series(1, 1200)",
    )
    await tenant(door, most=2)
    with pytest.raises(TenantFull, match="'t' has 1002 or more jobs waiting, and its max_pending is 2"):
        await client.enqueue("greet", tenant_id="t")
    await query(door, "update jobd.tenants set on_full = 'shed'")
    job = await client.get((await client.enqueue("greet", tenant_id="t")).id)
    assert job.reason == "shed: tenant 't' has 1002 or more jobs waiting, and may have 2"


async def test_a_tenant_with_other_limits_only_takes_any_number(client: Client, door: Link):
    await tenant(door, most=None)
    for _ in range(3):
        await client.enqueue("greet", tenant_id="t")
    await client.enqueue_many("greet", [{}] * 50, tenant_id="t")
    assert await count(door) == 53


async def test_what_is_scheduled_counts_and_what_runs_or_has_ended_does_not(client: Client, door: Link):
    await tenant(door, most=3)
    await make_job(door, tenant_id="t", state="scheduled")
    for state in ("running", "running", "running", "dead", "succeeded"):
        await make_job(door, tenant_id="t", state=state)
    await client.enqueue("greet", tenant_id="t", delay="1h")
    await client.enqueue("greet", tenant_id="t")
    with pytest.raises(TenantFull):
        await client.enqueue("greet", tenant_id="t")


async def test_a_claim_makes_room(client: Client, door: Link):
    await tenant(door, most=1)
    (id,) = await make_jobs(door, 1, tenant_id="t")
    with pytest.raises(TenantFull):
        await client.enqueue("greet", tenant_id="t")
    await query(
        door,
        "update jobd.jobs set state = 'running', claim_no = 1, worker_id = $2 where id = $1",
        id,
        uuid4(),
    )
    assert (await client.enqueue("greet", tenant_id="t")).created


@pytest.mark.parametrize("options", [{"unique_key": "k"}, {"id": uuid4()}], ids=["unique_key", "id"])
async def test_a_job_that_is_there_already_is_not_refused(
    client: Client, door: Link, options: dict[str, Any], exact: bool
):
    await tenant(door, most=1, exact=exact)
    first = await client.enqueue("greet", tenant_id="t", **options)
    again = await client.enqueue("greet", tenant_id="t", **options)
    assert (again.id, again.duplicate, again.shed) == (first.id, True, False)
    with pytest.raises(TenantFull):
        await client.enqueue("greet", tenant_id="t", unique_key="another")
    assert await count(door) == 1


async def test_a_repeat_of_what_has_run_is_not_refused(client: Client, door: Link):
    await tenant(door, most=1)
    ran = await make_job(door, kind="greet", tenant_id="t", state="succeeded")
    await make_job(door, tenant_id="t")
    assert (await client.enqueue("greet", tenant_id="t", id=ran)).duplicate


async def test_what_is_shed_is_dead_and_says_why(client: Client, door: Link, exact: bool):
    await tenant(door, most=1, on_full="shed", exact=exact)
    first = await client.enqueue("greet", tenant_id="t")
    second = await client.enqueue("greet", {"n": 1}, tenant_id="t")
    assert (first.shed, second.shed, second.created) == (False, True, True)
    job = await client.wait(second.id, timeout=5)
    assert (job.state, job.attempt, job.payload) == (JobState.DEAD, 0, {"n": 1})
    assert job.reason == "shed: tenant 't' has 1 job waiting, and may have 1"
    assert await client.retry(second.id) == JobState.READY


async def test_a_repeat_of_what_was_shed_stays_shed(client: Client, door: Link):
    await tenant(door, most=0, on_full="shed")
    id = uuid4()
    assert (await client.enqueue("greet", tenant_id="t", id=id)).shed
    again = await client.enqueue("greet", tenant_id="t", id=id)
    assert (again.id, again.duplicate) == (id, True)
    assert await count(door, "dead") == 1


async def test_what_is_shed_frees_its_unique_key(client: Client, door: Link):
    await tenant(door, most=0, on_full="shed")
    first = await client.enqueue("greet", tenant_id="t", unique_key="k")
    second = await client.enqueue("greet", tenant_id="t", unique_key="k")
    assert first.shed and second.shed and first.id != second.id


async def test_what_is_shed_of_a_queue_that_keeps_nothing_leaves_a_tombstone(client: Client, door: Link):
    await tenant(door, most=0, on_full="shed")
    await query(door, "insert into jobd.queues (name, keep) values ('default', 'nothing')")
    job = await client.wait((await client.enqueue("greet", tenant_id="t")).id, timeout=5)
    assert (job.state, job.kept) == (JobState.DEAD, False)


async def test_what_is_delayed_becomes_due_at_the_pace_of_the_limit(store: Store, door: Link, exact: bool):
    await tenant(door, most=2, on_full="delay", exact=exact)
    now = datetime.now(UTC)
    for _ in range(5):
        assert not (await store.enqueue(new_job(tenant_id="t", delay_tolerance=SECOND), now=now)).shed
    rows = await query(door, "select state, run_at, deadline_at from jobd.jobs order by run_at, id")
    assert [row["state"] for row in rows] == ["ready"] * 2 + ["scheduled"] * 3
    assert [(row["run_at"] - now) / MINUTE for row in rows] == [0, 0, 0.5, 1, 1.5]
    assert all(row["deadline_at"] == row["run_at"] + SECOND for row in rows)


async def test_a_delay_never_makes_a_job_earlier(store: Store, door: Link):
    await tenant(door, most=0, on_full="delay")
    later = datetime.now(UTC) + timedelta(days=3)
    enqueued = await store.enqueue(new_job(tenant_id="t", run_at=later))
    assert await scalar(door, "select run_at from jobd.jobs where id = $1", enqueued.id) == later


@pytest.mark.parametrize("number", [10, MANY], ids=["statement", "stream"])
async def test_of_many_jobs_all_are_refused_where_not_all_have_room(client: Client, door: Link, number: int):
    await tenant(door, most=number + 1)
    await make_jobs(door, 2, tenant_id="t")
    with pytest.raises(TenantFull) as raised:
        await client.enqueue_many("greet", ({"n": n} for n in range(number)), tenant_id="t")
    assert (raised.value.limit, raised.value.surplus) == (number + 1, 1)
    assert await count(door) == 2
    assert (
        len(await client.enqueue_many("greet", ({} for _ in range(number - 1)), tenant_id="t")) == number - 1
    )


@pytest.mark.parametrize("number", [10, MANY], ids=["statement", "stream"])
async def test_of_many_jobs_the_last_are_shed(client: Client, door: Link, number: int):
    await tenant(door, most=number - 2, on_full="shed")
    ids = await client.enqueue_many("greet", ({"n": n} for n in range(number)), tenant_id="t")
    dead = await query(door, "select id, payload from jobd.job_history order by (payload ->> 'n')::int")
    assert [row["id"] for row in dead] == list(ids[-2:])
    assert await count(door, "ready") == number - 2


@pytest.mark.parametrize("number", [10, MANY], ids=["statement", "stream"])
async def test_of_many_jobs_the_last_are_delayed(client: Client, door: Link, number: int):
    await tenant(door, most=number - 2, on_full="delay")
    ids = await client.enqueue_many("greet", ({} for _ in range(number)), tenant_id="t")
    late = await query(door, "select id from jobd.jobs where state = 'scheduled' order by run_at")
    assert [row["id"] for row in late] == list(ids[-2:])


async def test_no_job_of_many_is_lost_where_the_first_fills_a_statement(
    client: Client, door: Link, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bulk, "CHUNK_CHARACTERS", 40)
    await tenant(door, most=10)
    payloads = [{"text": "x" * 50}, {"n": 1}, {"n": 2}]
    assert len(await client.enqueue_many("noop", payloads, tenant_id="t")) == 3
    assert await count(door) == 3


async def test_one_job_that_has_room_is_one_statement(store: Store, door: Link, client: Client):
    """A tenant that is not full pays no round trip."""
    await tenant(door, most=1)
    assert await store.enqueue_of_tenant(new_job(tenant_id="t"))
    assert not await store.enqueue_of_tenant(new_job(tenant_id="t"))
    assert await count(door) == 1


async def test_a_refusal_in_sql_names_tenant_limit_and_remedy(door: Link, direct_database_url: str):
    await tenant(door, "acme", most=0)
    connection = await asyncpg.connect(direct_database_url)
    with pytest.raises(asyncpg.PostgresError) as raised:
        await connection.fetch("select jobd.enqueue('greet', tenant_id => 'acme')")
    with pytest.raises(asyncpg.PostgresError, match="and may have 0: 2 of the new ones are too many"):
        await connection.fetch(
            "select jobd.enqueue_many('greet', array['{}', '{}']::jsonb[], tenant_id => 'acme')"
        )
    await connection.close()
    error: Any = raised.value
    assert (error.sqlstate, error.args[0]) == ("JD001", "tenant 'acme' has 0 jobs waiting, and may have 0")
    assert error.hint == "Try again when some have run, or raise max_pending of this tenant."


@pytest.fixture(params=LENDERS)
def lend(request: pytest.FixtureRequest) -> Callable[..., AbstractAsyncContextManager[Loan]]:
    return LENDERS[request.param]


@pytest.mark.parametrize("number", [3, MANY], ids=["statement", "stream"])
async def test_a_refusal_leaves_the_callers_transaction_usable(
    client: Client, door: Link, direct_database_url: str, lend: Any, number: int
):
    await tenant(door, most=1)
    async with lend(direct_database_url) as loan:
        await loan.enqueue(client, "greet", tenant_id="t")
        with pytest.raises(TenantFull) as raised:
            await loan.enqueue(client, "greet", tenant_id="t")
        with pytest.raises(TenantFull):
            await loan.enqueue_many(client, "greet", [{}] * number, tenant_id="t")
        assert (raised.value.tenant_id, raised.value.limit, raised.value.waiting) == ("t", 1, 1)
        await loan.enqueue(client, "greet")
        if (ended := loan.commit()) is not None:
            await ended
    assert await count(door) == 2


async def test_enqueues_of_a_tenant_wait_for_each_other_up_to_the_commit(
    store: Store, door: Link, held: Held
):
    await tenant(door, most=1)
    await tenant(door, "other", most=1)
    assert await Store(held).enqueue_of_tenant(new_job(tenant_id="t"))
    assert await store.enqueue_of_tenant(new_job(tenant_id="other"))
    assert await store.enqueue_of_tenant(new_job(tenant_id="unlimited"))
    assert not await held.commit_under(store.enqueue_of_tenant(new_job(tenant_id="t")))


async def test_whoever_waits_too_long_hears_for_what(database_url: str, door: Link, held: Held):
    await tenant(door, most=9)
    assert await Store(held).enqueue_of_tenant(new_job(tenant_id="t"))
    said = "^enqueue did not end within 1 s .* for the same tenant, where its max_pending is exact"
    async with Jobs(database_url, call_timeout="1s") as jobs:
        with pytest.raises(CallTimeout, match=said):
            await jobs.enqueue("noop", tenant_id="t")


async def test_what_is_rolled_back_leaves_its_room(store: Store, door: Link, held: Held):
    await tenant(door, most=1)
    assert await Store(held).enqueue_of_tenant(new_job(tenant_id="t"))
    waiting = await held.until_it_blocks(store.enqueue_of_tenant(new_job(tenant_id="t")))
    await held.rollback()
    assert await waiting


async def test_a_limit_that_is_not_exact_waits_for_nobody(store: Store, door: Link, held: Held):
    await tenant(door, most=1, exact=False)
    assert await Store(held).enqueue_of_tenant(new_job(tenant_id="t"))
    assert await store.enqueue_of_tenant(new_job(tenant_id="t"))
    await held.commit()
    assert not await store.enqueue_of_tenant(new_job(tenant_id="t"))


async def test_two_that_want_the_same_keys_in_different_order_do_not_lock_each_other_out(
    store: Store, door: Link, held: Held
):
    """The lock comes before the keys: whoever waits for it holds none of them."""
    await tenant(door, most=10)
    await Store(held).enqueue(new_job(tenant_id="t", unique_key="a"))
    waiting = await held.until_it_blocks(store.enqueue(new_job(tenant_id="t", unique_key="b")))
    await Store(held).enqueue(new_job(tenant_id="t", unique_key="b"))
    await held.commit()
    assert not (await waiting).created
