"""claim: ready -> running, each job to one worker, in order, and only with a live lease."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.fleet import Fleet
from jobd.job import Floor, JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import LEASE, SECOND, claim_all, make_job, make_jobs, make_worker, query
from tests.store.conftest import Held


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door)


async def ids(store: Store, worker: UUID, room: int = 10, **options: object) -> list[UUID]:
    claims = await claim_all(store, worker, rooms={"default": room}, **options)  # type: ignore[arg-type]
    return [claim.id for claim in claims]


async def test_claim_makes_a_ready_job_running(door: Link, store: Store, reader: Reader, worker: UUID):
    id = await make_job(door, payload={"n": 1}, headers={"tags": ["a"]}, claim_no=4, attempt=2)
    (claim,) = await store.claim(worker, rooms={"default": 1})
    job = await reader.get(id)
    assert (job.state, job.worker_id, job.claim_no, job.attempt) == (JobState.RUNNING, worker, 5, 3)
    assert (claim.id, claim.claim_no, claim.attempt, claim.payload) == (id, 5, 3, '{"n": 1}')
    assert claim.claimed_at == job.claimed_at


async def test_claim_takes_higher_priority_first_and_the_earlier_deadline_within_it(
    door: Link, store: Store, worker: UUID
):
    now = datetime.now(UTC)
    last = await make_job(door, priority=-1, run_at=now - 60 * SECOND)
    third = await make_job(door, run_at=now)
    second = await make_job(door, run_at=now - SECOND)
    first = await make_job(door, priority=7, run_at=now)
    assert await ids(store, worker) == [first, second, third, last]


async def test_a_delay_tolerance_sorts_a_job_behind_those_without(door: Link, store: Store, worker: UUID):
    tolerant = await make_job(door, delay_tolerance=60 * SECOND)
    prompt = await make_job(door)
    assert await ids(store, worker) == [prompt, tolerant]


async def test_equal_jobs_are_claimed_in_the_order_of_their_ids(door: Link, store: Store, worker: UUID):
    expected = await make_jobs(door, 6, run_at=datetime.now(UTC))
    assert await ids(store, worker, room=4) == expected[:4]
    assert await ids(store, worker, room=4) == expected[4:]


async def test_each_queue_gets_its_own_room(door: Link, store: Store, worker: UUID):
    for queue in ("a", "b", "c"):
        await make_jobs(door, 5, queue=queue)
    claims = await store.claim(worker, rooms={"a": 2, "b": 4, "c": 0})
    taken = [claim.queue for claim in claims]
    assert {queue: taken.count(queue) for queue in ("a", "b", "c")} == {"a": 2, "b": 4, "c": 0}


async def test_a_job_is_claimed_once_by_two_workers_that_claim_at_the_same_time(
    door: Link, store: Store, held: Held, worker: UUID
):
    jobs = await make_jobs(door, 6)
    other = await make_worker(door)
    mine = await Store(held).claim(worker, rooms={"default": 4})
    theirs = await store.claim(other, rooms={"default": 4})
    await held.commit()
    assert [claim.id for claim in mine] == jobs[:4]
    assert [claim.id for claim in theirs] == jobs[4:]


async def test_a_claim_that_is_rolled_back_leaves_the_job_ready(
    door: Link, store: Store, held: Held, worker: UUID
):
    id = await make_job(door)
    await Store(held).claim(worker, rooms={"default": 1})
    await held.rollback()
    (claim,) = await store.claim(worker, rooms={"default": 1})
    assert (claim.id, claim.claim_no) == (id, 1)


async def test_jobs_that_are_not_ready_are_not_claimed(door: Link, store: Store, worker: UUID):
    for state in ("scheduled", "running", "succeeded", "cancelled", "dead"):
        await make_job(door, state=state, run_at=datetime.now(UTC) - SECOND)
    assert await ids(store, worker) == []


async def test_a_paused_queue_is_not_claimed_from_until_it_is_resumed(
    door: Link, store: Store, fleet: Fleet, worker: UUID
):
    id = await make_job(door)
    other = await make_job(door, queue="other")
    await fleet.pause("default", by="somebody")
    assert [claim.id for claim in await store.claim(worker, rooms={"default": 5, "other": 5})] == [other]
    await fleet.resume("default")
    assert await ids(store, worker) == [id]


async def test_suspects_of_a_paused_queue_wait_too(door: Link, store: Store, fleet: Fleet, worker: UUID):
    await make_job(door, crashes=1)
    await fleet.pause("default", by=None)
    assert await ids(store, worker, suspects=1) == []


async def test_kinds_that_are_full_or_unknown_are_left_for_others(door: Link, store: Store, worker: UUID):
    await make_jobs(door, 3, kind="full")
    await make_job(door, kind="full", crashes=1)
    free = await make_job(door, kind="free")
    assert await ids(store, worker, skipped_kinds=["full", "unknown"], suspects=1) == [free]


async def test_kinds_with_a_limit_come_only_through_the_room_that_is_theirs(
    door: Link, store: Store, worker: UUID
):
    limited = await make_jobs(door, 5, kind="limited")
    free = await make_jobs(door, 5, kind="free")
    claims = await store.claim(
        worker, rooms={"default": 3}, limited_rooms={"default": 2}, limited_kinds=["limited"]
    )
    assert [claim.id for claim in claims] == limited[:2] + free[:3]


async def test_the_two_rooms_of_a_queue_never_give_a_job_twice(door: Link, store: Store, worker: UUID):
    free = await make_jobs(door, 5, kind="free")
    claims = await store.claim(
        worker, rooms={"default": 3}, limited_rooms={"default": 2}, limited_kinds=["limited"]
    )
    assert [claim.id for claim in claims] == free[:3]
    assert {claim.claim_no for claim in claims} == {1}


async def test_at_most_so_many_jobs_that_crashed_a_worker_come_along(door: Link, store: Store, worker: UUID):
    suspects = {await make_job(door, queue=queue, crashes=1) for queue in ("a", "a", "b")}
    good = set(await make_jobs(door, 2, queue="a"))
    rooms = {"a": 10, "b": 10}
    assert {claim.id for claim in await claim_all(store, worker, rooms=rooms, suspects=0)} == good
    (first,) = await claim_all(store, worker, rooms=rooms, suspects=1)
    (second,) = await claim_all(store, worker, rooms=rooms, suspects=1)
    (third,) = await claim_all(store, worker, rooms=rooms, suspects=1)
    assert {first.id, second.id, third.id} == suspects


async def test_victims_of_fewer_crashes_are_claimed_up_to_the_rooms(door: Link, store: Store, worker: UUID):
    victims = set(await make_jobs(door, 5, crashes=1))
    suspect = await make_job(door, crashes=2)
    good = set(await make_jobs(door, 2))
    claims = await claim_all(store, worker, rooms={"default": 3}, suspects=1, suspect_from=2)
    taken = {claim.id for claim in claims}
    assert taken >= good | {suspect}
    assert len(taken & victims) == 3


async def test_of_the_jobs_that_crashed_a_worker_the_most_urgent_comes_first(
    door: Link, store: Store, worker: UUID
):
    first = await make_job(door, crashes=1)
    urgent = await make_job(door, crashes=1, priority=9)
    last = await make_job(door, crashes=2)
    assert [(await ids(store, worker, suspects=1))[0] for _ in range(3)] == [urgent, first, last]


async def test_a_worker_without_a_row_claims_nothing(door: Link, store: Store):
    await make_job(door)
    await make_job(door, crashes=1)
    assert await ids(store, uuid4(), suspects=1) == []


async def test_a_worker_whose_lease_lapsed_claims_nothing_until_it_is_renewed(
    door: Link, store: Store, fleet: Fleet
):
    id = await make_job(door)
    worker = await make_worker(door, lease=-SECOND)
    assert await ids(store, worker, suspects=1) == []
    await fleet.beat(worker, lease=LEASE)
    assert await ids(store, worker) == [id]


async def test_the_lease_is_judged_by_the_time_of_the_claim(door: Link, store: Store, worker: UUID):
    id = await make_job(door)
    assert await ids(store, worker, now=datetime.now(UTC) + 2 * LEASE) == []
    assert await ids(store, worker, now=datetime.now(UTC)) == [id]


async def test_a_job_of_policy_drop_is_not_started_after_its_deadline(door: Link, store: Store, worker: UUID):
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    late: dict[str, Any] = {"run_at": long_ago, "delay_tolerance": 60 * SECOND}
    await make_job(door, deadline_policy="drop", **late)
    await make_job(door, deadline_policy="drop", crashes=1, **late)
    runs_anyway = await make_job(door, deadline_policy="run", **late)
    in_time = await make_job(
        door, deadline_policy="drop", run_at=long_ago, delay_tolerance=timedelta(hours=2)
    )
    without_tolerance = await make_job(door, deadline_policy="drop", run_at=long_ago)
    claimed = await ids(store, worker, suspects=1)
    assert set(claimed) == {runs_anyway, in_time, without_tolerance}


async def test_an_empty_claim_is_a_question_without_an_answer(store: Store, worker: UUID):
    assert await store.claim(worker, rooms={}) == []
    assert await store.claim(worker, rooms={"default": 0}) == []


async def test_claims_use_the_time_that_is_passed(door: Link, store: Store, worker: UUID):
    await make_job(door)
    now = datetime.now(UTC) + SECOND
    (claim,) = await store.claim(worker, rooms={"default": 1}, now=now)
    assert claim.claimed_at == now


async def test_a_claim_survives_a_worker_that_is_reaped_meanwhile_as_an_orphan(
    door: Link, store: Store, held: Held, worker: UUID
):
    """The claim does not lock the worker's row: whoever loses this race is found by the next rescue."""
    id = await make_job(door)
    await Store(held).claim(worker, rooms={"default": 1})
    await query(door, "delete from jobd.workers where id = $1", worker)
    assert await store.rescue(batch=10, crash_limit=3) == {}
    await held.commit()
    assert await store.rescue(batch=10, crash_limit=3) == {id: JobState.READY}


async def test_a_floor_passes_over_what_lies_before_it_but_never_over_a_higher_priority(
    door: Link, store: Store, worker: UUID
):
    await make_job(door, priority=1, run_at=datetime.now(UTC) - 9 * SECOND)
    low = await make_job(door, priority=-1)
    jobs = [await make_job(door, run_at=datetime.now(UTC) - (9 - place) * SECOND) for place in range(4)]
    _, first, second = await store.claim(worker, rooms={"default": 3})
    assert [first.id, second.id] == jobs[:2]
    floor = Floor(second.priority, second.deadline_at, second.id)
    before = await make_job(door, run_at=first.run_at)
    high = await make_job(door, priority=5)
    claims = await store.claim(worker, rooms={"default": 9}, floors={"default": floor})
    assert [claim.id for claim in claims] == [high, *jobs[2:]]
    assert [claim.id for claim in await store.claim(worker, rooms={"default": 9})] == [before, low]


async def test_above_and_from_the_floor_together_give_no_more_than_the_room(
    door: Link, store: Store, worker: UUID
):
    jobs = await make_jobs(door, 4, run_at=datetime.now(UTC) - SECOND)
    high = await make_jobs(door, 3, priority=1)
    floor = Floor(0, datetime.now(UTC) - 60 * SECOND, jobs[0])
    claims = await store.claim(worker, rooms={"default": 5}, floors={"default": floor})
    assert [claim.id for claim in claims] == [*high, *jobs[:2]]
