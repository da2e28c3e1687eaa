"""progress: recorded for the run that reports it, and for no other."""

from __future__ import annotations

from uuid import uuid4

import pytest

from jobd.door import Link
from jobd.job import FinishedRun, JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import make_job
from tests.store.conftest import Held

HALF = '{"fraction": 0.5, "note": "half"}'


async def test_progress_is_recorded_and_replaced(door: Link, store: Store, reader: Reader):
    id = await make_job(door, state="running", claim_no=3)
    assert await store.progress(id, 3, '{"fraction": 0.1}')
    assert await store.progress(id, 3, HALF)
    job = await reader.get(id)
    assert (job.progress, job.claim_no, job.state) == ({"fraction": 0.5, "note": "half"}, 3, JobState.RUNNING)


@pytest.mark.parametrize(
    ("state", "claim_no"), [("running", 5), ("ready", 4), ("scheduled", 4), ("succeeded", 4)]
)
async def test_progress_of_a_lost_claim_changes_nothing(
    door: Link, store: Store, reader: Reader, state: str, claim_no: int
):
    id = await make_job(door, state=state, claim_no=claim_no)
    before = await reader.get(id)
    assert not await store.progress(id, 3, HALF)
    assert await reader.get(id) == before


async def test_progress_of_an_unknown_job_says_that_the_claim_is_lost(store: Store):
    assert not await store.progress(uuid4(), 1, HALF)


async def test_progress_that_waits_for_a_rescue_is_lost(door: Link, store: Store, held: Held, reader: Reader):
    id = await make_job(door, state="running")
    await Store(held).rescue(batch=1, crash_limit=3)
    assert not await held.commit_under(store.progress(id, 1, HALF))
    assert (await reader.get(id)).progress is None


async def test_progress_that_waits_for_the_end_of_the_run_is_lost(door: Link, store: Store, held: Held):
    id = await make_job(door, state="running")
    await Store(held).succeed([FinishedRun(id=id, claim_no=1, state=JobState.SUCCEEDED)])
    assert not await held.commit_under(store.progress(id, 1, HALF))
