"""move: a waiting job goes into another queue."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobd.client import Client
from jobd.door import Link
from jobd.errors import HandlerError, JobNotFound, WrongState
from jobd.ids import uuid7
from jobd.job import JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_worker
from tests.store.conftest import Ear, Held


@pytest.mark.parametrize("state", ["scheduled", "ready"])
async def test_a_waiting_job_is_in_the_other_queue_and_otherwise_as_it_was(
    door: Link, store: Store, reader: Reader, state: str
):
    id = await make_job(door, state=state, priority=3, claim_no=2, attempt=1)
    before = await reader.get(id)
    assert await store.move(id, queue="slow") is JobState(state)
    job = await reader.get(id)
    assert job.queue == "slow"
    assert all(getattr(job, name) == getattr(before, name) for name in before.__slots__ if name != "queue")


@pytest.mark.parametrize("state", ["running", "succeeded", "cancelled", "dead"])
async def test_a_job_that_does_not_wait_is_refused(door: Link, store: Store, reader: Reader, state: str):
    id = await make_job(door, state=state)
    with pytest.raises(WrongState, match=f"cannot move job {id}: it is {state}"):
        await store.move(id, queue="slow")
    assert (await reader.get(id)).queue == "default"


async def test_an_unknown_job_is_not_found(store: Store):
    with pytest.raises(JobNotFound):
        await store.move(uuid7(), queue="slow")


async def test_a_move_that_loses_to_a_claim_is_refused(door: Link, store: Store, held: Held):
    id = await make_job(door)
    await Store(held).claim(await make_worker(door), rooms={"default": 1})
    with pytest.raises(WrongState, match="it is running"):
        await held.commit_under(store.move(id, queue="slow"))


async def test_a_claim_of_the_old_queue_passes_over_it(door: Link, store: Store, held: Held):
    id = await make_job(door)
    await Store(held).move(id, queue="slow")
    worker = await make_worker(door)
    assert await store.claim(worker, rooms={"default": 1}) == []
    await held.commit()
    assert [claim.id for claim in await store.claim(worker, rooms={"slow": 1})] == [id]


async def test_a_worker_of_that_queue_wakes_up_for_a_ready_job_only(door: Link, store: Store, ear: Ear):
    await make_worker(door, queues=["slow"], sleeping_until=datetime.now(UTC) + 60 * SECOND)
    await store.move(await make_job(door, state="scheduled"), queue="slow")
    await store.move(await make_job(door), queue="slow")
    assert await ear.heard() == [("jobd_wake", "slow")]


async def test_a_queue_that_can_be_none_is_refused(client: Client, door: Link):
    id = await make_job(door)
    with pytest.raises(HandlerError, match="queue 'high priority' is no valid name"):
        await client.move(id, "high priority")
