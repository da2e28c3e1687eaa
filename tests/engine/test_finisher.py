"""The ends of runs become durable: all of them, whatever is in them, and only while the claim is ours."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from jobd import Jobs, JobState
from jobd.door import Database, Link
from jobd.engine.finisher import BATCH_ROWS, Finisher
from jobd.engine.holdings import Holdings, Run
from jobd.events import Events, JobFinished, RunStale
from jobd.job import FinishedRun
from jobd.reader import Reader
from jobd.store import Store
from tests.engine.running import ran
from tests.factories import claimed, make_job, make_jobs, query
from tests.signals import eventually, expect


class Desk:
    """A finisher on a connection of its own, and what it holds."""

    def __init__(self, link: Link) -> None:
        self.events = Events()
        self.holdings = Holdings()
        self.flushes = self.returns = 0
        self.finisher = Finisher(
            Store(link),
            holdings=self.holdings,
            events=self.events,
            rng=random.Random(1),
            durable=self._durable,
            returned=self._returned,
        )

    def _durable(self) -> None:
        self.flushes += 1

    def _returned(self) -> None:
        self.returns += 1

    def put(
        self,
        id: UUID,
        *,
        claim_no: int = 1,
        state: JobState = JobState.SUCCEEDED,
        outcome: str = "succeeded",
        task: asyncio.Task[None] | None = None,
        **fields,
    ) -> None:
        run = Run(claimed(id=id, claim_no=claim_no))
        run.task = task
        self.holdings.add(run)
        self.finisher.put(run, FinishedRun(id=id, claim_no=claim_no, state=state, **fields), outcome)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    link = Link(Database(database_url))
    async with running(Desk(link)) as desk:
        yield desk
    await link.close()


@asynccontextmanager
async def running(desk: Desk) -> AsyncIterator[Desk]:
    writing = asyncio.ensure_future(desk.finisher.run())
    try:
        yield desk
    finally:
        writing.cancel()
        await asyncio.wait({writing})


BAD = {
    "NUL in a result": {"result": '"\\u0000"'},
    "no JSON as a result": {"result": "{"},
    "surrogate in a result": {"result": '"\ud800"'},
    "half a surrogate pair, escaped": {"result": '"\\ud800"'},
    "NUL in a reason": {"reason": "a\x00b", "state": JobState.DEAD},
    "surrogate in a reason": {"reason": "a\ud800b", "state": JobState.DEAD},
    "no JSON as an error": {"error": "no json", "state": JobState.DEAD},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
async def test_one_row_that_the_database_refuses_holds_up_no_other(desk: Desk, link: Link, fields: dict):
    ids = await make_jobs(link, 101, state="running")
    bad = ids[37]
    async with expect(desk.events, JobFinished, count=101):
        for id in ids:
            desk.put(id, **(fields if id == bad else {"result": '"fine"'}))
    rows = await query(link, "select id, state, result, reason from jobd.job_history")
    assert len(rows) == 101
    for row in rows:
        if row["id"] == bad:
            assert row["state"] == fields.get("state", "succeeded")
            said = row["reason"] if "state" in fields else json.loads(row["result"])["lost"]
            assert said.startswith("the end of this run could not be stored")
            assert not said.endswith('"')
        else:
            assert (row["state"], row["result"], row["reason"]) == ("succeeded", '"fine"', None)
    assert len(desk.holdings) == 0
    assert len(desk.finisher) == 0


async def test_many_bad_rows_are_each_stored_in_another_form(desk: Desk, link: Link):
    ids = await make_jobs(link, 64, state="running")
    async with expect(desk.events, JobFinished, count=64):
        for place, id in enumerate(ids):
            desk.put(id, result="{" if place % 2 else '"fine"')
    lost = "select from jobd.job_history where result->>'lost' like '%could not be stored%'"
    assert len(await query(link, lost)) == 32


async def test_a_claim_that_is_lost_is_reported_as_stale_and_changes_nothing(desk: Desk, link: Link):
    id = await make_job(link, state="running", claim_no=3)
    async with expect(desk.events, RunStale, id=id, claim_no=1):
        desk.put(id, claim_no=1, result='"late"')
    job = await Reader(link).get(id)
    assert (job.state, job.claim_no) == (JobState.RUNNING, 3)
    assert len(desk.holdings) == 0


async def test_a_job_that_vanished_is_reported_as_stale(desk: Desk):
    async with expect(desk.events, RunStale):
        desk.put(uuid4())


async def test_verdicts_that_come_while_a_batch_is_written_are_written_together(desk: Desk, link: Link):
    ids = await make_jobs(link, 60, state="running")
    async with expect(desk.events, JobFinished, count=60):
        for id in ids:
            desk.put(id)
    written = await query(link, "select count(distinct xmin::text) as transactions from jobd.job_history")
    assert written[0]["transactions"] <= 2


async def test_what_is_cut_off_is_written_again_and_counted_as_ended_once(desk: Desk, link: Link):
    ids = await make_jobs(link, 20, state="running")
    async with expect(desk.events, JobFinished, count=20) as finished:
        for id in ids:
            desk.put(id, result="1")
        # Cuts the connection before, in, or after the flush: all are fine.
        await query(
            link,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()",
        )
    assert {event.id for event in finished.events} == set(ids)
    assert len(finished.events) == 20
    assert len(await query(link, "select from jobd.job_history where state = 'succeeded'")) == 20


@pytest.mark.parametrize(("count", "kilobytes"), [(BATCH_ROWS + 1, 0), (3, 1_900)])
async def test_more_than_one_flush_may_hold_is_written_in_two(
    desk: Desk, link: Link, count: int, kilobytes: int
):
    ids = await make_jobs(link, count, state="running")
    async with expect(desk.events, JobFinished, count=count):
        for id in ids:
            desk.put(id, result=json.dumps("x" * 1_000 * kilobytes))
    written = await query(link, "select count(distinct xmin::text) as transactions from jobd.job_history")
    assert written[0]["transactions"] == 2


async def test_what_is_being_written_is_not_durable_and_is_kept_when_the_writing_ends(
    database_url: str, direct_database_url: str, link: Link
):
    own = Link(Database(database_url))
    desk = Desk(own)
    ids = await make_jobs(link, 3, state="running")
    holder = await asyncpg.connect(direct_database_url)
    async with holder.transaction():
        await holder.execute("select from jobd.jobs for update")
        async with running(desk):
            for id in ids:
                desk.put(id)
            await eventually(lambda: query(link, "select 1 from pg_locks where not granted"))
            assert len(desk.finisher) == 3
        assert len(desk.finisher) == 3
    await holder.close()
    await own.close()


async def test_only_a_run_that_began_has_a_duration(desk: Desk, link: Link):
    ended = asyncio.create_task(asyncio.Event().wait())
    ended.cancel()
    began, never = await make_jobs(link, 2, state="running")
    async with expect(desk.events, JobFinished, count=2) as finished:
        desk.put(began, task=ended)  # type: ignore[arg-type]
        desk.put(never, state=JobState.DEAD, outcome="expired")
    seconds = {event.id: event.run_seconds for event in finished.events}
    assert seconds[never] is None
    assert seconds[began] is not None


async def test_a_claim_that_goes_back_is_no_end_unless_its_job_was_cancelled_meanwhile(
    desk: Desk, link: Link
):
    back = await make_job(link, state="running")
    cancelled = await make_job(link, state="running", cancel_requested_at=datetime.now(UTC))
    async with expect(desk.events, JobFinished) as finished:
        for id in (back, cancelled):
            desk.put(id, state=JobState.READY, outcome="not_started")
    assert await desk.finisher.drained(10)
    assert [(event.id, event.state) for event in finished.events] == [(cancelled, "cancelled")]
    assert (await Reader(link).get(back)).state is JobState.READY
    assert desk.returns == 1
    # Told once, and not again with whatever ends next.
    desk.put(await make_job(link, state="running"))
    assert await desk.finisher.drained(10)
    assert (desk.returns, desk.flushes) == (1, 2)


async def test_a_job_that_is_only_cancelled_frees_nothing_for_others(desk: Desk, link: Link):
    id = await make_job(link, state="running", cancel_requested_at=datetime.now(UTC))
    async with expect(desk.events, JobFinished, id=id, state="cancelled"):
        desk.put(id, state=JobState.READY, outcome="not_started")
    assert await desk.finisher.drained(10)
    assert desk.returns == 0


async def test_drained_tells_whether_everything_is_durable(desk: Desk, link: Link):
    assert await desk.finisher.drained(1)
    desk.put(await make_job(link, state="running"))
    assert await desk.finisher.drained(10)
    assert len(await query(link, "select from jobd.job_history")) == 1


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        (None, None),
        ("NUL \x00", "NUL ␀"),
        ("half \ud800 pair", "half � pair"),
        (float("nan"), "NaN"),
        ([math.inf], ["Infinity"]),
        ({"key": {1, 2}}, None),
        (2**70, str(2**70)),
        (b"\xff\x00", None),
        (object, None),
        ("x" * 2_000_000, None),
        ([[]] * 300_000, None),
    ],
    ids=["none", "nul", "surrogate", "nan", "infinity", "set", "large", "bytes", "class", "2 MB", "wide"],
)
async def test_whatever_a_handler_returns_is_stored_in_some_form(jobs: Jobs, result: object, stored: object):
    @jobs.handler("returns")
    async def returns() -> object:
        return result

    async with jobs.running():
        finished, job = await ran(jobs, "returns")
    assert finished.state == "succeeded"
    if result is None or stored is not None:
        assert job.result == stored
    else:
        assert job.result is not None
        assert len(json.dumps(job.result, separators=(",", ":"))) <= 1_048_576


async def test_results_that_deeply_nest_are_stored_in_some_form(jobs: Jobs):
    @jobs.handler("nests")
    async def nests() -> list:
        nest: list = []
        for _ in range(20_000):
            nest = [nest]
        return nest

    async with jobs.running():
        finished, job = await ran(jobs, "nests")
    assert finished.state == "succeeded"
    assert job.result is not None
