"""expire: scheduled | ready -> dead, for jobs that would rather not run than run late."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jobd.door import Link
from jobd.job import JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_jobs, make_worker
from tests.store.conftest import Held

NOW = datetime.now(UTC)
LATE: dict[str, Any] = {
    "deadline_policy": "drop",
    "delay_tolerance": 10 * SECOND,
    "run_at": NOW - 60 * SECOND,
}


@pytest.mark.parametrize("state", ["scheduled", "ready"])
async def test_a_waiting_job_dies_with_its_deadline(door: Link, store: Store, reader: Reader, state: str):
    id = await make_job(door, state=state, claim_no=2, attempt=1, **LATE)
    assert (await store.expire(batch=10)).total() == 1
    job = await reader.get(id)
    assert (job.state, job.reason, job.claim_no) == (JobState.DEAD, "deadline", 2)


async def test_the_deadline_itself_is_in_time(door: Link, store: Store):
    await make_job(door, deadline_policy="drop", delay_tolerance=10 * SECOND, run_at=NOW)
    assert (await store.expire(batch=10, now=NOW + 10 * SECOND)).total() == 0
    assert (await store.expire(batch=10, now=NOW + 11 * SECOND)).total() == 1


@pytest.mark.parametrize(
    "other",
    [
        {"deadline_policy": "run"},
        {"delay_tolerance": None},
        {"run_at": NOW + 3600 * SECOND},
        {"state": "running"},
    ],
)
async def test_other_jobs_live_on(door: Link, store: Store, other: dict[str, Any]):
    await make_job(door, **LATE | other)
    assert (await store.expire(batch=10)).total() == 0


async def test_at_most_a_batch_expires_at_a_time(door: Link, store: Store):
    await make_jobs(door, 5, **LATE)
    assert [(await store.expire(batch=2)).total() for _ in range(4)] == [2, 2, 1, 0]


async def test_two_daemons_expire_different_jobs(door: Link, store: Store, held: Held):
    await make_jobs(door, 4, **LATE)
    assert (await Store(held).expire(batch=3)).total() == 3
    assert (await store.expire(batch=10)).total() == 1
    await held.commit()


async def test_what_expires_is_not_claimed_and_what_is_claimed_does_not_expire(
    door: Link, store: Store, held: Held
):
    id = await make_job(door, **LATE)
    worker = await make_worker(door)
    await Store(held).expire(batch=1)
    assert await store.claim(worker, rooms={"default": 1}, now=NOW - 55 * SECOND) == []
    await held.rollback()
    (claim,) = await Store(held).claim(worker, rooms={"default": 1}, now=NOW - 55 * SECOND)
    assert claim.id == id
    assert (await store.expire(batch=1)).total() == 0
    await held.commit()
    assert (await store.expire(batch=1)).total() == 0


async def test_an_expired_job_frees_its_unique_key_and_can_be_retried(
    door: Link, store: Store, reader: Reader
):
    id = await make_job(door, unique_key="k", **LATE)
    await store.expire(batch=1)
    await store.retry(id)
    assert (await reader.get(id)).state is JobState.READY
    assert (await store.expire(batch=1)).total() == 0, "a retry by hand sets a new deadline"
