"""explain: why a job is where it is, one test for each answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.errors import JobNotFound
from jobd.reader import Reader
from jobd.standing import Why
from tests.factories import SECOND, make_job, make_worker, query
from tests.store.explaining import first, told, whys


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door, queues=["default"], kinds=["noop"])


async def test_due_in_three_minutes(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    id = await make_job(door, state="scheduled", run_at=now + 180 * SECOND)
    assert await first(reader, id, Why.NOT_DUE, at=now) == "it is due in 3m"
    assert (await told(reader, id))[0].until == now + 180 * SECOND


async def test_due_and_not_made_ready_yet(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    id = await make_job(door, state="scheduled", run_at=now - 5 * SECOND)
    assert "due since 5s" in await first(reader, id, Why.STAGING, at=now)


async def test_waiting_for_its_next_attempt_because_of_an_error(door: Link, reader: Reader, worker: UUID):
    error = {"attempt": 2, "type": "ValueError", "message": "no such user\nmore", "traceback": None}
    id = await make_job(door, state="scheduled", attempt=2, claim_no=4, errors=[error])
    text = await first(reader, id, Why.RETRY)
    assert "for attempt 3, because attempt 2 failed (ValueError: no such user)" in text


async def test_an_error_is_not_told_as_the_reason_where_it_may_not_be_it(
    door: Link, reader: Reader, worker: UUID
):
    # It failed, ran again, and gave that attempt back: its handler snoozed, say.
    now = datetime.now(UTC)
    at = (now - 180 * SECOND).isoformat()
    error = {"attempt": 1, "at": at, "type": "ValueError", "message": "boom", "traceback": None}
    id = await make_job(
        door, state="scheduled", attempt=1, claim_no=4, errors=[error], run_at=now + 3600 * SECOND
    )
    text = await first(reader, id, Why.RETRY, at=now)
    assert text == "it is due in 1h for attempt 2; its last error was 3m ago in attempt 1 (ValueError: boom)"


async def test_due_again_as_a_new_generation(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    run_at = now + 60 * SECOND
    id = await make_job(door, state="scheduled", attempt=0, claim_no=6, generation=1, run_at=run_at)
    assert await first(reader, id, Why.NOT_DUE, at=now) == "it is due in 1m"


async def test_its_tenant_delays_what_it_has_no_room_for(door: Link, reader: Reader, worker: UUID):
    await query(door, "insert into jobd.tenants (id, max_pending, on_full) values ('t 1', 100, 'delay')")
    now = datetime.now(UTC)
    await query(door, "insert into jobd.rates values ('pending', 't 1', $1)", now + 180 * SECOND)
    id = await make_job(door, state="scheduled", tenant_id="t 1", run_at=now + 60 * SECOND)
    due, delays = await told(reader, id, at=now)
    assert due.text == "it is due in 1m" and delays.why == Why.TENANT_DELAYS
    assert delays.text == (
        "tenant t 1 may have 100 jobs waiting, and more are delayed: 100 a minute become due, the last in 3m;"
        " `jobd tenants set 't 1' --max-pending N` admits more"
    )
    later = await make_job(door, state="scheduled", tenant_id="t 1", run_at=now + 300 * SECOND)
    assert await whys(reader, later) == [Why.NOT_DUE]


async def test_put_back_by_its_handler(door: Link, reader: Reader, worker: UUID):
    id = await make_job(door, state="scheduled", attempt=0, claim_no=2)
    assert "was put back" in await first(reader, id, Why.SNOOZED)


async def test_its_queue_is_paused_by_somebody(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    text = "insert into jobd.queues (name, paused_at, paused_by) values ('default', $1, 'kim')"
    await query(door, text, now - 120 * SECOND)
    text = await first(reader, await make_job(door), Why.QUEUE_PAUSED, at=now)
    assert text.startswith("queue default is paused for 2m") and "by kim" in text


async def test_nobody_works(door: Link, reader: Reader):
    assert "jobd run" in await first(reader, await make_job(door), Why.NO_WORKER)
    await make_worker(door, lease=-SECOND)
    await make_worker(door, stopping_at=datetime.now(UTC))
    await make_worker(door, roles=["scheduler"])
    assert await whys(reader, await make_job(door, state="scheduled")) == [Why.NOT_DUE, Why.NO_WORKER]


async def test_the_last_worker_is_about_to_end_or_lost(door: Link, reader: Reader):
    id = await make_job(door)
    now = datetime.now(UTC)
    beat_at, lease_until = now - 40 * SECOND, now - 10 * SECOND
    await make_worker(door, beat_at=beat_at, lease_until=lease_until, queues=["default"], kinds=["noop"])
    text = await first(reader, id, Why.NO_WORKER, at=now)
    assert text == "no worker is alive, the last was heard of 40s ago: start one with `jobd run`"
    await make_worker(door, stopping_at=datetime.now(UTC), queues=["default"], kinds=["noop"])
    text = await first(reader, id, Why.NO_WORKER)
    assert text == "no worker takes jobs, 1 worker is stopping: start one with `jobd run`"


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
        door, kind="later", state="scheduled", attempt=0, claim_no=2, run_at=datetime.now(UTC) + 3600 * SECOND
    )
    assert "no handler for kind later" in await first(reader, id, Why.KIND_UNKNOWN)
    assert await whys(reader, id) == [Why.KIND_UNKNOWN, Why.SNOOZED]


async def test_nobody_serves_its_queue(door: Link, reader: Reader, worker: UUID):
    id = await make_job(door, queue="mail")
    text = await first(reader, id, Why.NOT_SERVED)
    assert text == "the only live worker does not serve queue mail: `jobd run --queue mail`"
    await make_worker(door)
    text = await first(reader, id, Why.NOT_SERVED)
    assert text == "none of 2 live workers serves queue mail: `jobd run --queue mail`"


async def test_nobody_knows_its_kind(door: Link, reader: Reader, worker: UUID):
    id = await make_job(door, kind="later")
    text = await first(reader, id, Why.KIND_UNKNOWN)
    assert text.startswith("the only live worker of queue default has no handler for kind later")
    await make_worker(door)
    text = await first(reader, id, Why.KIND_UNKNOWN)
    assert text.startswith("none of 2 live workers of queue default has a handler for kind later")


async def test_its_key_is_taken_and_by_which(door: Link, reader: Reader, worker: UUID):
    await query(door, "insert into jobd.kinds (name, key_limit) values ('noop', 2)")
    running = [
        await make_job(door, state="running", concurrency_key="user:7", worker_id=worker) for _ in range(2)
    ]
    text = await first(reader, await make_job(door, concurrency_key="user:7"), Why.KEY_FULL)
    assert text.startswith("key user:7 has 2 of 2 running: ")
    assert text.endswith("; `jobd kinds set noop --key-limit N` lets more run")
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
    ready = await make_job(door, concurrency_key="user:7")
    id = await make_job(door, concurrency_key="user:7")
    text = await first(reader, id, Why.KEY_ORDER)
    assert text == f"jobs of key user:7 run in order, and {ready} is before it: `jobd explain {ready}`"
    now = datetime.now(UTC)
    due = now + 60 * SECOND
    retried = await make_job(
        door, id=UUID(int=7), state="scheduled", claim_no=2, concurrency_key="user:7", run_at=due
    )
    assert f"{retried} is before it, due again in 1m:" in await first(reader, id, Why.KEY_ORDER, at=now)


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
    id = await make_job(door, **columns)
    command = f"`jobd {what.replace(' ', '-')}s set x --max-running N`"
    assert await first(reader, id, why) == f"{what} x has 1 of 1 running; {command} lets more run"
    await query(door, f"update jobd.{table.split(maxsplit=1)[0]} set max_running = 0")
    assert f"{what} x may run nothing, its `max_running` is 0; {command}" in await first(reader, id, why)


@pytest.mark.parametrize("scope", ["queue", "tenant", "key"])
async def test_a_rate_is_spent(door: Link, reader: Reader, worker: UUID, scope: str):
    columns = "rate_count, rate_period, rate_burst"
    values = "10, interval '1 min', 1"
    for table, name in (("queues", "default"), ("tenants", "t"), ("kinds", "noop")):
        key = "id" if table == "tenants" else "name"
        await query(door, f"insert into jobd.{table} ({key}, {columns}) values ('{name}', {values})")
    name = {"queue": "default", "tenant": "t", "key": "k"}[scope]
    row = "noop k" if scope == "key" else name
    now = datetime.now(UTC)
    await query(door, "insert into jobd.rates values ($1, $2, $3)", scope, row, now + 4 * SECOND)
    text = await first(reader, await make_job(door, tenant_id="t", concurrency_key="k"), Why.RATE, at=now)
    assert text == f"{scope} {name} has spent its rate: the next may start in 4s"


async def test_its_deadline_ends_it_or_makes_it_late(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    common: dict[str, Any] = {"run_at": now - 20 * SECOND, "delay_tolerance": 10 * SECOND}
    late = await told(reader, await make_job(door, **common))
    assert late[-1].why == Why.DEADLINE and late[-1].text.endswith("has passed: it runs late")
    id = await make_job(door, run_at=now, deadline_policy="drop", delay_tolerance=60 * SECOND)
    soon = await told(reader, id, at=now)
    assert soon[-1].text == "its deadline in 1m ends it, without having run"


@pytest.mark.parametrize("state", ["ready", "scheduled"])
async def test_a_deadline_that_has_passed_and_drops_it_is_the_only_reason(
    door: Link, reader: Reader, worker: UUID, state: str
):
    now = datetime.now(UTC)
    run_at = now - 20 * SECOND
    id = await make_job(door, state=state, run_at=run_at, delay_tolerance=10 * SECOND, deadline_policy="drop")
    (reason,) = await told(reader, id, at=now)
    assert reason.why == Why.DEADLINE
    assert reason.text == "its deadline of 10s ago has passed: it ends, without having run"


async def test_what_may_have_run_is_not_said_to_end_unrun(door: Link, reader: Reader, worker: UUID):
    again: dict[str, Any] = {"attempt": 1, "claim_no": 2, "deadline_policy": "drop"}
    now = datetime.now(UTC)
    id = await make_job(door, run_at=now, delay_tolerance=60 * SECOND, **again)
    assert (await told(reader, id, at=now))[-1].text == "its deadline in 1m ends it"
    id = await make_job(door, run_at=now - 20 * SECOND, delay_tolerance=10 * SECOND, **again)
    (gone,) = await told(reader, id, at=now)
    assert gone.text == "its deadline of 10s ago has passed: it ends"


async def test_there_is_no_such_job(reader: Reader):
    with pytest.raises(JobNotFound):
        await reader.explain(uuid4())


async def test_everything_at_once_is_told_the_firmest_first(door: Link, reader: Reader, worker: UUID):
    await query(door, "insert into jobd.queues (name, max_running, paused_at) values ('default', 1, now())")
    await make_job(door, state="running", worker_id=worker, concurrency_key="k")
    await make_job(door)
    id = await make_job(door, concurrency_key="k")
    assert await whys(reader, id) == [
        Why.QUEUE_PAUSED, Why.KEY_FULL, Why.QUEUE_FULL, Why.BEHIND,
    ]  # fmt: skip
