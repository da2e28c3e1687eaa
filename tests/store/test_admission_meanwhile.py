"""Admission, while limits change, jobs go and others have transactions open."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobd.client import Client
from jobd.door import Link
from jobd.errors import TenantFull
from jobd.events import JobEnqueued, JobsTurnedAway
from jobd.job import JobState
from jobd.store import Store
from tests.factories import make_jobs, new_job, query, scalar
from tests.store.conftest import Held
from tests.store.test_admission import MANY, tenant

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("options", [{}, {"unique_key": "k"}], ids=["plain", "unique_key"])
@pytest.mark.parametrize(
    "change",
    [
        "select jobd.remove_tenant('t')",
        """select jobd.set_tenant('t', '{"max_pending": null}')""",
        """select jobd.set_tenant('t', '{"max_pending": 100}')""",
    ],
    ids=["removed", "none", "raised"],
)
@pytest.mark.parametrize("on_full", ["refuse", "shed", "delay"])
async def test_a_limit_that_changes_while_an_enqueue_waits_is_the_one_that_counts(
    client: Client, door: Link, held: Held, change: str, options: dict[str, Any], on_full: str
):
    await tenant(door, most=1, on_full=on_full)
    await Store(held).enqueue(new_job(tenant_id="t"))
    waiting = await held.until_it_blocks(client.enqueue("greet", tenant_id="t", **options))
    await query(door, change)
    await held.commit()
    enqueued = await waiting
    assert (enqueued.created, enqueued.shed) == (True, False)
    assert (await client.get(enqueued.id)).state == JobState.READY


async def test_a_limit_that_changes_while_an_enqueue_waits_for_a_key_is_the_one_that_counts(
    client: Client, door: Link, held: Held
):
    await tenant(door, most=0, exact=False)
    await query(
        held,
        "insert into jobd.unique_keys values ('k', 'greet', 't', 'window', $1, now(), now())",
        new_job().id,
    )
    waiting = await held.until_it_blocks(
        client.enqueue("greet", tenant_id="t", unique_key="k", unique_for="1h")
    )
    await query(door, "update jobd.tenants set max_pending = 5")
    await held.rollback()
    assert (await waiting).created


async def test_a_delay_without_a_lock_waits_for_nobody(client: Client, store: Store, door: Link, held: Held):
    await tenant(door, most=1, on_full="delay", exact=False)
    now = datetime.now(UTC)
    for _ in range(2):
        await store.enqueue(new_job(tenant_id="t"), now=now)
    await Store(held).enqueue(new_job(tenant_id="t", unique_key="k1"), now=now)
    async with asyncio.timeout(4):
        await store.enqueue(new_job(tenant_id="t", unique_key="k2"), now=now)
        # In the other order, which waiting for both would make a deadlock.
        await Store(held).enqueue(new_job(tenant_id="t", unique_key="k3"), now=now)
    await held.commit()
    dues = await query(door, "select run_at from jobd.jobs order by run_at")
    # All are behind what was delayed before; those of open transactions know nothing of each other.
    assert [(row["run_at"] - now) / MINUTE for row in dues] == [0, 1, 2, 2, 3]


async def test_jobs_of_many_keys_that_are_delayed_at_the_same_time_do_not_lock_each_other_out(
    client: Client, door: Link
):
    await tenant(door, most=0, on_full="delay", exact=False)

    async def many(first: int) -> int:
        payloads = [{"n": n} for n in range(first, 2_200)]
        ids = await client.enqueue_many(
            "greet", payloads, tenant_id="t", unique_key=lambda payload: f"{payload['n']:05}"
        )
        return len(ids)

    assert [*await asyncio.gather(many(0), many(1_900), many(1_000))] == [2_200, 300, 1_200]


async def test_a_delay_begins_anew_once_the_jobs_that_it_counted_are_gone(store: Store, door: Link):
    await tenant(door, most=10, on_full="delay")
    now = datetime.now(UTC)
    jobs = [new_job(tenant_id="t") for _ in range(1_010)]
    await store.enqueue_many(jobs[0], ids=[job.id for job in jobs], payloads=["{}"] * 1_010, now=now)
    assert (await scalar(door, "select max(run_at) from jobd.jobs") - now) / MINUTE == 100
    await query(door, "delete from jobd.jobs")
    await query(door, "update jobd.tenants set max_pending = 5")
    await make_jobs(door, 5, tenant_id="t")
    late = await store.enqueue(new_job(tenant_id="t"), now=now)
    due = await scalar(door, "select run_at from jobd.jobs where id = $1", late.id)
    # Six wait, and five may start in a minute.
    assert due - now <= 2 * MINUTE


@pytest.mark.parametrize("scope", ["1h", "waiting"])
async def test_what_is_shed_frees_its_key_for_any_scope(client: Client, door: Link, scope: str):
    await tenant(door, most=0, on_full="shed")
    first = await client.enqueue("greet", tenant_id="t", unique_key="k", unique_for=scope)
    second = await client.enqueue("greet", tenant_id="t", unique_key="k", unique_for=scope)
    assert first.shed and second.shed and first.id != second.id
    await query(door, "update jobd.tenants set max_pending = 1")
    third = await client.enqueue("greet", tenant_id="t", unique_key="k", unique_for=scope)
    assert (third.created, third.shed) == (True, False)
    assert (await client.enqueue("greet", tenant_id="t", unique_key="k", unique_for=scope)).id == third.id


@pytest.mark.parametrize("number", [500, MANY], ids=["statement", "stream"])
async def test_a_refusal_of_many_counts_what_waits_without_them(client: Client, door: Link, number: int):
    await tenant(door, most=100)
    await make_jobs(door, 103, tenant_id="t")
    with pytest.raises(TenantFull) as raised:
        await client.enqueue_many("greet", [{}] * number, tenant_id="t")
    assert (raised.value.limit, raised.value.waiting) == (100, 103)


async def test_a_refusal_midway_in_a_stream_does_not_count_its_own_beginning(client: Client, door: Link):
    await tenant(door, most=1_500)
    await make_jobs(door, 2, tenant_id="t")
    with pytest.raises(TenantFull) as raised:
        await client.enqueue_many("greet", ({} for _ in range(3_000)), tenant_id="t")
    assert raised.value.waiting == 2


async def test_what_is_shed_on_a_day_without_a_partition_makes_one(client: Client, door: Link):
    await tenant(door, most=0, on_full="shed")
    days = "select relname from pg_class where relname ~ '^job_history_[0-9]{8}$'"
    for row in await query(door, days):
        await query(door, f"drop table jobd.{row['relname']}")
    enqueued = await client.enqueue("greet", tenant_id="t")
    assert enqueued.shed
    assert (await client.get(enqueued.id)).state == JobState.DEAD


@pytest.mark.parametrize("number", [5, MANY], ids=["statement", "stream"])
@pytest.mark.parametrize("key", [None, lambda payload: f"{payload['n']:05}"], ids=["plain", "keys"])
async def test_who_enqueues_many_learns_how_many_were_shed(client: Client, door: Link, number: int, key: Any):
    told: list[JobEnqueued] = []
    client._events.subscribe(JobEnqueued, told.append)
    await tenant(door, most=number - 3, on_full="shed")
    options = {} if key is None else {"unique_key": key}
    ids = await client.enqueue_many("greet", [{"n": n} for n in range(number)], tenant_id="t", **options)
    assert (len(ids), ids.shed) == (number, 3)
    assert [event.count for event in told] == [number - 3]
    again = await client.enqueue_many("greet", [{"n": 99_999}], tenant_id="t", **options)
    assert again.shed == 1
    assert len(told) == 1


async def test_what_is_turned_away_is_told(client: Client, door: Link):
    told: list[JobsTurnedAway] = []
    client._events.subscribe(JobsTurnedAway, told.append)
    await tenant(door, most=1)
    await client.enqueue("greet", tenant_id="t")
    with pytest.raises(TenantFull):
        await client.enqueue("greet", tenant_id="t")
    with pytest.raises(TenantFull):
        await client.enqueue_many("greet", [{}] * 3, tenant_id="t")
    await query(door, "update jobd.tenants set on_full = 'shed'")
    await client.enqueue("greet", tenant_id="t")
    await client.enqueue_many("greet", [{}] * 2, tenant_id="t", queue="q")
    assert [(event.queue, event.outcome, event.count) for event in told] == [
        ("default", "refused", 1),
        ("default", "refused", 3),
        ("default", "shed", 1),
        ("q", "shed", 2),
    ]
