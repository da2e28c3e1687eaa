"""Which jobs are taken, and when: fair between queues, none that cannot run here, suspects one at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jobd import Jobs, JobState
from jobd.door import Link
from jobd.events import JobFinished, JobStarted, LeaseRenewed, UnknownKind
from jobd.fleet import Fleet
from tests.engine.running import ran
from tests.factories import make_jobs, query, scalar
from tests.signals import eventually, expect


async def succeeded(link: Link) -> int:
    return int(await scalar(link, "select count(*) from jobd.job_history where state = 'succeeded'"))


async def test_a_kind_without_a_handler_goes_back_unburned_and_is_left_out_from_then_on(
    jobs: Jobs, link: Link
):
    @jobs.handler("known")
    async def known() -> None: ...

    async with jobs.running():
        now = datetime.now(UTC)
        finished, job = await ran(jobs, "of_a_newer_release")
        assert (finished.outcome, job.state, job.attempt, job.errors) == (
            "unknown_kind",
            JobState.SCHEDULED,
            0,
            [],
        )
        assert timedelta(seconds=14) < job.run_at - now < timedelta(seconds=25)
        again = await jobs.enqueue("of_a_newer_release")
        await ran(jobs, "known")
        async with expect(jobs.events, LeaseRenewed, count=2):
            pass
        left = await jobs.get(again.id)
        assert (left.state, left.claim_no) == (JobState.READY, 0)


async def test_another_daemon_takes_what_has_no_handler_here(jobs: Jobs, database_url: str):
    newer = Jobs(database_url, migrate="off", poll_interval="0.2s")

    @newer.handler("of_a_newer_release")
    async def handler() -> str:
        return "done"

    async with jobs.running():
        async with expect(jobs.events, UnknownKind):
            ids = await jobs.enqueue_many("of_a_newer_release", [{}] * 10)
        async with newer.running():
            for id in ids:
                await eventually(lambda id=id: succeeds_in_time(jobs, id))  # type: ignore[misc]
    for id in ids:
        job = await jobs.get(id)
        assert (job.result, job.attempt) == ("done", 1)
    await jobs.close()


async def succeeds_in_time(jobs: Jobs, id: UUID) -> bool:
    """Whether it has succeeded; what waits for another daemon's turn need not wait."""
    job = await jobs.get(id)
    if job.state is JobState.SCHEDULED:
        await jobs.run_now(id)
    return job.state is JobState.SUCCEEDED


async def test_a_paused_queue_is_left_alone_until_it_is_resumed(jobs: Jobs, link: Link):
    @jobs.handler("noop")
    async def noop() -> None: ...

    async with jobs.running():
        await Fleet(link).pause("default", by=None)
        job = await jobs.enqueue("noop")
        async with expect(jobs.events, LeaseRenewed, count=2):
            pass
        assert (await jobs.get(job.id)).state is JobState.READY
        await Fleet(link).resume("default")
        await jobs.wait(job.id, timeout=10)


async def test_a_queue_that_is_full_does_not_keep_another_waiting(jobs: Jobs, link: Link):
    order: list[str] = []

    @jobs.handler("bulk", queue="bulk")
    async def bulk() -> None:
        order.append("bulk")
        await asyncio.sleep(0.01)

    @jobs.handler("urgent", queue="urgent")
    async def urgent() -> None:
        order.append("urgent")

    async with jobs.running(concurrency=2):
        await jobs.enqueue_many("bulk", [{}] * 300)
        async with expect(jobs.events, JobStarted, count=10, kind="bulk"):
            pass
        _, job = await ran(jobs, "urgent")
        assert job.state is JobState.SUCCEEDED
        assert order.index("urgent") < 200
        await query(link, "delete from jobd.jobs where state = 'ready'")


async def test_jobs_that_one_more_crash_would_end_run_one_at_a_time_and_each_right_after_the_other(
    jobs: Jobs, link: Link
):
    now = most = began = 0

    @jobs.handler("suspect")
    async def suspect() -> None:
        nonlocal now, most, began
        now += 1
        began += 1
        most = max(most, now)
        # Some of them end while the producer asks whether there are more.
        for _ in range(began):
            await asyncio.sleep(0)
        now -= 1

    await make_jobs(link, 60, kind="suspect", crashes=2)
    async with jobs.running(poll_interval="60s"), expect(jobs.events, JobFinished, count=60, timeout=15):
        pass
    assert most == 1


async def test_victims_of_one_crash_run_again_at_the_same_time(jobs: Jobs, link: Link):
    let_go = asyncio.Event()

    @jobs.handler("victim")
    async def victim() -> None:
        await let_go.wait()

    await make_jobs(link, 20, kind="victim", crashes=1)
    async with jobs.running(concurrency=20), expect(jobs.events, JobFinished, count=20):
        running = "select count(*) from jobd.jobs where state = 'running'"
        await eventually(lambda: scalar(link, running), until=lambda count: count == 20)
        let_go.set()


async def test_a_suspect_does_not_hold_up_jobs_that_are_not(jobs: Jobs, link: Link):
    let_go = asyncio.Event()

    @jobs.handler("suspect")
    async def suspect() -> None:
        await let_go.wait()

    @jobs.handler("fine")
    async def fine() -> None: ...

    await make_jobs(link, 3, kind="suspect", crashes=2)
    await make_jobs(link, 30, kind="fine")
    async with jobs.running():
        await eventually(lambda: succeeded(link), until=lambda count: count == 30)
        assert await scalar(link, "select count(*) from jobd.jobs where state = 'running'") == 1
        let_go.set()
        await eventually(lambda: succeeded(link), until=lambda count: count == 33)


async def test_it_claims_no_more_than_it_has_slots_for(jobs: Jobs, link: Link):
    let_go = asyncio.Event()

    @jobs.handler("waits")
    async def waits() -> None:
        await let_go.wait()

    async with jobs.running(concurrency=7):
        async with expect(jobs.events, JobStarted, count=7):
            await jobs.enqueue_many("waits", [{}] * 20)
        async with expect(jobs.events, LeaseRenewed, count=2):
            pass
        assert await scalar(link, "select count(*) from jobd.jobs where state = 'running'") == 7
        let_go.set()
        await eventually(lambda: succeeded(link), until=lambda count: count == 20)
    assert await scalar(link, "select count(*) from jobd.job_history where claim_no <> 2") == 0


async def test_connections_that_are_cut_again_and_again_cost_no_job_and_no_crash(jobs: Jobs, link: Link):
    @jobs.handler("nap")
    async def nap() -> None:
        await asyncio.sleep(0.002)

    async with jobs.running(concurrency=10):
        ids = await jobs.enqueue_many("nap", [{}] * 1000)
        for done in range(100, 800, 100):
            await eventually(lambda: succeeded(link), until=lambda count: count >= done)  # noqa: B023
            await query(
                link,
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()",
            )
        await eventually(lambda: succeeded(link), until=lambda count: count == 1000, timeout=30)
    rows = await query(link, "select crashes, attempt, count(*) from jobd.job_history group by 1, 2")
    assert [(row["crashes"], row["attempt"], row["count"]) for row in rows] == [(0, 1, 1000)]
    assert len(ids) == 1000


async def test_more_victims_than_slots_run_one_after_the_other_without_waiting_for_a_poll(
    jobs: Jobs, link: Link
):
    @jobs.handler("victim")
    async def victim() -> None:
        pass

    await make_jobs(link, 12, kind="victim", crashes=1)
    async with (
        jobs.running(concurrency=1, poll_interval="1h"),
        expect(jobs.events, JobFinished, count=12, timeout=15),
    ):
        pass


async def test_a_backlog_does_not_keep_victims_of_a_crash_out(jobs: Jobs, link: Link):
    order: list[str] = []

    @jobs.handler("plain")
    async def plain() -> None:
        order.append("plain")
        await asyncio.sleep(0.002)

    @jobs.handler("victim")
    async def victim() -> None:
        order.append("victim")

    await make_jobs(link, 3000, kind="plain", run_at=datetime.now(UTC) - timedelta(hours=1))
    async with jobs.running(concurrency=2):
        await eventually(lambda: len(order), until=lambda begun: begun > 100)
        await make_jobs(link, 4, kind="victim", crashes=1)
        await eventually(lambda: order.count("victim"), until=lambda begun: begun == 4)
        assert order.count("plain") < 3000


async def test_a_slot_that_is_free_takes_what_another_queue_has(jobs: Jobs, link: Link):
    let_go = asyncio.Event()
    begun: list[str] = []

    for name in ("a", "b", "c"):

        @jobs.handler(f"in_{name}", queue=name)
        async def handler(name: str) -> None:
            begun.append(name)
            await let_go.wait()

    await make_jobs(link, 5, queue="a", kind="in_a", payload={"name": "a"})
    async with jobs.running(concurrency=2, poll_interval="1h"):
        await eventually(lambda: len(begun), until=lambda count: count == 2)
        let_go.set()
        await eventually(lambda: len(begun), until=lambda count: count == 5)
