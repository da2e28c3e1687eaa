"""Enqueueing inside the caller's transaction, on every kind of connection an application may have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from jobd.bulk import CHUNK_JOBS
from jobd.client import Client
from jobd.door import Link
from jobd.errors import IdTaken, PayloadError, UniqueKeyTaken
from jobd.events import JobEnqueued
from jobd.ids import uuid7
from jobd.job import JobState
from jobd.reader import Reader
from tests.factories import make_job, query, scalar
from tests.store.lending import LENDERS, Loan, done

TRAPS = {
    "percent": "100 % of %s, %(p1)s, %% and %d",
    "colons": "a::text, :name, \\:name, {x: 1}",
    "dollars": "$1, $99, $$ and $tag$",
    "quotes": 'it\'s "so" \\ \\\\ `ok`; drop table jobs; --',
    "unicode": "naïve 🎁 \u2028 \x7f",
    "escapes": "\\n \n \\u0041 \t",
    "deep": [{"null": None, "true": True, "number": -1.5e-7, "large": 2**63 - 1, "empty": [{}, [], ""]}],
}
MANY = CHUNK_JOBS + 3


@pytest.fixture(params=LENDERS)
async def loan(request: pytest.FixtureRequest, direct_database_url: str) -> AsyncIterator[Loan]:
    async with LENDERS[request.param](direct_database_url) as loan:
        yield loan


async def count(door: Link) -> int:
    return int(await scalar(door, "select count(*) from jobd.jobs"))


async def test_a_commit_makes_the_job_visible_and_not_before(client: Client, loan: Loan, door: Link):
    enqueued = await loan.enqueue(client, "greet", {"name": "ada"})
    assert enqueued.created
    assert await count(door) == 0
    await done(loan.commit())
    job = await client.get(enqueued.id)
    assert (job.kind, job.payload, job.state, job.queue) == (
        "greet",
        {"name": "ada"},
        JobState.READY,
        "default",
    )


async def test_a_rollback_leaves_nothing(client: Client, loan: Loan, door: Link):
    await loan.enqueue(client, "greet", {"name": "ada"}, id=uuid7())
    await loan.enqueue(client, "greet", {"name": "bob"})
    await loan.enqueue_many(client, "greet", ({"n": n} for n in range(3)))
    await done(loan.rollback())
    assert await count(door) == 0


@pytest.mark.parametrize("many", [1, MANY])
async def test_many_jobs_become_visible_with_the_commit(client: Client, loan: Loan, door: Link, many: int):
    ids = await loan.enqueue_many(client, "greet", ({"n": n} for n in range(many)), tenant_id="t", priority=2)
    assert await count(door) == 0
    await done(loan.commit())
    rows = await query(
        door,
        "select id, payload->>'n' as n from jobd.jobs where tenant_id = 't' and priority = 2 order by id",
    )
    assert [row["id"] for row in rows] == list(ids)
    assert [int(row["n"]) for row in rows] == list(range(many))


async def test_many_jobs_leave_nothing_after_a_rollback(client: Client, loan: Loan, door: Link):
    await loan.enqueue_many(client, "greet", ({} for _ in range(MANY)))
    await done(loan.rollback())
    assert await count(door) == 0


async def test_every_value_arrives_as_it_was_given(client: Client, loan: Loan, reader: Reader):
    id = uuid4()
    run_at = datetime(2031, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    enqueued = await loan.enqueue(
        client, "trap", TRAPS, id=str(id), queue="odd.queue", run_at=run_at, priority=-3,
        tenant_id="t %s :t $1", use_case="u'u", unique_key="100 % :sure", concurrency_key='"c"',
        delay_tolerance="1d2h3s", deadline_policy="drop", max_attempts=7,
        backoff={"kind": "linear", "base": "90s"}, timeout=timedelta(minutes=90, microseconds=5),
        tags=["a", "b %s"], meta={"trace": {"id": "::"}},
    )  # fmt: skip
    await done(loan.commit())
    assert enqueued.id == id
    job = await reader.get(id)
    assert job.payload == TRAPS
    assert (job.queue, job.run_at, job.priority, job.state) == ("odd.queue", run_at, -3, JobState.SCHEDULED)
    assert (job.tenant_id, job.use_case) == ("t %s :t $1", "u'u")
    assert (job.unique_key, job.concurrency_key) == ("100 % :sure", '"c"')
    assert job.delay_tolerance == timedelta(days=1, hours=2, seconds=3)
    assert job.deadline_at == run_at + timedelta(days=1, hours=2, seconds=3)
    assert (job.deadline_policy, job.max_attempts) == ("drop", 7)
    assert job.timeout == timedelta(minutes=90, microseconds=5)
    assert job.backoff is not None
    assert (job.backoff["kind"], job.backoff["base"]) == ("linear", "1m30s")
    assert job.headers == {"tags": ["a", "b %s"], "meta": {"trace": {"id": "::"}}}


async def test_what_is_left_out_is_null(client: Client, loan: Loan, reader: Reader):
    enqueued = await loan.enqueue(client, "plain")
    await done(loan.commit())
    job = await reader.get(enqueued.id)
    assert job.payload == {}
    absent = (
        "tenant_id", "use_case", "unique_key", "concurrency_key", "delay_tolerance", "max_attempts",
        "backoff", "timeout",
    )  # fmt: skip
    assert [getattr(job, name) for name in absent] == [None] * len(absent)
    assert job.headers == {}


async def test_payloads_of_many_jobs_arrive_as_they_were_given(client: Client, loan: Loan, reader: Reader):
    ids = await loan.enqueue_many(client, "trap", [TRAPS, "%s", None, 5], delay="1h", timeout=2.5, tags=["x"])
    await done(loan.commit())
    jobs = [await reader.get(id) for id in ids]
    assert [job.payload for job in jobs] == [TRAPS, "%s", {}, 5]
    assert {(job.state, job.timeout, tuple(job.tags)) for job in jobs} == {
        (JobState.SCHEDULED, timedelta(seconds=2.5), ("x",))
    }


async def test_a_duplicate_is_told_inside_the_transaction_too(client: Client, loan: Loan, door: Link):
    first = await loan.enqueue(client, "greet", unique_key="once")
    second = await loan.enqueue(client, "greet", unique_key="once")
    assert (first.created, second.created, second.duplicate) == (True, False, True)
    assert second.id == first.id
    await done(loan.commit())
    third = await loan.enqueue(client, "greet", unique_key="once")
    assert (third.id, third.duplicate) == (first.id, True)
    await done(loan.run("select 1"))


async def test_keys_of_many_jobs_and_their_conflicts_work_inside_the_transaction(
    client: Client, loan: Loan, door: Link
):
    payloads = [{"n": key} for key in ("100 % :sure", None, "it's {\"\\", "100 % :sure")]
    options = {"unique_key": lambda payload: payload["n"], "unique_for": "waiting"}
    ids = await loan.enqueue_many(client, "greet", payloads, **options)
    assert ids[0] == ids[3]
    again = await loan.enqueue_many(client, "greet", payloads[:1], on_conflict="replace", **options)
    assert again == ids[:1]
    with pytest.raises(UniqueKeyTaken, match=str(ids[0])):
        await loan.enqueue_many(client, "greet", payloads, on_conflict="reject", **options)
    one = await loan.enqueue(
        client, "greet", {"new": 1}, unique_key=payloads[0]["n"], unique_for="waiting", on_conflict="replace"
    )
    assert (one.id, one.created, one.replaced) == (ids[0], False, True)
    await done(loan.commit())
    assert await count(door) == 3
    keys = await query(door, 'select unique_key from jobd.jobs order by unique_key collate "C"')
    assert [row["unique_key"] for row in keys] == ["100 % :sure", "it's {\"\\", None]


async def test_a_taken_id_leaves_the_transaction_usable(client: Client, loan: Loan, door: Link):
    taken = await make_job(door, kind="other")
    before = await loan.enqueue(client, "greet")
    with pytest.raises(IdTaken, match=str(taken)):
        await loan.enqueue(client, "greet", id=taken)
    after = await loan.enqueue(client, "greet")
    await done(loan.commit())
    rows = await query(door, "select id from jobd.jobs where kind = 'greet'")
    assert {row["id"] for row in rows} == {before.id, after.id}


async def test_one_bad_payload_of_many_leaves_the_transaction_as_it_was(
    client: Client, loan: Loan, door: Link
):
    def payloads() -> Iterator[Any]:
        yield from ({"n": n} for n in range(2 * CHUNK_JOBS + 1))
        yield {"n": "\0"}

    before = await loan.enqueue(client, "greet")
    with pytest.raises(PayloadError, match=rf"\$\[{2 * CHUNK_JOBS + 1}\]\.n"):
        await loan.enqueue_many(client, "greet", payloads())
    after = await loan.enqueue(client, "greet")
    await done(loan.commit())
    rows = await query(door, "select id from jobd.jobs")
    assert {row["id"] for row in rows} == {before.id, after.id}


async def test_what_is_refused_beforehand_leaves_the_transaction_usable(
    client: Client, loan: Loan, door: Link
):
    before = await loan.enqueue(client, "greet")
    with pytest.raises(PayloadError, match="NUL"):
        await loan.enqueue(client, "greet", {"name": "\0"})
    await done(loan.commit())
    assert [row["id"] for row in await query(door, "select id from jobd.jobs")] == [before.id]


async def test_errors_of_the_driver_pass_as_they_are(client: Client, loan: Loan, door: Link):
    await done(loan.run("set transaction read only"))
    with pytest.raises(Exception, match="read-only transaction") as caught:
        await loan.enqueue(client, "greet")
    assert type(caught.value).__module__.partition(".")[0] == loan.library
    await done(loan.rollback())
    assert await count(door) == 0


async def test_jobs_enqueued_for_a_caller_are_told_to_subscribers(loan: Loan, client: Client):
    told: list[JobEnqueued] = []
    client._events.subscribe(JobEnqueued, told.append)
    await loan.enqueue(client, "greet", queue="q")
    await loan.enqueue_many(client, "greet", [{}, {}])
    await done(loan.rollback())
    assert told == [JobEnqueued("greet", "q", 1), JobEnqueued("greet", "default", 2)]
