"""What stays of a job whose queue does not keep it: enough for waits and repeats, and the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from jobd.client import Client
from jobd.door import Link
from jobd.errors import IdTaken, JobNotFound, NotKept, PartitionMissing, WrongState
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.job import FinishedRun, JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_jobs, new_job, query, scalar
from tests.store.conftest import Held

ERROR = '{"type": "ValueError", "message": "no"}'
KEEPS = ("all", "errors", "nothing")
FAR = datetime(2031, 5, 17, 12, tzinfo=UTC)


def run(id: UUID, state: JobState = JobState.SUCCEEDED, claim_no: int = 1) -> FinishedRun:
    return FinishedRun(id=id, claim_no=claim_no, state=state, reason="why", error=ERROR)


async def succeeded(door: Link, store: Store) -> UUID:
    """A tombstone, made the usual way."""
    id = await make_job(door, state="running", queue="pings", payload={"a": 1}, tenant_id="t")
    assert await store.succeed_tersely([run(id)]) == set()
    return id


async def dies(door: Link, store: Store) -> UUID:
    id = await make_job(door, state="running", queue="pings")
    assert await store.finish([run(id, JobState.DEAD)]) == {id: JobState.DEAD}
    return id


async def cancels_itself(door: Link, store: Store) -> UUID:
    id = await make_job(door, state="running", queue="pings")
    assert await store.finish([run(id, JobState.CANCELLED)]) == {id: JobState.CANCELLED}
    return id


async def is_released_after_a_cancel(door: Link, store: Store) -> UUID:
    id = await make_job(door, state="running", queue="pings", cancel_requested_at=datetime.now(UTC))
    assert await store.release([(id, 1)]) == {id}
    return id


async def crashes_for_good(door: Link, store: Store) -> UUID:
    id = await make_job(door, state="running", queue="pings")
    assert await store.rescue(batch=10, crash_limit=1) == {id: JobState.DEAD}
    return id


async def is_rescued_after_a_cancel(door: Link, store: Store) -> UUID:
    id = await make_job(door, state="running", queue="pings", cancel_requested_at=datetime.now(UTC))
    assert await store.rescue(batch=10, crash_limit=1) == {id: JobState.CANCELLED}
    return id


async def expires(door: Link, store: Store) -> UUID:
    past = datetime.now(UTC) - 60 * SECOND
    id = await make_job(
        door, queue="pings", deadline_policy="drop", delay_tolerance=SECOND, run_at=past, deadline_at=past
    )
    assert (await store.expire(batch=10)).total() == 1
    return id


async def is_cancelled_while_it_waits(door: Link, store: Store) -> UUID:
    id = await make_job(door, queue="pings")
    assert await store.cancel(id, reason="why") is JobState.CANCELLED
    return id


END = Callable[[Link, Store], Awaitable[UUID]]
ENDS: dict[END, JobState] = {
    dies: JobState.DEAD,
    crashes_for_good: JobState.DEAD,
    expires: JobState.DEAD,
    cancels_itself: JobState.CANCELLED,
    is_released_after_a_cancel: JobState.CANCELLED,
    is_rescued_after_a_cancel: JobState.CANCELLED,
    is_cancelled_while_it_waits: JobState.CANCELLED,
}


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_an_end_that_is_no_success_is_kept_unless_its_queue_keeps_nothing(
    door: Link, store: Store, fleet: Fleet, reader: Reader, end: END, keep: str
):
    await fleet.declare_queues(["pings", "other"], [keep, "nothing"])
    job = await reader.get(await end(door, store))
    assert (job.state, job.kept, job.queue, job.kind) == (ENDS[end], keep != "nothing", "pings", "noop")
    assert job.finished_at is not None
    assert job.claim_no % 2 == 0
    if keep == "nothing":
        assert job.reason == "not kept: queue pings keeps nothing"
        assert (job.payload, job.errors, job.headers) == (None, [], {})
    else:
        assert (job.payload, job.reason != "not kept") == ({}, True)
    assert await scalar(door, "select count(*) from jobd.job_history") == (keep != "nothing")
    assert await scalar(door, "select count(*) from jobd.tombstones") == (keep == "nothing")


async def test_a_success_that_is_not_kept_leaves_its_state_and_time(door: Link, store: Store, reader: Reader):
    job = await reader.get(await succeeded(door, store))
    assert (job.state, job.kept, job.reason) == (
        JobState.SUCCEEDED,
        False,
        "not kept: queue pings keeps no successes",
    )
    assert (job.kind, job.queue, job.tenant_id, job.claim_no) == ("noop", "pings", "t", 2)
    assert job.finished_at is not None
    known = {"id", "queue", "kind", "tenant_id", "state", "claim_no", "finished_at", "reason", "kept"}
    for name in set(job.__slots__) - known:
        assert getattr(job, name) in (None, [], {}), name
    assert job.tags == []
    assert await reader.list(queue="pings", state="succeeded") == [job]


async def test_it_tells_which_claims_were_not_ours_as_succeed_does(door: Link, store: Store, reader: Reader):
    ours, theirs = await make_jobs(door, 2, state="running", queue="pings")
    gone = uuid4()
    assert await store.succeed_tersely([run(ours), run(theirs, claim_no=7), run(gone)]) == {theirs, gone}
    assert (await reader.get(theirs)).state is JobState.RUNNING
    assert await store.succeed_tersely([run(ours)]) == {ours}


async def test_of_a_terse_success_and_a_rescue_at_the_same_time_one_counts(
    door: Link, store: Store, held: Held, reader: Reader
):
    id = await make_job(door, state="running", queue="pings")
    await Store(held).rescue(batch=1, crash_limit=0)
    assert await held.commit_under(store.succeed_tersely([run(id)])) == {id}
    assert (await reader.get(id)).state is JobState.READY


async def test_a_retry_that_the_handler_wants_is_no_end(
    door: Link, store: Store, fleet: Fleet, reader: Reader
):
    await fleet.declare_queues(["pings"], ["nothing"])
    id = await make_job(door, state="running", queue="pings", payload={"a": 1})
    assert await store.finish([run(id, JobState.READY)]) == {id: JobState.READY}
    job = await reader.get(id)
    assert (job.kept, job.payload, len(job.errors)) == (True, {"a": 1}, 1)


async def test_without_a_partition_for_today_nothing_is_lost(door: Link, store: Store, fleet: Fleet):
    id = await make_job(door, state="running", queue="pings")
    with pytest.raises(PartitionMissing):
        await store.succeed_tersely([run(id)], now=FAR)
    await fleet.ensure_partitions(days=0, now=FAR)
    assert await store.succeed_tersely([run(id)], now=FAR) == set()
    found = await scalar(door, "select tableoid::regclass::text from jobd.tombstones")
    assert found == "jobd.tombstones_20310517"


async def test_a_wait_ends_with_a_tombstone(door: Link, store: Store, client: Client):
    id = await succeeded(door, store)
    job = await client.wait(id, timeout=5)
    assert (job.state, job.kept, job.result) == (JobState.SUCCEEDED, False, None)


async def test_a_repeated_enqueue_makes_nothing_new_while_there_is_a_tombstone(
    door: Link, store: Store, reader: Reader
):
    job = new_job(id=uuid7(), queue="pings", tenant_id="t")
    await store.enqueue(job)
    await query(
        door,
        "update jobd.jobs set state = 'running', claim_no = 1, worker_id = gen_random_uuid() where id = $1",
        job.id,
    )
    await store.succeed_tersely([run(job.id)])
    answer = await store.enqueue(job)
    assert (answer.id, answer.created) == (job.id, False)
    assert (await reader.get(job.id)).state is JobState.SUCCEEDED
    with pytest.raises(IdTaken):
        await store.enqueue(new_job(id=job.id, queue="pings", tenant_id="another"))
    with pytest.raises(IdTaken):
        await store.enqueue(new_job(id=job.id, queue="pings", tenant_id="t", kind="other"))


async def test_it_cannot_be_retried_and_says_why(door: Link, store: Store):
    id = await succeeded(door, store)
    with pytest.raises(NotKept, match=r"retry job .* is succeeded.*queue 'pings' did not keep") as refusal:
        await store.retry(id)
    assert (refusal.value.job_id, refusal.value.queue) == (id, "pings")
    assert isinstance(refusal.value, WrongState)


async def test_it_has_ended_for_whoever_cancels_or_reschedules_it(door: Link, store: Store):
    id = await succeeded(door, store)
    with pytest.raises(WrongState, match="cancel takes a job that has not ended"):
        await store.cancel(id, reason="why")
    with pytest.raises(WrongState, match="reschedule takes a waiting job"):
        await store.reschedule(id, priority=1)


async def test_it_can_be_deleted(door: Link, store: Store, reader: Reader):
    id = await succeeded(door, store)
    await store.delete(id)
    with pytest.raises(JobNotFound):
        await reader.get(id)
    assert (await store.enqueue(new_job(id=id, queue="pings", tenant_id="t"))).created


async def test_the_process_that_declares_a_queue_last_says_what_it_keeps(door: Link, fleet: Fleet):
    kept = "select keep from jobd.queues where name = 'pings'"
    for keep in ("nothing", "errors", "all", "all"):
        await fleet.declare_queues(["pings"], [keep])
        assert await scalar(door, kept) == keep


async def test_a_tombstone_outlives_the_job_by_a_day_at_least(door: Link, store: Store, fleet: Fleet):
    await fleet.ensure_partitions(days=0, now=FAR)
    id = await make_job(door, state="running", queue="pings")
    ended = datetime(2031, 5, 16, 0, 0, 1, tzinfo=UTC)
    await store.succeed_tersely([run(id)], now=ended)
    late = timedelta(days=1) - SECOND
    assert "tombstones_20310516" not in dict(await store.prune(retention=timedelta(1), now=ended + late))
