"""explain, of a ready job that nothing bars: how many go before it, and when its turn comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.reader import Reader
from jobd.reasons import reasons
from jobd.standing import Reason, Why
from jobd.store import Store
from tests.factories import SECOND, make_job, make_jobs, make_worker, query
from tests.store.explaining import first, whys
from tests.store.governed import finish, governed

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door, queues=["default"], kinds=["noop"])


async def test_nothing_holds_it_up(door: Link, reader: Reader, worker: UUID):
    assert "among the next" in await first(reader, await make_job(door), Why.NEXT)


async def test_behind_others(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    higher = await make_job(door, priority=5)
    id = await make_job(door, run_at=now)
    assert await first(reader, id, Why.BEHIND) == "1 job at a higher priority is before it"
    await make_job(door, priority=5)
    assert await first(reader, id, Why.BEHIND) == "2 jobs at a higher priority are before it"
    await make_jobs(door, 3, run_at=now - SECOND)
    assert await first(reader, id, Why.BEHIND) == "5 jobs are before it, 2 of them at a higher priority"
    await first(reader, higher, Why.NEXT)


async def test_of_one_key_that_has_room_for_one_one_is_before_it(door: Link, reader: Reader, worker: UUID):
    before = datetime.now(UTC) - SECOND
    of_key = await make_jobs(door, 2, concurrency_key="k", run_at=before)
    id = await make_job(door)
    text = await first(reader, id, Why.BEHIND)
    assert text == "1 job is before it (1 more is held up by a limit of its own)"
    of_key += await make_jobs(door, 3, concurrency_key="k", run_at=before)
    text = await first(reader, id, Why.BEHIND)
    assert text == "1 job is before it (4 more are held up by limits of their own)"
    # Those of the key have all that are before them.
    assert await first(reader, of_key[-1], Why.BEHIND) == "4 jobs are before it"
    await make_job(door, concurrency_key="k", state="running", worker_id=uuid4())
    await first(reader, id, Why.NEXT)


async def test_in_order_a_later_one_of_its_key_is_not_before_it_at_any_priority(
    door: Link, reader: Reader, worker: UUID
):
    await query(door, "insert into jobd.kinds (name, ordered) values ('noop', true)")
    id = await make_job(door, concurrency_key="k")
    await make_job(door, concurrency_key="k", priority=9)
    await first(reader, id, Why.NEXT)
    # Without a key they have no such order.
    plain = await make_job(door, priority=5)
    await make_job(door, priority=9)
    assert "2 jobs at a higher priority are before it" in await first(reader, plain, Why.BEHIND)


async def test_what_was_there_when_workers_died_keeps_out_of_the_way(
    door: Link, reader: Reader, worker: UUID
):
    await make_jobs(door, 3, crashes=2)
    id = await make_job(door)
    text = await first(reader, id, Why.BEHIND)
    assert text == "1 job is before it (2 more are held up by limits of their own)"
    await make_job(door, crashes=2, state="running", worker_id=worker)
    assert await whys(reader, id) == [Why.NEXT]


async def test_what_was_there_when_a_worker_died_goes_first(door: Link, reader: Reader, worker: UUID):
    before = datetime.now(UTC) - SECOND
    await make_jobs(door, 3, run_at=before)
    id = await make_job(door, crashes=1)
    await first(reader, id, Why.NEXT)
    await query(door, "insert into jobd.queues (name, max_running) values ('default', 9)")
    assert await first(reader, id, Why.BEHIND) == "3 jobs are before it"


@pytest.mark.parametrize(
    ("table", "columns"),
    [("tenants (id, max_running)", {"tenant_id": "x"}), ("use_cases (name, max_running)", {"use_case": "x"})],
)
async def test_what_another_limit_keeps_is_not_before_it(
    door: Link, reader: Reader, worker: UUID, table: str, columns: dict[str, Any]
):
    before = datetime.now(UTC) - SECOND
    await query(door, f"insert into jobd.{table} values ('x', 2)")
    await make_jobs(door, 4, run_at=before, **columns)
    id = await make_job(door)
    assert "2 jobs are before it (2 more are" in await first(reader, id, Why.BEHIND)
    for _ in range(2):
        await make_job(door, state="running", worker_id=uuid4(), **columns)
    await first(reader, id, Why.NEXT)


async def test_what_ends_unrun_at_its_deadline_is_not_before_it(door: Link, reader: Reader, worker: UUID):
    long_ago = datetime.now(UTC) - 60 * SECOND
    await make_jobs(door, 3, run_at=long_ago, delay_tolerance=SECOND, deadline_policy="drop")
    await first(reader, await make_job(door), Why.NEXT)


async def test_in_a_fair_queue_those_of_its_tenant_are_before_it(door: Link, reader: Reader, worker: UUID):
    await query(door, "insert into jobd.queues (name, fair) values ('default', true)")
    before = datetime.now(UTC) - SECOND
    await make_jobs(door, 5, tenant_id="a", run_at=before)
    of_b = await make_jobs(door, 2, tenant_id="b")
    text = await first(reader, of_b[0], Why.NEXT)
    assert text == "nothing holds it up: it is the next of its tenant, and tenants take turns in its queue"
    text = await first(reader, of_b[1], Why.BEHIND)
    assert text == "1 job of its tenant is before it; tenants take turns in its queue"


async def test_in_a_fair_queue_all_are_before_one_without_a_tenant(door: Link, reader: Reader, store: Store):
    await query(door, "insert into jobd.queues (name, fair) values ('default', true)")
    worker = await make_worker(door, queues=["default"], kinds=["noop"])
    before = datetime.now(UTC) - SECOND
    await make_jobs(door, 3, tenant_id="a", run_at=before)
    id = await make_job(door)
    text = await first(reader, id, Why.BEHIND)
    assert text == (
        "3 jobs are before it; tenants take turns in its queue, and it has none, so it waits for all of those"
    )
    for _ in range(3):
        (claim,) = await governed(store, worker, 1)
        assert claim.tenant_id == "a"
        await finish(store, [claim])
    assert "the next of those without a tenant" in await first(reader, id, Why.NEXT)
    (claim,) = await governed(store, worker, 1)
    assert claim.id == id


async def turn(door: Link, reader: Reader, **columns: Any) -> Reason:
    """The first reason of a job at noon, behind 20 others: far from where a day of the history begins."""
    await make_worker(door, queues=["default", "busy"], kinds=["noop"], lease=timedelta(days=2))
    await make_jobs(door, 20, run_at=NOON - SECOND, **columns)
    standing = await reader.standing(await make_job(door, run_at=NOON, **columns), now=NOON)
    assert standing is not None
    return reasons(standing)[0]


async def ended(door: Link, count: int, *, apart: timedelta, **columns: Any) -> None:
    """So many jobs ended, the last of them just before noon."""
    for n in range(count):
        await make_job(door, **{"state": "succeeded", **columns, "finished_at": NOON - (count - n) * apart})


async def test_behind_others_and_for_about_how_long(door: Link, reader: Reader):
    await ended(door, 30, apart=10 * SECOND)
    reason = await turn(door, reader)
    assert reason.text == "20 jobs are before it; at the pace of the last 5m it starts in about 3m20s"
    assert reason.until == NOON + 200 * SECOND


async def test_a_busy_neighbour_does_not_hide_the_pace_of_a_queue(door: Link, reader: Reader):
    await ended(door, 30, apart=10 * SECOND)
    await ended(door, 510, apart=SECOND / 100, queue="busy")
    assert (await turn(door, reader)).until == NOON + 200 * SECOND


async def test_a_queue_that_keeps_nothing_has_a_pace_too(door: Link, reader: Reader):
    await query(
        door,
        "insert into jobd.tombstones (id, claim_no, finished_at, state, queue, kind)"
        " select jobd.uuid7(), 2, $1::timestamptz - n * interval '10 s', 'succeeded', 'default', 'noop'"
        " from generate_series(1, 30) n",
        NOON,
    )
    assert (await turn(door, reader)).until == NOON + 200 * SECOND


async def test_a_queue_at_its_limit_keeps_its_pace(door: Link, reader: Reader):
    await query(door, "insert into jobd.queues (name, max_running) values ('default', 1)")
    await make_job(door, state="running", worker_id=uuid4())
    await ended(door, 30, apart=10 * SECOND)
    assert (await turn(door, reader)).why == Why.QUEUE_FULL
    standing = await reader.standing(await make_job(door, run_at=NOON), now=NOON)
    assert standing is not None and reasons(standing)[1].until == NOON + 210 * SECOND


@pytest.mark.parametrize(
    ("ends", "job"),
    [
        pytest.param({"count": 2, "apart": SECOND}, {}, id="two ends say nothing"),
        pytest.param({"count": 30, "apart": SECOND / 100}, {}, id="nor does a moment"),
        pytest.param(
            {"count": 30, "apart": SECOND, "state": "cancelled", "claim_no": 0}, {}, id="nor what never ran"
        ),
        pytest.param(
            {"count": 30, "apart": SECOND}, {"concurrency_key": "k"}, id="a key has a pace of its own"
        ),
    ],
)
async def test_where_the_pace_says_nothing_of_it_there_is_no_estimate(
    door: Link, reader: Reader, ends: dict[str, Any], job: dict[str, Any]
):
    await ended(door, **ends)
    reason = await turn(door, reader, **job)
    assert (reason.text, reason.until) == ("20 jobs are before it", None)


async def test_an_estimate_of_a_fair_queue_would_be_wrong(door: Link, reader: Reader):
    await query(door, "insert into jobd.queues (name, fair) values ('default', true)")
    await ended(door, 30, apart=SECOND)
    reason = await turn(door, reader, tenant_id="a")
    assert reason.text == "20 jobs of its tenant are before it; tenants take turns in its queue"
    assert reason.until is None


async def test_a_paused_queue_has_no_pace(door: Link, reader: Reader):
    await query(door, "insert into jobd.queues (name, paused_at) values ('default', now())")
    await ended(door, 30, apart=SECOND)
    await turn(door, reader)
    standing = await reader.standing(await make_job(door, run_at=NOON), now=NOON)
    assert standing is not None
    assert [(reason.why, reason.until) for reason in reasons(standing)] == [
        (Why.QUEUE_PAUSED, None),
        (Why.BEHIND, None),
    ]


async def test_all_slots_are_taken(door: Link, reader: Reader):
    worker = await make_worker(door, queues=["default"], kinds=["noop"], concurrency=1)
    await make_job(door, state="running", worker_id=worker)
    id = await make_job(door)
    text = await first(reader, id, Why.NO_SLOT)
    assert text == "all slots of the only worker that could run it are taken"
    worker = await make_worker(door, queues=["default"], kinds=["noop"], concurrency=1)
    await make_job(door, state="running", worker_id=worker)
    assert "all slots of the 2 workers that" in await first(reader, id, Why.NO_SLOT)


@pytest.mark.parametrize("alike", [{"kind": "other"}, {"queue": "other"}])
async def test_a_limit_of_its_processes_may_hold_it_up(
    door: Link, reader: Reader, worker: UUID, alike: dict[str, str]
):
    await make_job(door, state="running", worker_id=worker, **alike)
    id = await make_job(door)
    text = await first(reader, id, Why.NEXT)
    assert text.startswith(
        "it is among the next to start, unless `concurrency` of queue default or kind noop is"
    )
    await make_worker(door, queues=["default"], kinds=["noop"])
    assert (await first(reader, id, Why.NEXT)).startswith("nothing holds it up")


async def test_each_worker_runs_one_that_was_there_when_workers_died(
    door: Link, reader: Reader, worker: UUID
):
    await first(reader, await make_job(door, crashes=1, priority=1), Why.NEXT)
    id = await make_job(door, crashes=2, priority=2)
    await first(reader, id, Why.NEXT)
    await make_job(door, crashes=2, state="running", worker_id=worker)
    text = await first(reader, id, Why.SUSPECT)
    assert text == (
        "2 workers died while they ran it: a worker runs one such job at a time, and the only one"
        " that could does"
    )
