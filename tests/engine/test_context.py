"""What a handler is given: facts about its run, progress, and a transaction in which its job ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from jobd import HandlerError, JobContext, Jobs, JobState
from jobd.door import Link
from jobd.events import JobFinished, LateResult, RunStale
from jobd.ids import uuid7
from tests.daemon.board import EFFECTS
from tests.engine.running import ran
from tests.factories import make_worker, query, scalar
from tests.signals import eventually, expect


@pytest.fixture(autouse=True)
async def effects(link: Link) -> AsyncIterator[None]:
    await query(link, EFFECTS)
    yield


AN_HOUR = {"kind": "constant", "base": "1h", "jitter": "none"}
INSERT = "insert into public.effects (job_id, claim_no, pid, what) values ($1, $2, 0, 'inserted')"


async def inserted(link: Link) -> int:
    return int(await scalar(link, "select count(*) from public.effects"))


async def test_a_context_tells_what_was_enqueued(jobs: Jobs):
    seen: list[JobContext] = []

    @jobs.handler("looks", queue="special", max_attempts=4, timeout="90s")
    async def looks(ctx: JobContext) -> None:
        seen.append(ctx)

    async with jobs.running():
        _, job = await ran(
            jobs, "looks", tenant_id="t1", use_case="reports", priority=3, tags=["a", "b"], meta={"k": 1}
        )
    (ctx,) = seen
    assert (ctx.id, ctx.kind, ctx.queue, ctx.tenant_id, ctx.use_case) == (
        job.id,
        "looks",
        "special",
        "t1",
        "reports",
    )
    assert (ctx.attempt, ctx.max_attempts, ctx.generation, ctx.claim_no, ctx.priority) == (1, 4, 0, 1, 3)
    assert (ctx.tags, ctx.meta, ctx.fire_at, ctx.deadline) == (["a", "b"], {"k": 1}, None, None)
    assert ctx.idempotency_key == f"{job.id}:0"
    assert ctx.run_at == job.run_at
    assert job.claimed_at is not None
    assert timedelta(seconds=90) <= ctx.times_out_at - job.claimed_at < timedelta(seconds=120)


async def test_progress_is_written_at_most_once_a_second(jobs: Jobs, link: Link):
    proceed = asyncio.Event()

    @jobs.handler("reports")
    async def reports(ctx: JobContext) -> None:
        for step in range(100):
            await ctx.progress(step / 100, f"step {step}")
        await proceed.wait()
        async with asyncio.timeout(5):
            while (await ctx.jobs.get(ctx.id)).progress != {"fraction": 1.0, "note": "the end \ufffd"}:
                await ctx.progress(7, "the end \ud800")

    async with jobs.running():
        id = uuid7()
        async with expect(jobs.events, JobFinished, id=id) as finished:
            await jobs.enqueue("reports", id=id)
            await eventually(lambda: written(jobs, id))
            assert await written(jobs, id) == {"fraction": 0.0, "note": "step 0"}
            proceed.set()
    assert finished.event.outcome == "succeeded"


async def written(jobs: Jobs, id):
    return (await jobs.get(id)).progress


async def test_progress_of_a_lost_claim_ends_the_run_without_a_trace(jobs: Jobs, link: Link):
    go_on = asyncio.Event()

    @jobs.handler("reports")
    async def reports(ctx: JobContext) -> None:
        await go_on.wait()
        await ctx.progress(0.5)

    async with jobs.running():
        id = uuid7()
        async with expect(jobs.events, RunStale, id=id):
            await jobs.enqueue("reports", id=id)
            await eventually(lambda: scalar(link, "select count(*) from jobd.jobs where state = 'running'"))
            await take_over(link)
            go_on.set()
        assert await scalar(link, "select progress from jobd.jobs") is None
        await query(link, "delete from jobd.jobs")


async def take_over(link: Link) -> None:
    """What a rescue and another worker's claim leave behind."""
    another = await make_worker(link, lease=timedelta(hours=1))
    await query(link, "update jobd.jobs set claim_no = claim_no + 2, worker_id = $1::uuid", another)


async def test_a_transaction_makes_the_effect_and_the_end_of_the_job_durable_together(jobs: Jobs, link: Link):
    @jobs.handler("inserts")
    async def inserts(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)
            ctx.set_result({"rows": 1})
        row = (await query(link, "select state, result from jobd.all_jobs"))[0]
        assert (row["state"], json.loads(row["result"])) == ("succeeded", {"rows": 1})

    async with jobs.running():
        finished, job = await ran(jobs, "inserts")
    assert (finished.outcome, job.state, job.result) == ("succeeded", JobState.SUCCEEDED, {"rows": 1})
    assert await inserted(link) == 1
    assert job.claim_no == 2


@pytest.mark.parametrize("raises", [True, False])
async def test_what_a_handler_does_after_its_transaction_is_only_told(jobs: Jobs, link: Link, raises: bool):
    @jobs.handler("talks")
    async def talks(ctx: JobContext) -> str:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)
        if raises:
            raise ValueError("too late")
        return "too late"

    async with jobs.running(), expect(jobs.events, LateResult):
        finished, job = await ran(jobs, "talks")
    assert (finished.outcome, job.state, job.result, job.errors) == (
        "succeeded",
        JobState.SUCCEEDED,
        None,
        [],
    )


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


async def test_an_exception_that_cannot_be_shown_after_the_transaction_harms_nobody(jobs: Jobs):
    @jobs.handler("talks")
    async def talks(ctx: JobContext) -> None:
        async with ctx.transaction():
            pass
        raise Odd

    async with jobs.running():
        for _ in range(2):
            _, job = await ran(jobs, "talks")
            assert job.state is JobState.SUCCEEDED


async def test_an_exception_in_the_block_undoes_the_effect_and_fails_the_run(jobs: Jobs, link: Link):
    @jobs.handler("inserts", backoff=AN_HOUR)
    async def inserts(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)
            if ctx.attempt == 1:
                raise ValueError("first attempt")

    async with jobs.running():
        finished, job = await ran(jobs, "inserts")
        assert finished.outcome == "failed"
        await jobs.run_now(job.id)
        job = await jobs.wait(job.id, timeout=10)
    assert job.state is JobState.SUCCEEDED
    assert [entry["message"] for entry in job.errors] == ["first attempt"]
    rows = await query(link, "select claim_no from public.effects")
    assert [row["claim_no"] for row in rows] == [3]


async def test_an_error_of_the_database_in_the_block_is_a_failure_like_any_other(jobs: Jobs, link: Link):
    @jobs.handler("divides", max_attempts=1)
    async def divides(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)
            await tx.execute("select 1 / 0")

    async with jobs.running():
        _, job = await ran(jobs, "divides")
    assert job.state is JobState.DEAD
    assert "DivisionByZero" in job.errors[0]["type"]
    assert await inserted(link) == 0


async def test_a_stale_claim_aborts_the_transaction(jobs: Jobs, link: Link):
    @jobs.handler("inserts")
    async def inserts(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)
            await take_over(link)

    async with jobs.running():
        id = uuid7()
        async with expect(jobs.events, RunStale, id=id):
            await jobs.enqueue("inserts", id=id)
        assert await inserted(link) == 0
        assert await scalar(link, "select state from jobd.jobs") == "running"
        await query(link, "delete from jobd.jobs")


async def test_a_second_transaction_is_refused(jobs: Jobs, link: Link):
    refused = asyncio.Event()

    @jobs.handler("twice")
    async def twice(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)
        with pytest.raises(HandlerError, match="second time"):
            async with ctx.transaction():
                pass
        refused.set()

    async with jobs.running():
        _, job = await ran(jobs, "twice")
    assert job.state is JobState.SUCCEEDED
    assert refused.is_set()
    assert await inserted(link) == 1


async def test_a_transaction_in_a_transaction_undoes_both(jobs: Jobs, link: Link):
    @jobs.handler("nests", max_attempts=1)
    async def nests(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)
            async with ctx.transaction():
                pass

    async with jobs.running():
        _, job = await ran(jobs, "nests")
    assert job.state is JobState.DEAD
    assert await inserted(link) == 0


@pytest.mark.parametrize("stop", ["timeout", "cancel"])
async def test_a_run_that_is_stopped_in_its_transaction_undoes_it(jobs: Jobs, link: Link, stop: str):
    inside = asyncio.Event()

    @jobs.handler("waits", max_attempts=1, timeout="1s" if stop == "timeout" else "1h")
    async def waits(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)
            inside.set()
            await asyncio.Event().wait()

    async with jobs.running():
        id = uuid7()
        async with expect(jobs.events, JobFinished, id=id) as finished:
            await jobs.enqueue("waits", id=id)
            async with asyncio.timeout(10):
                await inside.wait()
            if stop == "cancel":
                await jobs.cancel(id)
    assert finished.event.state == ("dead" if stop == "timeout" else "cancelled")
    assert await inserted(link) == 0


async def test_jobs_that_a_handler_enqueues_in_its_transaction_come_with_its_success_only(
    jobs: Jobs, link: Link
):
    @jobs.handler("follow_up")
    async def follow_up() -> None: ...

    @jobs.handler("enqueues", max_attempts=1)
    async def enqueues(ctx: JobContext, fail: bool) -> None:
        async with ctx.transaction() as tx:
            await ctx.jobs.enqueue("follow_up", connection=tx)
            if fail:
                raise ValueError

    async with jobs.running():
        await ran(jobs, "enqueues", {"fail": True})
        assert await scalar(link, "select count(*) from jobd.all_jobs where kind = 'follow_up'") == 0
        await ran(jobs, "enqueues", {"fail": False})
        assert await scalar(link, "select count(*) from jobd.all_jobs where kind = 'follow_up'") == 1


# Kills the backend that commits, while the COMMIT is under way and before it is durable; the first time only.
ABORTS_THE_FIRST_COMMIT = """
create sequence public.commits;
create function public.abort_once() returns trigger language plpgsql as $$
begin
    if nextval('public.commits') = 1 then
        perform pg_terminate_backend(pg_backend_pid());
    end if;
    return null;
end $$;
create constraint trigger abort_once after insert on public.effects
    deferrable initially deferred for each row execute function public.abort_once();
"""


async def test_a_commit_that_was_cut_off_before_it_was_durable_is_a_failure(jobs: Jobs, link: Link):
    await link.execute_plain(ABORTS_THE_FIRST_COMMIT)

    @jobs.handler("inserts", backoff=AN_HOUR)
    async def inserts(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(INSERT, ctx.id, ctx.claim_no)

    async with jobs.running():
        finished, job = await ran(jobs, "inserts")
        assert finished.outcome == "failed"
        await jobs.run_now(job.id)
        job = await jobs.wait(job.id, timeout=10)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert await inserted(link) == 1
