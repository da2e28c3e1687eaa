"""The moves of many jobs at once, batch by batch: what they do to each, and to what others hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from jobd.door import Link
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.job import FinishedRun, JobState
from jobd.reader import Reader
from jobd.store import Store
from jobd.sweeps import Moved, Sweeps
from tests.factories import SECOND, make_job, make_jobs, make_worker, query, scalar
from tests.store.conftest import Ear, Held

DAY = timedelta(days=1)
ENDED = ["succeeded", "cancelled", "dead"]
WAITING = ["scheduled", "ready"]
WAITS = frozenset({JobState.SCHEDULED, JobState.READY})
LIVING = WAITS | {JobState.RUNNING}


@pytest.fixture
def sweeps(door: Link) -> Sweeps:
    return Sweeps(door)


@pytest.fixture
async def audit_id(sweeps: Sweeps) -> UUID:
    id = uuid7()
    await sweeps.begin_audit(id, who="me", verb="test", filter="{}", change="{}")
    return id


def around() -> dict[str, datetime]:
    now = datetime.now(UTC)
    return {"since": now - DAY, "until": now + DAY}


Act = Callable[[Sweeps, Sequence[UUID], UUID], Awaitable[Moved]]

LIVE: dict[str, Act] = {
    "cancel_many": lambda sweeps, ids, audit: sweeps.cancel_many(
        ids, states=LIVING, reason="x", audit_id=audit
    ),
    "reschedule_many": lambda sweeps, ids, audit: sweeps.reschedule_many(
        ids, states=WAITS, run_at=None, priority=9, audit_id=audit
    ),
    "move_many": lambda sweeps, ids, audit: sweeps.move_many(
        ids, states=WAITS, queue="other", audit_id=audit
    ),
    "delete_many": lambda sweeps, ids, audit: sweeps.delete_many(ids, states=WAITS, audit_id=audit),
}
PAST: dict[str, Act] = {
    "retry_many": lambda sweeps, ids, audit: sweeps.retry_many(ids, audit_id=audit, **around()),
    "delete_past": lambda sweeps, ids, audit: sweeps.delete_past(ids, audit_id=audit, **around()),
}
each_move = pytest.mark.parametrize("move", [*LIVE, *PAST])


def state_for(move: str) -> str:
    return "ready" if move in LIVE else "dead"


@each_move
async def test_a_batch_is_counted_in_the_audit_once(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID, move: str
):
    ids = await make_jobs(door, 3, state=state_for(move))
    act = {**LIVE, **PAST}[move]
    first = await act(sweeps, ids[:2], audit_id)
    assert (first.changed, first.busy, first.held) == (2, [], 0)
    assert (await act(sweeps, ids, audit_id)).changed == 1
    assert (await act(sweeps, ids, audit_id)).changed == 0
    (entry,) = await reader.audits()
    assert (entry.id, entry.jobs, entry.ended_at) == (audit_id, 3, None)


@each_move
async def test_what_somebody_else_has_locked_is_told_and_waits_for_nobody(
    door: Link, sweeps: Sweeps, held: Held, audit_id: UUID, move: str
):
    locked, free = await make_jobs(door, 2, state=state_for(move))
    await Store(held).delete(locked)
    moved = await {**LIVE, **PAST}[move](sweeps, [locked, free], audit_id)
    assert (moved.changed, moved.busy) == (1, [locked])
    await held.rollback()
    assert (await {**LIVE, **PAST}[move](sweeps, moved.busy, audit_id)).changed == 1


@pytest.mark.parametrize("move", LIVE)
async def test_jobs_that_have_ended_stay_as_they_are(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID, move: str
):
    ids = [await make_job(door, state=state) for state in ENDED]
    before = [await reader.get(id) for id in ids]
    assert (await LIVE[move](sweeps, ids, audit_id))[:2] == (0, [])
    assert [await reader.get(id) for id in ids] == before


@pytest.mark.parametrize("move", [*PAST, "reschedule_many", "move_many", "delete_many"])
async def test_a_running_job_is_left_alone(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID, move: str
):
    id = await make_job(door, state="running")
    before = await reader.get(id)
    assert (await {**LIVE, **PAST}[move](sweeps, [id], audit_id))[:2] == (0, [])
    assert await reader.get(id) == before


@pytest.mark.parametrize("move", PAST)
@pytest.mark.parametrize("state", WAITING)
async def test_a_waiting_job_is_no_part_of_the_past(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID, move: str, state: str
):
    id = await make_job(door, state=state)
    before = await reader.get(id)
    assert (await PAST[move](sweeps, [id], audit_id))[:2] == (0, [])
    assert await reader.get(id) == before


@pytest.mark.parametrize("move", PAST)
async def test_what_ended_outside_the_time_is_left_alone(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID, move: str
):
    id = await make_job(door, state="dead")
    ended = (await reader.get(id)).finished_at
    assert ended is not None
    act = sweeps.retry_many if move == "retry_many" else sweeps.delete_past
    assert (await act([id], since=ended - DAY, until=ended, audit_id=audit_id)).changed == 0
    assert (await act([id], since=ended + SECOND, until=ended + DAY, audit_id=audit_id)).changed == 0
    assert (await act([id], since=ended, until=ended + SECOND, audit_id=audit_id)).changed == 1


async def ended_by(door: Link, move: Callable[[UUID], Awaitable[Any]], **columns: Any) -> dict[str, Any]:
    """The row of a job after a move, without what differs between any two jobs."""
    id = await make_job(door, **columns)
    await move(id)
    (row,) = await query(door, "select * from jobd.all_jobs where id = $1", id)
    moments = {"id", "created_at", "claimed_at", "run_at", "deadline_at", "finished_at", "worker_id"}
    return {name: value for name, value in row.items() if name not in moments}


@pytest.mark.parametrize("state", WAITING)
async def test_a_job_cancelled_with_others_is_as_one_cancelled_alone(
    door: Link, store: Store, sweeps: Sweeps, audit_id: UUID, state: str
):
    columns: dict[str, Any] = {
        "state": state, "claim_no": 2, "attempt": 1, "errors": [{"type": "E"}], "headers": {"tags": ["a"]},
    }  # fmt: skip
    alone = await ended_by(door, lambda id: store.cancel(id, reason="no"), **columns)
    with_others = await ended_by(
        door, lambda id: sweeps.cancel_many([id], states=WAITS, reason="no", audit_id=audit_id), **columns
    )
    assert with_others == alone
    assert alone["reason"] == "no"


async def test_a_job_retried_with_others_is_as_one_retried_alone(
    door: Link, store: Store, sweeps: Sweeps, audit_id: UUID
):
    columns: dict[str, Any] = {
        "state": "dead", "claim_no": 8, "attempt": 10, "crashes": 2, "generation": 3, "payload": {"a": 1},
        "errors": [{"type": "E"}], "priority": 5, "tenant_id": "t", "headers": {"tags": ["x"]},
        "max_attempts": 10, "timeout": 5 * SECOND, "delay_tolerance": 60 * SECOND, "result": 1, "reason": "y",
        "progress": {"fraction": 1}, "backoff": {"kind": "linear"}, "use_case": "u", "concurrency_key": "c",
        "deadline_policy": "drop", "queue": "q", "kind": "k",
    }  # fmt: skip
    alone = await ended_by(door, store.retry, **columns)
    with_others = await ended_by(
        door, lambda id: sweeps.retry_many([id], audit_id=audit_id, **around()), **columns
    )
    assert with_others == alone
    assert (alone["state"], alone["generation"], alone["attempt"]) == ("ready", 4, 0)


@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize("shift", [None, 60 * SECOND, -SECOND])
@pytest.mark.parametrize("priority", [None, 7])
async def test_a_job_rescheduled_with_others_is_as_one_rescheduled_alone(
    door: Link,
    store: Store,
    sweeps: Sweeps,
    reader: Reader,
    audit_id: UUID,
    state: str,
    shift: timedelta | None,
    priority: int | None,
):
    now = datetime.now(UTC)
    run_at = None if shift is None else now + shift
    alone, other = await make_jobs(door, 2, state=state, delay_tolerance=5 * SECOND, run_at=now + 9 * SECOND)
    await store.reschedule(alone, run_at=run_at, priority=priority, now=now)
    await sweeps.reschedule_many(
        [other], states=WAITS, run_at=run_at, priority=priority, audit_id=audit_id, now=now
    )
    told = [
        (job.state, job.run_at, job.deadline_at, job.priority)
        for job in (await reader.get(alone), await reader.get(other))
    ]
    assert told[0] == told[1]


async def test_the_workers_of_running_jobs_are_asked_once(
    door: Link, sweeps: Sweeps, reader: Reader, ear: Ear, audit_id: UUID
):
    ids = await make_jobs(door, 2, state="running")
    first = await sweeps.cancel_many(ids, states=LIVING, reason="stop", audit_id=audit_id)
    assert (first.changed, first.asked) == (2, 2)
    asked_at = [(await reader.get(id)).cancel_requested_at for id in ids]
    again = await sweeps.cancel_many(ids, states=LIVING, reason="again", audit_id=audit_id)
    assert (again.changed, again.busy) == (0, [])
    assert [(await reader.get(id)).cancel_requested_at for id in ids] == asked_at
    assert await scalar(door, "select array_agg(distinct cancel_reason) from jobd.jobs") == ["stop"]
    assert sorted(await ear.heard()) == sorted(("jobd_cancel", str(id)) for id in ids)


async def test_running_jobs_are_left_alone_unless_they_are_meant(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID
):
    id = await make_job(door, state="running")
    assert (await sweeps.cancel_many([id], states=WAITS, reason="x", audit_id=audit_id)).changed == 0
    assert (await reader.get(id)).cancel_requested_at is None


@pytest.mark.parametrize("found", WAITING)
async def test_a_job_that_is_in_another_state_by_now_is_left_alone(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID, found: str
):
    """As one that ran when the page was read, and waits for another attempt now."""
    id = await make_job(door, state=found)
    before = await reader.get(id)
    other: dict[str, Any] = {"states": LIVING - {JobState(found)}, "audit_id": audit_id}
    for moved in (
        await sweeps.cancel_many([id], reason="x", **other),
        await sweeps.reschedule_many([id], run_at=None, priority=9, **other),
        await sweeps.move_many([id], queue="other", **other),
        await sweeps.delete_many([id], **other),
    ):
        assert moved[:2] == (0, [])
    assert await reader.get(id) == before


async def test_a_cancelled_job_of_a_queue_that_keeps_nothing_leaves_a_tombstone(
    door: Link, sweeps: Sweeps, fleet: Fleet, reader: Reader, audit_id: UUID
):
    await fleet.declare_queues(["pings"], ["nothing"])
    pinged, other = await make_job(door, queue="pings"), await make_job(door)
    await sweeps.cancel_many([pinged, other], states=LIVING, reason="x", audit_id=audit_id)
    assert [(await reader.get(id)).kept for id in (pinged, other)] == [False, True]
    assert (await reader.get(pinged)).state is JobState.CANCELLED


async def test_a_job_that_is_claimed_meanwhile_is_busy_and_then_asked(
    door: Link, sweeps: Sweeps, held: Held, audit_id: UUID
):
    id = await make_job(door)
    await Store(held).claim(await make_worker(door), rooms={"default": 1})
    moved = await sweeps.cancel_many([id], states=LIVING, reason="x", audit_id=audit_id)
    assert (moved.changed, moved.busy) == (0, [id])
    await held.commit()
    moved = await sweeps.cancel_many([id], states=LIVING, reason="x", audit_id=audit_id)
    assert (moved.changed, moved.asked) == (1, 1)


async def test_a_move_puts_jobs_where_workers_of_that_queue_wake_up(
    door: Link, sweeps: Sweeps, reader: Reader, ear: Ear, audit_id: UUID
):
    await make_worker(door, queues=["other"], sleeping_until=datetime.now(UTC) + 60 * SECOND)
    ready, scheduled = await make_job(door), await make_job(door, state="scheduled")
    before = await reader.get(scheduled)
    assert (
        await sweeps.move_many([ready, scheduled], states=WAITS, queue="other", audit_id=audit_id)
    ).changed == 2
    assert await ear.heard() == [("jobd_wake", "other")]
    after = await reader.get(scheduled)
    assert (after.queue, after.state, after.run_at) == ("other", before.state, before.run_at)
    (claim,) = await Store(door).claim(await make_worker(door), rooms={"other": 5})
    assert claim.id == ready


@pytest.mark.parametrize(
    ("before", "after"), [("waiting", "lost"), ("lost", "lost"), ("24:00:00", "24:00:00")]
)
async def test_a_key_of_another_scope_is_not_taken_for_one_of_an_unfinished_job(
    door: Link, sweeps: Sweeps, audit_id: UUID, before: str, after: str
):
    one, other = await make_jobs(door, 2, state="dead", unique_key="k", unique_for=before)
    done = await sweeps.retry_many([one, other], audit_id=audit_id, **around())
    assert done.changed == 2
    rows = await query(door, "select unique_for from jobd.jobs")
    assert [row["unique_for"] for row in rows] == [after, after]


async def test_jobs_whose_unique_key_is_held_stay_and_hold_up_no_other(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID
):
    await make_job(door, unique_key="taken")
    held = await make_job(door, state="dead", unique_key="taken")
    first, second = await make_jobs(door, 2, state="dead", unique_key="twice")
    free = await make_job(door, state="dead", unique_key="free")
    moved = await sweeps.retry_many([held, first, second, free], audit_id=audit_id, **around())
    assert (moved.changed, moved.held, moved.busy) == (2, 2, [])
    states = {id: (await reader.get(id)).state for id in (held, first, second, free)}
    assert states == {
        held: JobState.DEAD,
        first: JobState.READY,
        second: JobState.DEAD,
        free: JobState.READY,
    }
    assert (await reader.audits())[0].jobs == 2


async def test_retried_jobs_wake_a_worker_and_are_claimed_with_new_numbers(
    door: Link, store: Store, sweeps: Sweeps, ear: Ear, audit_id: UUID
):
    worker = await make_worker(door, sleeping_until=datetime.now(UTC) + 60 * SECOND)
    ids = await make_jobs(door, 2, state="dead", claim_no=8)
    await sweeps.retry_many(ids, audit_id=audit_id, **around())
    assert await ear.heard() == [("jobd_wake", "default")]
    claims = await store.claim(worker, rooms={"default": 5})
    assert [(claim.id, claim.claim_no, claim.attempt) for claim in claims] == [(id, 9, 1) for id in ids]


async def make_schedule(door: Link, id: str) -> None:
    await query(
        door,
        "insert into jobd.schedules (id, owner, expression, kind, decided_until)"
        " values ($1, 'api', '@daily', 'k', now())",
        id,
    )


async def test_a_retried_job_counts_for_its_schedule_again(door: Link, sweeps: Sweeps, audit_id: UUID):
    for name in ("hourly", "daily"):
        await make_schedule(door, name)
    hourly = await make_jobs(door, 2, state="dead", headers={"schedule": "hourly"})
    daily = await make_jobs(door, 1, state="dead", headers={"schedule": "daily"})
    gone = await make_jobs(door, 1, state="dead", headers={"schedule": "gone"})
    moved = await sweeps.retry_many([*hourly, *daily, *gone], audit_id=audit_id, **around())
    assert (moved.changed, moved.busy) == (4, [])
    rows = await query(door, "select id, open_jobs from jobd.schedules")
    assert {row["id"]: set(row["open_jobs"]) for row in rows} == {"hourly": {*hourly}, "daily": {*daily}}


async def test_jobs_of_a_schedule_that_somebody_has_locked_are_busy(
    door: Link, sweeps: Sweeps, held: Held, audit_id: UUID
):
    await make_schedule(door, "hourly")
    locked = await make_job(door, state="dead", headers={"schedule": "hourly"})
    free = await make_job(door, state="dead")
    await query(held, "select from jobd.schedules for update")
    moved = await sweeps.retry_many([locked, free], audit_id=audit_id, **around())
    assert (moved.changed, moved.busy) == (1, [locked])
    await held.commit()
    assert (await sweeps.retry_many(moved.busy, audit_id=audit_id, **around())).changed == 1


async def test_a_run_that_ends_while_its_job_is_asked_to_stop_is_still_written(
    door: Link, store: Store, sweeps: Sweeps, reader: Reader, held: Held, audit_id: UUID
):
    id = await make_job(door, state="running")
    await Sweeps(held).cancel_many([id], states=LIVING, reason="x", audit_id=audit_id)
    ended = FinishedRun(id=id, claim_no=1, state=JobState.SCHEDULED, delay=SECOND)
    assert await held.commit_under(store.finish([ended])) == {id: JobState.CANCELLED}


async def test_an_operation_is_put_down_once_and_forgotten_after_400_days(
    door: Link, sweeps: Sweeps, reader: Reader, audit_id: UUID
):
    await sweeps.begin_audit(audit_id, who="other", verb="test", filter="{}", change="{}")
    await query(door, "update jobd.audit set at = now() - interval '401 days'")
    newer = uuid7()
    await sweeps.begin_audit(newer, who="me", verb="cancel", filter='{"queue": ["a"]}', change='{"a": 1}')
    await sweeps.end_audit(newer)
    (entry,) = await reader.audits()
    assert (entry.id, entry.who, entry.verb, entry.jobs) == (newer, "me", "cancel", 0)
    assert (entry.filter, entry.change) == ({"queue": ["a"]}, {"a": 1})
    assert entry.ended_at is not None
    assert entry.ended_at >= entry.at
