"""A COMMIT whose answer never came: `pg_xact_status` decides, so the effect is neither lost nor doubled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from jobd import JobContext, Jobs, JobState
from jobd.door import Database, Link
from jobd.events import JobFinished
from jobd.ids import uuid7
from tests.daemon.board import EFFECTS
from tests.factories import assert_consistent, query, scalar
from tests.postgres import PostgresServer, running_server
from tests.signals import eventually, expect


@pytest.fixture(scope="module")
def waiting_server() -> Iterator[PostgresServer]:
    """A server on which a commit with synchronous_commit = on waits for a standby that never comes."""
    with running_server(synchronous_standby_names="nobody", synchronous_commit="local") as server:
        server.execute("create database waiting")
        server.migrate("waiting")
        yield server


@pytest.fixture
async def waiting_link(waiting_server: PostgresServer) -> AsyncIterator[Link]:
    link = Link(Database(waiting_server.dsn("waiting")))
    await query(link, EFFECTS)
    yield link
    await assert_consistent(link)
    await link.close()


async def test_a_commit_that_was_durable_when_its_answer_was_lost_is_a_success(
    waiting_server: PostgresServer, waiting_link: Link
):
    jobs = Jobs(waiting_server.dsn("waiting"), migrate="off", poll_interval="0.2s")

    @jobs.handler("inserts")
    async def inserts(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute("set local synchronous_commit = on")
            await tx.execute(
                "insert into public.effects values ($1, $2, 0, 'inserted')", ctx.id, ctx.claim_no
            )

    async with jobs.running():
        id = uuid7()
        async with expect(jobs.events, JobFinished, id=id) as finished:
            await jobs.enqueue("inserts", id=id)
            # Its commit record is written; only the answer is held back.
            await eventually(lambda: cut_off(waiting_link))
        job = await jobs.get(id)
    assert finished.event.outcome == "succeeded"
    assert (job.state, job.claim_no, job.errors) == (JobState.SUCCEEDED, 2, [])
    assert await scalar(waiting_link, "select count(*) from public.effects") == 1


async def cut_off(link: Link) -> list:
    return await query(
        link, "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"
    )
