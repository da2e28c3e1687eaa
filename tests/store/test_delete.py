"""delete: a job that does not run goes without a trace."""

from __future__ import annotations

import pytest

from jobd.door import Link
from jobd.errors import JobNotFound, WrongState
from jobd.ids import uuid7
from jobd.job import FinishedRun, JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import make_job, make_worker, scalar
from tests.store.conftest import Held


@pytest.mark.parametrize("state", ["scheduled", "ready", "succeeded", "cancelled", "dead"])
async def test_a_job_that_does_not_run_is_gone(door: Link, store: Store, state: str):
    id = await make_job(door, state=state)
    other = await make_job(door, state=state)
    await store.delete(id)
    assert await scalar(door, "select array_agg(id) from jobd.all_jobs") == [other]


async def test_a_running_job_stays(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running")
    with pytest.raises(WrongState, match="cancel it first"):
        await store.delete(id)
    assert (await reader.get(id)).state is JobState.RUNNING


async def test_an_unknown_job_is_not_found(store: Store):
    with pytest.raises(JobNotFound):
        await store.delete(uuid7())


async def test_a_delete_that_loses_to_a_claim_is_refused(door: Link, store: Store, held: Held):
    id = await make_job(door)
    await Store(held).claim(await make_worker(door), rooms={"default": 1})
    with pytest.raises(WrongState, match="it is running"):
        await held.commit_under(store.delete(id))


async def test_a_claim_passes_over_a_job_that_is_being_deleted(door: Link, store: Store, held: Held):
    id = await make_job(door)
    await Store(held).delete(id)
    assert await store.claim(await make_worker(door), rooms={"default": 1}) == []
    await held.rollback()
    (claim,) = await store.claim(await make_worker(door), rooms={"default": 1})
    assert claim.id == id


async def test_a_delete_that_waits_for_a_run_to_go_back_deletes_nothing_half(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running")
    await Store(held).finish([FinishedRun(id=id, claim_no=1, state=JobState.READY)])
    # The delete saw a running job and left it; by now it waits, and can be deleted.
    with pytest.raises(WrongState):
        await store.delete(id)
    await held.commit()
    await store.delete(id)
    with pytest.raises(JobNotFound):
        await reader.get(id)


async def test_of_two_deletes_at_the_same_time_the_later_finds_nothing(door: Link, store: Store, held: Held):
    id = await make_job(door, state="dead")
    await Store(held).delete(id)
    with pytest.raises(JobNotFound):
        await held.commit_under(store.delete(id))
