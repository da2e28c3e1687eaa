"""cancel: a waiting job ends, a running one is asked to; whatever happens to it at the same time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobd.door import Link
from jobd.errors import JobNotFound, WrongState
from jobd.ids import uuid7
from jobd.job import FinishedRun, JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_worker
from tests.store.conftest import Ear, Held


@pytest.mark.parametrize("state", ["scheduled", "ready"])
async def test_a_waiting_job_ends_cancelled_with_the_reason(
    door: Link, store: Store, reader: Reader, state: str
):
    id = await make_job(door, state=state, claim_no=2, attempt=1)
    assert await store.cancel(id, reason="not needed") is JobState.CANCELLED
    job = await reader.get(id)
    assert (job.state, job.reason, job.claim_no, job.attempt) == (JobState.CANCELLED, "not needed", 2, 1)


async def test_a_running_job_is_asked_and_its_worker_is_told(
    door: Link, store: Store, reader: Reader, ear: Ear
):
    id = await make_job(door, state="running")
    now = datetime.now(UTC)
    assert await store.cancel(id, reason="stop", now=now) is JobState.RUNNING
    job = await reader.get(id)
    assert (job.state, job.cancel_requested_at, job.claim_no) == (JobState.RUNNING, now, 1)
    assert await ear.heard() == [("jobd_cancel", str(id))]


async def test_the_first_request_keeps_its_time(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running")
    now = datetime.now(UTC)
    await store.cancel(id, reason="stop", now=now)
    assert await store.cancel(id, reason="stop", now=now + SECOND) is JobState.RUNNING
    assert (await reader.get(id)).cancel_requested_at == now


@pytest.mark.parametrize("state", ["succeeded", "cancelled", "dead"])
async def test_a_job_that_has_ended_stays_as_it_is(door: Link, store: Store, reader: Reader, state: str):
    id = await make_job(door, state=state)
    before = await reader.get(id)
    with pytest.raises(WrongState, match=f"it is {state}"):
        await store.cancel(id, reason="stop")
    assert await reader.get(id) == before


async def test_an_unknown_job_is_not_found(store: Store):
    with pytest.raises(JobNotFound):
        await store.cancel(uuid7(), reason="stop")


async def test_a_cancel_that_loses_to_a_claim_becomes_the_request(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door)
    await Store(held).claim(await make_worker(door), rooms={"default": 1})
    assert await held.commit_under(store.cancel(id, reason="stop")) is JobState.RUNNING
    job = await reader.get(id)
    assert (job.state, job.cancel_requested_at is not None) == (JobState.RUNNING, True)


async def test_a_claim_passes_over_a_job_that_is_being_cancelled(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door)
    await Store(held).cancel(id, reason="stop")
    assert await store.claim(await make_worker(door), rooms={"default": 1}) == []
    await held.commit()
    assert (await reader.get(id)).state is JobState.CANCELLED


async def test_a_cancel_that_loses_to_a_retry_of_the_run_ends_the_job(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running")
    await Store(held).finish([FinishedRun(id=id, claim_no=1, state=JobState.SCHEDULED, delay=SECOND)])
    assert await held.commit_under(store.cancel(id, reason="stop")) is JobState.CANCELLED
    assert (await reader.get(id)).claim_no == 2


async def test_a_cancel_that_loses_to_a_success_says_that_the_job_has_succeeded(
    door: Link, store: Store, held: Held
):
    id = await make_job(door, state="running")
    await Store(held).succeed([FinishedRun(id=id, claim_no=1, state=JobState.SUCCEEDED)])
    with pytest.raises(WrongState, match="it is succeeded"):
        await held.commit_under(store.cancel(id, reason="stop"))


async def test_a_cancel_that_loses_to_another_says_that_the_job_is_cancelled(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door)
    await Store(held).cancel(id, reason="first")
    with pytest.raises(WrongState, match="it is cancelled"):
        await held.commit_under(store.cancel(id, reason="second"))
    assert (await reader.get(id)).reason == "first"


async def test_a_cancel_that_loses_to_staging_ends_the_job(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="scheduled", run_at=datetime.now(UTC) - SECOND)
    await Store(held).stage(batch=1)
    assert await held.commit_under(store.cancel(id, reason="stop")) is JobState.CANCELLED
    assert (await reader.get(id)).state is JobState.CANCELLED
