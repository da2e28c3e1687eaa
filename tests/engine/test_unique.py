"""Unique keys of jobs that run in a daemon of this process."""

from __future__ import annotations

from jobd import Enqueued, Jobs, JobState, Snooze
from jobd.context import JobContext
from jobd.events import JobFinished, UniqueKeyLost
from tests.signals import expect


async def test_who_runs_again_without_its_key_is_told_of(jobs: Jobs):
    """At once, and once more: what is enqueued while a job runs waits beside its next attempt."""
    siblings: list[Enqueued] = []

    @jobs.handler("sync", backoff={"kind": "constant", "base": "1h", "jitter": "none"}, max_attempts=2)
    async def sync(ctx: JobContext) -> None:
        if not siblings:
            siblings.append(await jobs.enqueue("sync", unique_key="a", unique_for="waiting", delay="1h"))
            raise ValueError("not this time")

    async with jobs.running():
        async with expect(jobs.events, UniqueKeyLost) as lost, expect(jobs.events, JobFinished):
            job = await jobs.enqueue("sync", unique_key="a", unique_for="waiting")
        assert lost.event.id == job.id
        assert (await jobs.get(job.id)).unique_for == "lost"
        held = await jobs.enqueue("sync", unique_key="a", unique_for="waiting")
        assert (held.id, held.created) == (siblings[0].id, False)
        await jobs.run_now(job.id)
        assert (await jobs.wait(job.id, timeout=10)).state is JobState.SUCCEEDED


async def test_a_job_that_snoozes_holds_its_key_while_it_waits(jobs: Jobs):
    @jobs.handler("sync")
    async def sync(ctx: JobContext) -> None:
        raise Snooze("1h")

    async with jobs.running():
        async with expect(jobs.events, JobFinished):
            job = await jobs.enqueue("sync", unique_key="a", unique_for="waiting")
        again = await jobs.enqueue("sync", unique_key="a", unique_for="waiting")
        assert (again.id, again.created) == (job.id, False)
