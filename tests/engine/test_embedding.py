"""The daemon inside another application: `async with jobs.running():`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time

import pytest

from jobd import ConfigError, Jobs, JobState
from jobd.door import Link
from jobd.events import LeaseRenewed
from tests.engine.running import ran
from tests.factories import scalar
from tests.signals import eventually, expect


async def test_the_application_s_own_tasks_go_on_beside_the_handlers(jobs: Jobs):
    ticks = 0

    async def own_work() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    @jobs.handler("waits_for_ticks")
    async def waits_for_ticks() -> int:
        before = ticks
        while ticks < before + 100:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return ticks - before

    own = asyncio.ensure_future(own_work())
    async with jobs.running():
        _, job = await ran(jobs, "waits_for_ticks")
    own.cancel()
    assert job.result >= 100


async def test_signals_and_threads_of_the_application_are_left_alone(jobs: Jobs):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    threads = set(threading.enumerate())
    async with jobs.running():
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    left = {thread.name for thread in set(threading.enumerate()) - threads if not thread.daemon}
    assert left <= {"asyncio_0"}  # the loop's own executor
    assert not [thread for thread in threading.enumerate() if thread.name == "jobd-control"]


async def test_leaving_the_block_ends_running_jobs_as_a_shutdown_does(jobs: Jobs, link: Link):
    started = asyncio.Event()

    @jobs.handler("endless")
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with jobs.running(shutdown_grace="0s"):
        job = await jobs.enqueue("endless")
        async with asyncio.timeout(10):
            await started.wait()
    async with jobs:
        back = await jobs.get(job.id)
    assert (back.state, back.attempt, back.crashes) == (JobState.READY, 0, 0)
    assert await scalar(link, "select count(*) from jobd.workers") == 0


async def test_an_exception_in_the_block_gets_out_and_the_daemon_ends(jobs: Jobs, link: Link):
    with pytest.raises(LookupError):
        async with jobs.running():
            raise LookupError
    assert await scalar(link, "select count(*) from jobd.workers") == 0


async def test_the_block_can_be_entered_again(jobs: Jobs):
    @jobs.handler("noop")
    async def noop() -> None: ...

    for _ in range(2):
        async with jobs.running():
            _, job = await ran(jobs, "noop")
            assert job.state is JobState.SUCCEEDED


async def test_leaving_the_block_does_not_wait_for_a_handler_that_swallows_its_cancellation(jobs: Jobs):
    started, let_go = asyncio.Event(), asyncio.Event()

    @jobs.handler("stubborn")
    async def stubborn() -> None:
        started.set()
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    loop = asyncio.get_running_loop()
    rescue = loop.call_later(20, let_go.set)  # a test that fails must end, too
    async with jobs.running(shutdown_grace="0s"):
        job = await jobs.enqueue("stubborn")
        async with asyncio.timeout(10):
            await started.wait()
        left_at = time.monotonic()
    assert time.monotonic() - left_at < 15
    let_go.set()
    rescue.cancel()
    async with jobs:
        assert (await jobs.get(job.id)).state is JobState.READY


async def test_two_applications_in_one_process_do_not_meet(jobs: Jobs, database_url: str):
    other = Jobs(database_url, migrate="off", poll_interval="0.2s")

    @jobs.handler("mine", queue="mine")
    async def mine() -> str:
        return "mine"

    @other.handler("theirs", queue="theirs")
    async def theirs() -> str:
        return "theirs"

    async with jobs.running(queues=["mine"]), other.running(queues=["theirs"]):
        _, job = await ran(jobs, "mine")
        assert job.result == "mine"
        _, job = await ran(other, "theirs")
        assert job.result == "theirs"


async def test_a_daemon_needs_a_database(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JOBD_DATABASE_URL", raising=False)
    with pytest.raises(ConfigError, match="JOBD_DATABASE_URL"):
        async with Jobs().running():
            pass


async def test_unknown_roles_are_refused(jobs: Jobs):
    with pytest.raises(ConfigError, match="workr"):
        async with jobs.running(roles=["workr"]):
            pass


async def test_a_scheduler_alone_runs_no_job_but_stages_those_that_are_due(jobs: Jobs, link: Link):
    @jobs.handler("noop")
    async def noop() -> None: ...

    async with jobs.running(roles=["scheduler"]):
        job = await jobs.enqueue("noop", delay="0.1s")
        await eventually(lambda: in_state(jobs, job.id, JobState.READY))
        async with expect(jobs.events, LeaseRenewed):
            pass
        assert await in_state(jobs, job.id, JobState.READY)


async def in_state(jobs: Jobs, id, state: JobState) -> bool:
    return (await jobs.get(id)).state is state


async def test_a_handler_can_enqueue_and_wait_for_another_job(jobs: Jobs):
    @jobs.handler("child")
    async def child(n: int) -> int:
        return n * 2

    @jobs.handler("parent")
    async def parent() -> int:
        ids = await jobs.enqueue_many("child", [{"n": n} for n in range(5)])
        return sum([(await jobs.wait(id, timeout=10)).result for id in ids])

    async with jobs.running():
        _, job = await ran(jobs, "parent")
    assert job.result == 20
