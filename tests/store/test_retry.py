"""retry: an operator puts a job that has ended back to ready, as a new generation of itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobd.door import Link
from jobd.errors import JobNotFound, UniqueKeyTaken, WrongState
from jobd.ids import uuid7
from jobd.job import JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_worker, new_job
from tests.store.conftest import Ear, Held

ENDED = ["succeeded", "cancelled", "dead"]


@pytest.mark.parametrize("state", ENDED)
async def test_a_job_that_has_ended_starts_anew(door: Link, store: Store, reader: Reader, state: str):
    id = await make_job(
        door,
        state=state,
        claim_no=8,
        attempt=10,
        crashes=2,
        generation=3,
        payload={"a": 1},
        errors=[{"type": "E"}],
        priority=5,
        tenant_id="t",
        unique_key="k",
        headers={"tags": ["x"]},
        max_attempts=10,
        timeout=5 * SECOND,
        delay_tolerance=60 * SECOND,
        result=1,
        reason="why",
        progress={"fraction": 1},
        backoff={"kind": "linear"},
        cancel_requested_at=datetime.now(UTC),
    )
    before = await reader.get(id)
    now = datetime.now(UTC)
    assert await store.retry(id, now=now) == 4
    job = await reader.get(id)
    assert (job.state, job.generation, job.attempt, job.crashes, job.claim_no) == (JobState.READY, 4, 0, 0, 8)
    assert (job.run_at, job.deadline_at) == (now, now + 60 * SECOND)
    cleared = (
        "worker_id",
        "claimed_at",
        "finished_at",
        "cancel_requested_at",
        "result",
        "reason",
        "progress",
    )
    assert [getattr(job, name) for name in cleared] == [None] * len(cleared)
    changed = {"state", "generation", "attempt", "crashes", "run_at", "deadline_at", *cleared}
    for name in before.__slots__:
        assert name in changed or getattr(job, name) == getattr(before, name), name


async def test_a_retried_job_is_claimed_with_a_number_that_was_never_used(door: Link, store: Store):
    id = await make_job(door, state="dead", claim_no=8)
    await store.retry(id)
    (claim,) = await store.claim(await make_worker(door), rooms={"default": 1})
    assert (claim.id, claim.claim_no, claim.attempt, claim.generation) == (id, 9, 1, 1)


@pytest.mark.parametrize("state", ["scheduled", "ready", "running"])
async def test_a_job_that_has_not_ended_is_refused(door: Link, store: Store, reader: Reader, state: str):
    id = await make_job(door, state=state)
    before = await reader.get(id)
    with pytest.raises(WrongState, match=f"it is {state}"):
        await store.retry(id)
    assert await reader.get(id) == before


async def test_an_unknown_job_is_not_found(store: Store):
    with pytest.raises(JobNotFound):
        await store.retry(uuid7())


@pytest.mark.parametrize("tenant", [None, "t"])
async def test_a_unique_key_that_is_held_refuses_and_names_the_holder(
    door: Link, store: Store, reader: Reader, tenant: str | None
):
    id = await make_job(door, state="dead", unique_key="k", tenant_id=tenant)
    holder = await make_job(door, unique_key="k", tenant_id=tenant)
    before = await reader.get(id)
    with pytest.raises(UniqueKeyTaken) as taken:
        await store.retry(id)
    assert (taken.value.job_id, taken.value.holder, taken.value.unique_key) == (id, holder, "k")
    assert await reader.get(id) == before


async def test_a_retry_that_waits_for_an_enqueue_of_its_key_is_refused(door: Link, store: Store, held: Held):
    id = await make_job(door, state="dead", unique_key="k")
    holder = await Store(held).enqueue(new_job(unique_key="k"))
    with pytest.raises(UniqueKeyTaken) as taken:
        await held.commit_under(store.retry(id))
    assert taken.value.holder == holder.id


async def test_an_enqueue_that_waits_for_a_retry_of_its_key_gets_that_job(
    door: Link, store: Store, held: Held
):
    id = await make_job(door, state="dead", unique_key="k")
    await Store(held).retry(id)
    enqueued = await held.commit_under(store.enqueue(new_job(unique_key="k")))
    assert (enqueued.id, enqueued.created) == (id, False)


async def test_of_two_retries_at_the_same_time_one_counts(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="dead")
    await Store(held).retry(id)
    with pytest.raises(WrongState, match="it is ready"):
        await held.commit_under(store.retry(id))
    assert (await reader.get(id)).generation == 1


async def test_a_retried_job_wakes_a_worker_that_sleeps(door: Link, store: Store, ear: Ear):
    await make_worker(door, sleeping_until=datetime.now(UTC) + 60 * SECOND)
    await store.retry(await make_job(door, state="dead"))
    assert await ear.heard() == [("jobd_wake", "default")]
