"""The ends of runs become durable: all of them, whatever happens, and only while the claim is ours."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from jobd import JobState
from jobd.door import Database, Link, Record
from jobd.engine.finisher import BATCH_ROWS
from jobd.errors import DatabaseUnavailable
from jobd.events import JobFinished, RunStale
from jobd.reader import Reader
from jobd.sql import Block
from tests.engine.desk import Desk, running
from tests.factories import make_job, make_jobs, query
from tests.signals import eventually, expect

NO_PARTITIONS = """do $$ declare part regclass; begin
    for part in select inhrelid from pg_inherits where inhparent = 'jobd.job_history'::regclass loop
        execute format('drop table %s', part);
    end loop;
end $$"""


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


class Unsteady(Link):
    """Loses the answer to one statement, or executes none and finds nothing, as behind another's lock."""

    unheard: str | None = None
    in_vain: str | None = None

    async def fetch(self, block: Block, *args: Any) -> list[Record]:
        if block.name == self.in_vain:
            self.in_vain = None
            return []
        rows = await super().fetch(block, *args)
        if block.name == self.unheard:
            self.unheard = None
            raise DatabaseUnavailable("the answer was lost")
        return rows


@pytest.mark.parametrize("trouble", ["unheard", "in_vain"])
async def test_an_end_that_does_not_come_back_is_no_lost_claim_by_that_alone(
    database_url: str, link: Link, trouble: str
):
    unsteady = Unsteady(Database(database_url))
    setattr(unsteady, trouble, "finish")
    id = await make_job(link, state="running")
    async with running(Desk(unsteady)) as desk, expect(desk.events, JobFinished, id=id, state="dead"):
        desk.put(id, state=JobState.DEAD, outcome="discarded")
    job = await Reader(link).get(id)
    assert (job.state, job.claim_no, len(desk.holdings)) == (JobState.DEAD, 2, 0)
    await unsteady.close()


async def test_a_partition_that_is_missing_is_made(desk: Desk, link: Link):
    await query(link, NO_PARTITIONS)
    async with expect(desk.events, JobFinished):
        desk.put(await make_job(link, state="running"))
    assert len(await query(link, "select from jobd.job_history")) == 1


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


async def test_what_is_kept_and_what_is_not_may_end_together(desk: Desk, link: Link):
    queues = ["default", "terse"] * 3
    ids = [await make_job(link, state="running", queue=queue) for queue in queues]
    async with expect(desk.events, JobFinished, count=6):
        for id, queue in zip(ids, queues, strict=True):
            desk.put(id, queue=queue)
    assert {row["id"] for row in await query(link, "select id from jobd.job_history")} == set(ids[::2])
    assert {row["id"] for row in await query(link, "select id from jobd.tombstones")} == set(ids[1::2])


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
