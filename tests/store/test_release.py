"""release: running -> ready | cancelled, unburned, for claims that never started here."""

from __future__ import annotations

from datetime import UTC, datetime

from jobd.door import Link
from jobd.job import JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_jobs, make_worker
from tests.store.conftest import Ear, Held


async def test_a_released_job_is_ready_again_as_if_it_had_never_been_claimed(
    door: Link, store: Store, reader: Reader
):
    id = await make_job(door)
    before = await reader.get(id)
    (claim,) = await store.claim(await make_worker(door), rooms={"default": 1})
    assert await store.release([(id, claim.claim_no)]) == {id}
    after = await reader.get(id)
    assert after.claim_no == before.claim_no + 2
    for name in before.__slots__:
        assert name == "claim_no" or getattr(after, name) == getattr(before, name), name


async def test_a_stale_claim_is_not_released(door: Link, store: Store, reader: Reader):
    running = await make_job(door, state="running", claim_no=5)
    ready = await make_job(door, claim_no=2)
    done = await make_job(door, state="succeeded", claim_no=2)
    before = [await reader.get(id) for id in (running, ready, done)]
    assert await store.release([(running, 3), (ready, 1), (done, 1)]) == set()
    assert [await reader.get(id) for id in (running, ready, done)] == before


async def test_a_release_ends_cancelled_when_that_was_asked(door: Link, store: Store, reader: Reader):
    asked = await make_job(door, state="running", cancel_requested_at=datetime.now(UTC))
    other = await make_job(door, state="running")
    assert await store.release([(asked, 1), (other, 1)]) == {asked, other}
    job = await reader.get(asked)
    assert (job.state, job.reason, job.claim_no) == (JobState.CANCELLED, "cancelled on request", 2)
    assert (await reader.get(other)).state is JobState.READY


async def test_a_cancel_that_commits_while_a_release_waits_for_it_wins(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running")
    await Store(held).cancel(id, reason="stop")
    assert await held.commit_under(store.release([(id, 1)])) == {id}
    assert (await reader.get(id)).state is JobState.CANCELLED


async def test_a_release_that_waits_for_a_rescue_is_stale(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running")
    await Store(held).rescue(batch=1, crash_limit=3)
    assert await held.commit_under(store.release([(id, 1)])) == set()
    job = await reader.get(id)
    assert (job.claim_no, job.attempt, job.crashes) == (2, 0, 1)


async def test_two_releases_in_opposite_order_do_not_deadlock(
    door: Link, store: Store, held: Held, reader: Reader
):
    jobs = await make_jobs(door, 20, state="running")
    await Store(held).release([(jobs[0], 1)])
    release = await held.until_it_blocks(store.release([(id, 1) for id in reversed(jobs)]))
    # Locked in the order of the ids: the waiting one holds none of the others yet.
    assert await Store(held).release([(id, 1) for id in jobs]) == set(jobs[1:])
    await held.commit()
    assert await release == set()


async def test_a_released_job_wakes_a_worker_that_sleeps(door: Link, store: Store, ear: Ear):
    await make_worker(door, sleeping_until=datetime.now(UTC) + 60 * SECOND)
    await store.release([(id, 1) for id in await make_jobs(door, 3, state="running")])
    assert await ear.heard() == [("jobd_wake", "default")]
