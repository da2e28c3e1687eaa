"""An operation on many jobs: whom the filters mean, how far it goes, and what is left when it is stopped."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from jobd import acts, sweep
from jobd.client import Client
from jobd.door import Link, Record
from jobd.errors import Transient
from jobd.filters import Filters
from jobd.job import FinishedRun, JobState
from jobd.reader import Reader
from jobd.registry import Registry
from jobd.selection import Selection
from jobd.sql import Block
from jobd.store import Store
from jobd.sweep import BATCH, Tally
from tests.factories import make_job, make_jobs, make_worker, new_job, query, scalar
from tests.signals import eventually
from tests.store.conftest import Held

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def make_many(door: Link, count: int, *, queue: str = "default", kind: str = "noop") -> None:
    """Ready jobs, by one statement."""
    await query(
        door,
        "select count(*) from jobd.enqueue_many($1::text, array_fill('{}'::jsonb, array[$2::int]), $3::text)",
        kind,
        count,
        queue,
    )


async def make_days(door: Link, *days: int) -> None:
    """Partitions of the history so many days ago."""
    for ago in days:
        await query(door, "select jobd.ensure_partitions(0, now() - $1::interval)", ago * DAY)


def failed(type_: str, message: str) -> dict[str, Any]:
    return {"errors": [{"type": "Older", "message": "first"}, {"type": type_, "message": message}]}


async def states(door: Link) -> dict[str, int]:
    rows = await query(door, "select state, count(*) from jobd.all_jobs group by 1")
    return {row[0]: row[1] for row in rows}


LIVE: dict[str, tuple[Filters, dict[str, Any], dict[str, Any]]] = {
    "queue": ({"queue": "mail"}, {"queue": "mail"}, {"queue": "web"}),
    "queues": ({"queue": ["mail", "sms"]}, {"queue": "sms"}, {"queue": "web"}),
    "kind": ({"kind": "send"}, {"kind": "send"}, {"kind": "sends"}),
    "state": ({"state": "scheduled"}, {"state": "scheduled"}, {"state": "ready"}),
    "states": ({"state": [JobState.READY, "running"]}, {"state": "ready"}, {"state": "scheduled"}),
    "tenant": ({"tenant_id": "t1"}, {"tenant_id": "t1"}, {"tenant_id": None}),
    "use_case": ({"use_case": "import"}, {"use_case": "import"}, {"use_case": "export"}),
    "tag": ({"tag": "b"}, {"headers": {"tags": ["a", "b"]}}, {"headers": {"tags": ["a"]}}),
    "tags": ({"tag": ["x", "b"]}, {"headers": {"tags": ["a", "b"]}}, {"headers": None}),
    "error": ({"error": "TIMED out"}, failed("OSError", "it timed out."), failed("OSError", "reset")),
    "error of the last attempt": ({"error": "first"}, failed("E", "at first"), failed("E", "second")),
    "error as it is": ({"error": "100%"}, failed("E", "disk 100% full"), failed("E", "disk 100 full")),
    "no error": ({"error": "e"}, failed("E", "e"), {"errors": []}),
    "error_type": ({"error_type": "ConnectError"}, failed("httpx.ConnectError", ""), failed("Error", "")),
    "error_type, qualified": ({"error_type": "httpx.E"}, failed("httpx.E", ""), failed("other.E", "")),
    "no error_type": ({"error_type": "E"}, failed("E", ""), {"errors": []}),
    "older_than": (
        {"older_than": "2h"},
        {"created_at": datetime.now(UTC) - 3 * HOUR},
        {"created_at": datetime.now(UTC) - HOUR},
    ),
    "newer_than": (
        {"newer_than": "2h"},
        {"created_at": datetime.now(UTC) - HOUR},
        {"created_at": datetime.now(UTC) - 3 * HOUR},
    ),
    "several": (
        {"queue": "mail", "kind": "send"},
        {"queue": "mail", "kind": "send"},
        {"queue": "mail", "kind": "other"},
    ),
}


@pytest.mark.parametrize("name", LIVE)
async def test_a_filter_means_live_jobs(client: Client, door: Link, reader: Reader, name: str):
    filters, meant, other = LIVE[name]
    id = await make_job(door, **{"state": "ready", **meant})
    await make_job(door, **{"state": "ready", **other})
    tally = await client.cancel_many(**filters)
    assert (tally.jobs, tally.looked) == (1, 2)
    assert (await reader.get(id)).state is JobState.CANCELLED
    assert (await states(door))["cancelled"] == 1


@pytest.mark.parametrize("name", [name for name in LIVE if not name.startswith(("state", "older", "newer"))])
async def test_a_filter_means_jobs_that_have_ended(client: Client, door: Link, reader: Reader, name: str):
    filters, meant, other = LIVE[name]
    id = await make_job(door, state="dead", **meant)
    await make_job(door, state="dead", **other)
    assert (await client.retry_many(**filters)).jobs == 1
    assert (await reader.get(id)).state is JobState.READY
    assert await states(door) == {"ready": 1, "dead": 1}


async def test_the_reason_of_an_end_is_an_error_too(client: Client, door: Link):
    await make_job(door, state="dead", reason="deadline")
    await make_job(door, state="dead", reason=None)
    assert (await client.retry_many(error="Deadline")).jobs == 1


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"older_than": "1d"}, {1, 2, 3}),
        ({"newer_than": "36h"}, {0, 1}),
        ({"older_than": "12h", "newer_than": "60h"}, {1, 2}),
        ({"all": True}, {0, 1, 2, 3}),
    ],
)
async def test_of_jobs_that_have_ended_the_age_is_that_of_the_end(
    client: Client, door: Link, reader: Reader, filters: Filters, expected: set[int]
):
    await make_days(door, 1, 2, 3)
    now = datetime.now(UTC)
    ids = [await make_job(door, state="dead", finished_at=now - days * (DAY + HOUR)) for days in range(4)]
    assert (await client.retry_many(**filters)).jobs == len(expected)
    found = {days for days, id in enumerate(ids) if (await reader.get(id)).state is JobState.READY}
    assert found == expected


async def test_days_that_are_too_old_are_not_looked_through(client: Client, door: Link):
    await make_days(door, 1, 2, 3)
    now = datetime.now(UTC)
    for days in range(4):
        await make_job(door, state="dead", finished_at=now - days * DAY)
    tally = await client.retry_many(newer_than="1h", kind="other")
    assert tally.looked == 1


@pytest.mark.parametrize(
    ("verb", "changes", "expected"),
    [
        ("cancel", {}, {"scheduled", "ready", "running"}),
        ("retry", {}, {"dead"}),
        ("reschedule", {"priority": 3}, {"scheduled", "ready"}),
        ("move", {"to": "other"}, {"scheduled", "ready"}),
        ("delete", {}, {"scheduled", "ready", "succeeded", "cancelled", "dead"}),
    ],
)
async def test_where_no_state_is_named_a_verb_takes_these(
    client: Client, door: Link, verb: str, changes: dict[str, Any], expected: set[str]
):
    for state in JobState:
        await make_job(door, state=state)
    call = getattr(client, f"{verb}_many")
    counted: Tally = await call(kind="noop", dry_run=True, **changes)
    assert set(counted.states) == expected
    assert (counted.jobs, counted.audit_id) == (len(expected), None)
    assert (await states(door)) == dict.fromkeys(JobState, 1)
    tally: Tally = await call(kind="noop", **changes)
    assert (tally.jobs, tally.states) == (counted.jobs, counted.states)
    again: Tally = await call(kind="noop", **changes)
    # What was cancelled can be deleted, and so on: but the same jobs are not met twice.
    assert again.jobs == 0


async def test_all_pages_are_looked_through_and_others_left_alone(client: Client, door: Link):
    await make_many(door, BATCH + 1)
    await make_many(door, 3, queue="other")
    await make_many(door, BATCH)
    pages: list[int] = []
    tally = await client.cancel_many(queue="default", on_progress=lambda tally: pages.append(tally.looked))
    assert (tally.jobs, tally.looked, tally.busy) == (2 * BATCH + 1, 2 * BATCH + 4, 0)
    assert pages == [BATCH, 2 * BATCH, 2 * BATCH + 4]
    assert await states(door) == {"cancelled": 2 * BATCH + 1, "ready": 3}


async def test_where_few_match_pages_grow(client: Client, door: Link):
    await make_many(door, 3 * BATCH)
    id = await make_job(door, kind="needle")
    pages: list[int] = []
    tally = await client.delete_many(
        kind="needle", state="ready", on_progress=lambda t: pages.append(t.looked)
    )
    assert (tally.jobs, pages) == (1, [BATCH, 3 * BATCH + 1])
    assert not await query(door, "select from jobd.jobs where id = $1", id)


async def test_a_full_last_page_is_followed_by_an_empty_one(client: Client, door: Link):
    await make_many(door, BATCH)
    assert (await client.move_many(queue="default", to="slow")).jobs == BATCH
    assert await scalar(door, "select count(*) from jobd.jobs where queue = 'slow'") == BATCH


async def test_any_id_may_be_the_first_and_the_last(client: Client, door: Link):
    for id in (UUID(int=0), UUID(int=2**128 - 1)):
        await make_job(door, id=id)
    assert (await client.cancel_many(all=True)).jobs == 2


@pytest.mark.parametrize("limit", [1, 3, BATCH, BATCH + 7])
async def test_a_limit_is_met_exactly_and_the_next_call_goes_on(client: Client, door: Link, limit: int):
    await make_many(door, BATCH + 7)
    assert (await client.cancel_many(limit=limit, dry_run=True, all=True)).states == {JobState.READY: limit}
    assert (await client.cancel_many(limit=limit, all=True)).jobs == limit
    assert (await states(door)).get("cancelled", 0) == limit
    assert (await client.cancel_many(all=True)).jobs == BATCH + 7 - limit


async def test_a_limit_counts_what_was_changed_and_takes_the_oldest(
    client: Client, door: Link, reader: Reader
):
    await make_job(door, unique_key="k")
    ids = await make_jobs(door, 3, state="dead")
    held = await make_job(door, state="dead", unique_key="k", id=UUID(int=1))
    tally = await client.retry_many(limit=2, all=True)
    assert (tally.jobs, tally.held) == (2, 1)
    assert [(await reader.get(id)).state for id in (held, *ids)] == ["dead", "ready", "ready", "dead"]


async def test_a_job_that_dies_again_at_once_is_retried_once(
    client: Client, door: Link, store: Store, reader: Reader
):
    """Otherwise a kind that fails at once would be retried for ever."""
    ids = await make_jobs(door, 2, state="dead")
    worker = await make_worker(door)

    class Dying:
        """A door behind which each retried job is dead again before the next statement."""

        async def fetch(self, block: Block, *args: Any) -> list[Record]:
            rows = await door.fetch(block, *args)
            if block.name == "retry_many":
                claims = await store.claim(worker, rooms={"default": 10})
                await store.finish([FinishedRun(c.id, c.claim_no, JobState.DEAD) for c in claims])
            return rows

    selection = Selection(states=frozenset({JobState.DEAD}))
    tally = await sweep.Sweep(
        Dying(), acts.retrying(), selection, who="me", sleep=asyncio.sleep, limit=None
    ).run()
    assert tally.jobs == 2
    assert [(await reader.get(id)).generation for id in ids] == [1, 1]
    assert await states(door) == {"dead": 2}


async def test_what_is_locked_is_waited_for_without_holding_up_the_rest(
    client: Client, door: Link, held: Held, reader: Reader
):
    locked, free = await make_jobs(door, 2)
    await Store(held).reschedule(locked, priority=5)
    operation = asyncio.create_task(client.cancel_many(all=True))
    await eventually(lambda: reader.state_of(free), until=lambda state: state is JobState.CANCELLED)
    assert not operation.done()
    await held.commit()
    tally = await operation
    assert (tally.jobs, tally.busy) == (2, 0)


async def test_what_stays_locked_is_left_out_and_told(
    client: Client, door: Link, held: Held, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sweep, "TRIES", 2)
    locked, _ = await make_jobs(door, 2)
    await Store(held).reschedule(locked, priority=5)
    tally = await client.cancel_many(all=True)
    assert (tally.jobs, tally.busy) == (1, 1)
    await held.commit()
    assert (await client.cancel_many(all=True)).jobs == 1


async def test_a_key_that_an_open_transaction_took_holds_up_no_other_job(
    client: Client, door: Link, held: Held
):
    for number in range(40):
        await make_job(door, state="dead", unique_key=f"k{number}")
    await Store(held).enqueue(new_job(unique_key="k7"))
    tally = await client.retry_many(all=True)
    assert (tally.jobs, tally.busy, tally.held) == (39, 1, 0)
    await held.rollback()
    assert (await client.retry_many(all=True)).jobs == 1


async def test_an_operation_that_is_stopped_has_done_what_its_audit_says(
    client: Client, door: Link, reader: Reader
):
    await make_many(door, 3 * BATCH)

    def stop(tally: Tally) -> None:
        if tally.looked >= 2 * BATCH:
            raise InterruptedError

    operation = asyncio.create_task(client.cancel_many(all=True, on_progress=stop, by="eve"))
    with pytest.raises(InterruptedError):
        await operation
    (entry,) = await reader.audits()
    assert (entry.jobs, entry.ended_at, entry.who) == (2 * BATCH, None, "eve")
    assert await states(door) == {"cancelled": 2 * BATCH, "ready": BATCH}
    assert (await client.cancel_many(all=True)).jobs == BATCH


async def test_a_deadlock_is_tried_again(door: Link, reader: Reader):
    await make_jobs(door, 2)
    failures = [Transient("deadlock detected")] * 2

    class Deadlocking:
        async def fetch(self, block: Block, *args: Any) -> list[Record]:
            if block.name == "delete_many" and failures:
                raise failures.pop()
            return await door.fetch(block, *args)

    selection = Selection(states=frozenset({JobState.READY}))
    operation = sweep.Sweep(Deadlocking(), acts.deleting(), selection, who="me", sleep=asyncio.sleep)
    assert (await operation.run()).jobs == 2
    assert (await reader.audits())[0].jobs == 2


async def test_a_cancel_makes_the_partition_of_a_day_that_has_none(client: Client, door: Link):
    await make_job(door)
    (today,) = await query(door, "select to_char(now() at time zone 'UTC', 'YYYYMMDD')")
    await query(door, f"drop table jobd.job_history_{today[0]}")
    assert (await client.cancel_many(all=True)).jobs == 1


async def test_the_audit_tells_who_did_what_to_which_jobs(client: Client, door: Link, reader: Reader):
    await make_job(door, queue="mail")
    before = datetime.now(UTC)
    tally = await client.reschedule_many(queue="mail", newer_than="90m", priority=9, by="ann", limit=5)
    (entry,) = await reader.audits()
    assert (entry.id, entry.who, entry.verb, entry.jobs) == (tally.audit_id, "ann", "reschedule", 1)
    assert entry.filter == {
        "queue": ["mail"], "state": ["scheduled", "ready"], "newer_than": "1h30m", "limit": 5,
    }  # fmt: skip
    assert entry.change == {"priority": 9}
    assert entry.ended_at is not None
    assert before - HOUR < entry.at <= entry.ended_at


async def test_a_handlers_function_means_its_kind(door: Link, client: Client):
    registry = Registry()

    @registry.handler("resize")
    async def resize() -> None: ...

    await make_job(door, kind="resize")
    await make_job(door, kind="other")
    client._registry = registry
    assert (await client.cancel_many(kind=resize)).jobs == 1
    assert (await client.cancel_many(kind=[resize, "other"])).jobs == 1


async def test_daemons_that_claim_meanwhile_get_each_job_or_it_is_moved(
    client: Client, door: Link, crowd: list[Link]
):
    """Claims and an operation race for the same jobs; each gets its own, and none is lost or made twice."""
    await make_many(door, BATCH)
    workers = [await make_worker(door) for _ in crowd]
    done = asyncio.Event()

    async def work(link: Link, worker: UUID) -> int:
        count = 0
        while not done.is_set():
            claims = await Store(link).claim(worker, rooms={"default": 20})
            count += len(claims)
            await Store(link).succeed([FinishedRun(c.id, c.claim_no, JobState.SUCCEEDED) for c in claims])
        return count

    working = [asyncio.create_task(work(link, worker)) for link, worker in zip(crowd, workers, strict=True)]
    tally = await client.move_many(queue="default", to="slow")
    done.set()
    ran = sum(await asyncio.gather(*working))
    assert tally.busy == 0
    assert await scalar(door, "select count(*) from jobd.jobs where queue = 'slow'") == tally.jobs
    assert tally.jobs + ran == BATCH
