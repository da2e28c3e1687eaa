"""explain: why a job is where it is, one test for each answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.errors import JobNotFound
from jobd.reader import Reader
from jobd.standing import Reason, Why
from tests.factories import SECOND, make_job, make_jobs, make_worker, query


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door, queues=["default"], kinds=["noop"])


async def told(reader: Reader, id: UUID) -> list[Reason]:
    explanation = await reader.explain(id)
    assert explanation.id == id
    return list(explanation.reasons)


async def first(reader: Reader, id: UUID, why: Why) -> str:
    """The text of the reason, which has to be the first."""
    reasons = await told(reader, id)
    assert reasons[0].why == why, reasons
    return reasons[0].text


async def whys(reader: Reader, id: UUID) -> list[Why]:
    return [reason.why for reason in await told(reader, id)]


async def test_nothing_holds_it_up(door: Link, reader: Reader, worker: UUID):
    assert "among the next" in await first(reader, await make_job(door), Why.NEXT)


async def test_due_in_three_minutes(door: Link, reader: Reader, worker: UUID):
    run_at = datetime.now(UTC) + timedelta(minutes=3, seconds=0.9)
    id = await make_job(door, state="scheduled", run_at=run_at)
    assert await first(reader, id, Why.NOT_DUE) == "it is due in 3m"
    assert (await told(reader, id))[0].until == run_at


async def test_due_and_not_made_ready_yet(door: Link, reader: Reader, worker: UUID):
    id = await make_job(door, state="scheduled", run_at=datetime.now(UTC) - 5.5 * SECOND)
    assert "due since 5s" in await first(reader, id, Why.STAGING)


async def test_waiting_for_its_next_attempt_because_of_an_error(door: Link, reader: Reader, worker: UUID):
    error = {"attempt": 2, "type": "ValueError", "message": "no such user\nmore", "traceback": None}
    id = await make_job(door, state="scheduled", attempt=2, claim_no=4, errors=[error])
    text = await first(reader, id, Why.RETRY)
    assert "for attempt 3, because attempt 2 failed (ValueError: no such user)" in text


async def test_put_back_by_its_handler(door: Link, reader: Reader, worker: UUID):
    id = await make_job(door, state="scheduled", attempt=0, claim_no=2)
    assert "was put back" in await first(reader, id, Why.SNOOZED)


async def test_its_queue_is_paused_by_somebody(door: Link, reader: Reader, worker: UUID):
    await query(
        door,
        "insert into jobd.queues (name, paused_at, paused_by)"
        " values ('default', now() - interval '2 min', 'kim')",
    )
    text = await first(reader, await make_job(door), Why.QUEUE_PAUSED)
    assert text.startswith("queue default is paused for 2m") and "by kim" in text


async def test_nobody_works(door: Link, reader: Reader):
    assert "jobd run" in await first(reader, await make_job(door), Why.NO_WORKER)
    await make_worker(door, lease=-SECOND)
    await make_worker(door, stopping_at=datetime.now(UTC))
    await make_worker(door, roles=["scheduler"])
    assert await whys(reader, await make_job(door, state="scheduled")) == [Why.NOT_DUE, Why.NO_WORKER]


async def test_what_holds_a_job_up_that_is_not_due_yet_is_told_beside_that(
    door: Link, reader: Reader, worker: UUID
):
    await query(door, "insert into jobd.queues (name, paused_at, paused_by) values ('default', now(), 'kim')")
    assert await whys(reader, await make_job(door, state="scheduled")) == [Why.NOT_DUE, Why.QUEUE_PAUSED]
    elsewhere = await make_job(door, state="scheduled", queue="mail")
    assert await whys(reader, elsewhere) == [Why.NOT_DUE, Why.NOT_SERVED]


async def test_a_due_job_of_a_paused_queue_waits_for_its_queue(door: Link, reader: Reader, worker: UUID):
    await query(door, "insert into jobd.queues (name, paused_at, paused_by) values ('default', now(), 'kim')")
    id = await make_job(door, state="scheduled", run_at=datetime.now(UTC) - SECOND)
    assert await whys(reader, id) == [Why.QUEUE_PAUSED, Why.STAGING]


async def test_a_kind_that_a_worker_did_not_know_and_put_back_is_told_first(
    door: Link, reader: Reader, worker: UUID
):
    id = await make_job(
        door, kind="later", state="scheduled", attempt=0, claim_no=2, run_at=datetime.now(UTC) + 15.9 * SECOND
    )
    assert "has a handler for kind later" in await first(reader, id, Why.KIND_UNKNOWN)
    assert await whys(reader, id) == [Why.KIND_UNKNOWN, Why.SNOOZED]


async def test_nobody_serves_its_queue(door: Link, reader: Reader, worker: UUID):
    id = await make_job(door, queue="mail")
    assert "none of 1 live workers serves queue mail" in await first(reader, id, Why.NOT_SERVED)


async def test_nobody_knows_its_kind(door: Link, reader: Reader, worker: UUID):
    id = await make_job(door, kind="later")
    assert "has a handler for kind later" in await first(reader, id, Why.KIND_UNKNOWN)


async def test_its_key_is_taken_and_by_which(door: Link, reader: Reader, worker: UUID):
    await query(door, "insert into jobd.kinds (name, key_limit) values ('noop', 2)")
    running = [
        await make_job(door, state="running", concurrency_key="user:7", worker_id=worker) for _ in range(2)
    ]
    text = await first(reader, await make_job(door, concurrency_key="user:7"), Why.KEY_FULL)
    assert text.startswith("key user:7 has 2 of 2 running: ")
    assert all(str(id) in text for id in running)


async def test_a_key_with_a_high_limit_is_told_as_full_and_not_as_next(
    door: Link, reader: Reader, worker: UUID
):
    await query(door, "insert into jobd.kinds (name, key_limit) values ('noop', 30)")
    for _ in range(30):
        await make_job(door, state="running", concurrency_key="k", worker_id=await make_worker(door))
    (reason,) = await told(reader, await make_job(door, concurrency_key="k"))
    assert reason.why == Why.KEY_FULL and reason.text.startswith("key k has 30 of 30 running: ")


async def test_another_of_its_key_is_before_it(door: Link, reader: Reader, worker: UUID):
    await query(door, "insert into jobd.kinds (name, ordered) values ('noop', true)")
    before = await make_job(door, state="scheduled", claim_no=2, concurrency_key="user:7")
    text = await first(reader, await make_job(door, concurrency_key="user:7"), Why.KEY_ORDER)
    assert str(before) in text


@pytest.mark.parametrize(
    ("table", "columns", "why", "what"),
    [
        ("use_cases (name, max_running)", {"use_case": "x"}, Why.USE_CASE_FULL, "use case"),
        ("tenants (id, max_running)", {"tenant_id": "x"}, Why.TENANT_FULL, "tenant"),
        ("queues (name, max_running)", {"queue": "x"}, Why.QUEUE_FULL, "queue"),
    ],
)
async def test_a_limit_is_reached(
    door: Link, reader: Reader, table: str, columns: dict[str, Any], why: Why, what: str
):
    worker = await make_worker(door, queues=["default", "x"], kinds=["noop"])
    await query(door, f"insert into jobd.{table} values ('x', 1)")
    await make_job(door, state="running", worker_id=worker, **columns)
    assert await first(reader, await make_job(door, **columns), why) == f"{what} x has 1 of 1 running"


@pytest.mark.parametrize("scope", ["queue", "tenant", "key"])
async def test_a_rate_is_spent(door: Link, reader: Reader, worker: UUID, scope: str):
    columns = "rate_count, rate_period, rate_burst"
    values = "10, interval '1 min', 1"
    for table, name in (("queues", "default"), ("tenants", "t"), ("kinds", "noop")):
        key = "id" if table == "tenants" else "name"
        await query(door, f"insert into jobd.{table} ({key}, {columns}) values ('{name}', {values})")
    name = {"queue": "default", "tenant": "t", "key": "k"}[scope]
    await query(door, "insert into jobd.rates values ($1, $2, now() + interval '4.9 s')", scope, name)
    id = await make_job(door, tenant_id="t", concurrency_key="k")
    assert f"{scope} {name} has spent its rate: the next may start in 4s" == await first(reader, id, Why.RATE)


async def test_behind_others(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    await make_jobs(door, 3, run_at=now - SECOND)
    await make_jobs(door, 2, priority=5)
    text = await first(reader, await make_job(door, run_at=now), Why.BEHIND)
    assert text == "5 jobs are before it, 2 of them at a higher priority"


async def test_behind_others_and_for_about_how_long(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    for n in range(20):
        await make_job(door, state="succeeded", finished_at=now - (20 - n) * SECOND)
    await make_jobs(door, 10, run_at=now - SECOND)
    (reason, *_) = await told(reader, await make_job(door, run_at=now))
    assert reason.why == Why.BEHIND and "for another" in reason.text
    assert reason.until is not None and 5 * SECOND < reason.until - now < 20 * SECOND


async def test_all_slots_are_taken(door: Link, reader: Reader):
    worker = await make_worker(door, queues=["default"], kinds=["noop"], concurrency=1)
    await make_job(door, state="running", worker_id=worker)
    assert "all slots of 1 workers" in await first(reader, await make_job(door), Why.NO_SLOT)


async def test_it_may_be_what_took_a_worker_down(door: Link, reader: Reader, worker: UUID):
    assert "2 of its runs" in await first(reader, await make_job(door, crashes=2), Why.SUSPECT)


async def test_its_deadline_ends_it_or_makes_it_late(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    common: dict[str, Any] = {"run_at": now - 20 * SECOND, "delay_tolerance": 10 * SECOND}
    late = await told(reader, await make_job(door, **common))
    assert late[-1].why == Why.DEADLINE and late[-1].text.endswith("has passed: it runs late")
    soon = await told(reader, await make_job(door, deadline_policy="drop", delay_tolerance=60.9 * SECOND))
    assert soon[-1].text == "its deadline in 1m ends it, unrun"


@pytest.mark.parametrize("state", ["ready", "scheduled"])
async def test_a_deadline_that_has_passed_and_drops_it_is_the_only_reason(
    door: Link, reader: Reader, worker: UUID, state: str
):
    run_at = datetime.now(UTC) - 20.5 * SECOND
    id = await make_job(door, state=state, run_at=run_at, delay_tolerance=10 * SECOND, deadline_policy="drop")
    (reason,) = await told(reader, id)
    assert reason.why == Why.DEADLINE
    assert reason.text == "its deadline of 10s ago has passed: it ends without having run"


async def test_running_where_and_since_when(door: Link, reader: Reader, worker: UUID):
    id = await make_job(
        door, state="running", worker_id=worker, attempt=2, claimed_at=datetime.now(UTC) - 65.5 * SECOND
    )
    text = await first(reader, id, Why.RUNNING)
    assert text == f"attempt 2 runs on worker {worker} (testhost, process 1) for 1m5s"


async def test_asked_to_stop(door: Link, reader: Reader, worker: UUID):
    id = await make_job(
        door, state="running", worker_id=worker, cancel_requested_at=datetime.now(UTC) - 3.5 * SECOND
    )
    assert await whys(reader, id) == [Why.RUNNING, Why.STOPPING]


async def test_its_worker_is_lost(door: Link, reader: Reader, worker: UUID):
    lapsed = await make_worker(door, lease=-12.5 * SECOND)
    id = await make_job(door, state="running", worker_id=lapsed)
    assert "its lease ended 12s ago" in await first(reader, id, Why.WORKER_LOST)
    gone = await make_job(door, state="running", worker_id=uuid4())
    assert "is lost" in await first(reader, gone, Why.WORKER_LOST)


async def test_it_has_ended_and_why(door: Link, reader: Reader):
    error = {"attempt": 3, "type": "OSError", "message": "disk full", "traceback": None}
    id = await make_job(door, state="dead", attempt=3, reason="attempts used up", errors=[error])
    text = await first(reader, id, Why.ENDED)
    assert text.startswith("it died at ") and text.endswith("attempts used up (OSError: disk full)")
    done = await first(reader, await make_job(door, state="succeeded"), Why.ENDED)
    assert done.startswith("it succeeded at")


async def test_there_is_no_such_job(reader: Reader):
    with pytest.raises(JobNotFound):
        await reader.explain(uuid4())


async def test_everything_at_once_is_told_the_firmest_first(door: Link, reader: Reader, worker: UUID):
    await query(door, "insert into jobd.queues (name, max_running, paused_at) values ('default', 1, now())")
    await make_job(door, state="running", worker_id=worker, concurrency_key="k")
    await make_job(door)
    id = await make_job(door, concurrency_key="k", crashes=1)
    assert await whys(reader, id) == [
        Why.QUEUE_PAUSED, Why.KEY_FULL, Why.QUEUE_FULL, Why.SUSPECT, Why.BEHIND,
    ]  # fmt: skip
