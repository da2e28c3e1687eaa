"""`[queues.NAME] keep`: what a whole daemon leaves of the jobs that it ran."""

from __future__ import annotations

import pytest

from jobd import Cancel, Discard, JobContext, Jobs, JobState
from jobd.door import Link
from tests.engine.running import ran
from tests.factories import query, scalar


@pytest.fixture
def pings(jobs: Jobs) -> Jobs:
    @jobs.handler("returns", queue="pings")
    async def returns() -> dict[str, int]:
        return {"r": 1}

    @jobs.handler("records", queue="pings")
    async def records(ctx: JobContext) -> None:
        async with ctx.transaction() as tx:
            await tx.execute("select 1")
            ctx.set_result({"r": 1})

    @jobs.handler("fails", queue="pings", max_attempts=1)
    async def fails() -> None:
        raise ValueError("no")

    @jobs.handler("discards", queue="pings")
    async def discards() -> None:
        raise Discard("useless")

    @jobs.handler("cancels", queue="pings")
    async def cancels() -> None:
        raise Cancel("stop")

    return jobs


SUCCESSES = ("returns", "records")
ENDS = {
    "returns": JobState.SUCCEEDED,
    "records": JobState.SUCCEEDED,
    "fails": JobState.DEAD,
    "discards": JobState.DEAD,
    "cancels": JobState.CANCELLED,
}


@pytest.mark.parametrize("keep", ["all", "errors", "nothing"])
async def test_a_queue_keeps_what_its_settings_say(pings: Jobs, link: Link, keep: str):
    pings.overrides["queues"] = {"pings": {"keep": keep}}
    async with pings.running():
        for kind, state in ENDS.items():
            event, job = await ran(pings, kind, {})
            kept = keep == "all" or (keep == "errors" and kind not in SUCCESSES)
            assert (event.state, job.state, job.kept) == (state, state, kept), kind
            assert job.finished_at is not None
            assert (await pings.wait(job.id, timeout="5s")).state is state
            assert job.result == ({"r": 1} if kept and kind in SUCCESSES else None)
            if kept:
                assert job.payload == {}
            else:
                assert job.reason is not None
                assert job.reason.startswith("not kept: queue pings keeps")
    rows = await query(link, "select name, keep from jobd.queues order by name")
    assert [tuple(row) for row in rows] == [("default", "all"), ("pings", keep)]
    assert (
        await scalar(link, "select count(*) from jobd.tombstones")
        == {"all": 0, "errors": 2, "nothing": 5}[keep]
    )


async def test_other_queues_keep_everything(pings: Jobs):
    pings.overrides["queues"] = {"pings": {"keep": "nothing"}}
    async with pings.running():
        _, job = await ran(pings, "returns", {}, queue="default")
    assert (job.kept, job.result, job.payload) == (True, {"r": 1}, {})
