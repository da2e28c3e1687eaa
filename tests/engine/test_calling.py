"""Where handlers run, and what stands around them: threads, processes, middleware, resources."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from jobd import Discard, HandlerError, JobContext, Jobs, JobState
from jobd.door import Link
from jobd.events import JobFinished, LeaseRenewed
from jobd.ids import uuid7
from tests.engine import process_jobs
from tests.engine.running import ran
from tests.factories import scalar
from tests.signals import eventually, expect


async def test_a_plain_function_runs_in_a_thread_and_the_loop_goes_on(jobs: Jobs):
    met = threading.Event()

    @jobs.handler("waits")
    def waits() -> str:
        assert met.wait(10)
        return threading.current_thread().name

    @jobs.handler("frees")
    async def frees() -> None:
        met.set()

    async with jobs.running():
        waiting = await jobs.enqueue("waits")
        await ran(jobs, "frees")
        job = await jobs.wait(waiting.id, timeout=10)
    assert job.result.startswith("jobd-handler")


@pytest.mark.parametrize(
    "error",
    [SystemExit(1), KeyboardInterrupt(), StopIteration("stop"), ValueError("no")],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_thread_raises_is_a_failure(jobs: Jobs, error: BaseException):
    @jobs.handler("fails", backoff={"kind": "constant", "base": "1h", "jitter": "none"})
    def fails() -> None:
        raise error

    async with jobs.running():
        finished, job = await ran(jobs, "fails")
    assert finished.outcome == "failed"
    assert job.state is JobState.SCHEDULED
    assert type(error).__name__ in job.errors[0]["type"] + job.errors[0]["message"]


async def test_a_thread_that_takes_too_long_is_told_and_keeps_its_slot_until_it_ends(jobs: Jobs):
    let_go, seen = threading.Event(), threading.Event()

    @jobs.handler("endless", timeout="1s", max_attempts=1)
    def endless(ctx: JobContext) -> None:
        while not ctx.cancelled:
            time.sleep(0.01)
        seen.set()
        assert let_go.wait(10)

    @jobs.handler("fine")
    async def fine() -> str:
        return "fine"

    async with jobs.running(concurrency=1):
        finished, job = await ran(jobs, "endless")
        assert (finished.outcome, job.state) == ("timed_out", JobState.DEAD)
        assert await asyncio.to_thread(seen.wait, 10)
        waiting = await jobs.enqueue("fine")
        async with expect(jobs.events, LeaseRenewed, count=2):  # several polls
            pass
        assert (await jobs.get(waiting.id)).state is JobState.READY
        let_go.set()
        assert (await jobs.wait(waiting.id, timeout=10)).result == "fine"


async def test_a_thread_can_report_progress_through_its_context(jobs: Jobs):
    looked = threading.Event()

    @jobs.handler("reports")
    def reports(ctx: JobContext) -> None:
        ctx.call(ctx.progress(0.5, "half"))
        assert looked.wait(10)

    async with jobs.running():
        id = uuid7()
        async with expect(jobs.events, JobFinished, id=id):
            await jobs.enqueue("reports", id=id)
            job = await eventually(lambda: jobs.get(id), until=lambda job: job.progress is not None)
            looked.set()
    assert job.progress == {"fraction": 0.5, "note": "half"}


async def test_context_variables_of_a_run_are_seen_in_its_thread(jobs: Jobs):
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    @jobs.middleware
    async def sets(ctx: JobContext, call_next: Callable[[], Any]) -> Any:
        variable.set(f"attempt {ctx.attempt}")
        return await call_next()

    @jobs.handler("reads")
    def reads() -> str:
        return variable.get()

    async with jobs.running():
        _, job = await ran(jobs, "reads")
    assert job.result == "attempt 1"


async def test_a_process_handler_runs_elsewhere_and_returns_its_result(jobs: Jobs):
    jobs.handler("pid", run_in="process")(process_jobs.pid)
    async with jobs.running():
        _, job = await ran(jobs, "pid")
    assert job.result != os.getpid()


async def test_a_process_that_dies_fails_its_own_job_only(jobs: Jobs):
    jobs.handler("dies", run_in="process")(process_jobs.dies)
    jobs.handler("pid", run_in="process")(process_jobs.pid)
    async with jobs.running(concurrency=4):
        finished, job = await ran(jobs, "dies", {"code": 7})
        assert finished.outcome == "failed"
        assert "exit code 7" in job.errors[0]["message"]
        assert job.crashes == 0
        _, job = await ran(jobs, "pid")
        assert isinstance(job.result, int)


async def test_a_process_that_takes_too_long_is_killed(jobs: Jobs, tmp_path: Path):
    jobs.handler("sleeps", run_in="process", timeout="1s", max_attempts=1)(process_jobs.sleeps)
    jobs.handler("pid", run_in="process")(process_jobs.pid)
    async with jobs.running():
        await ran(jobs, "pid")  # its process is there, and serves the next one, too
        finished, job = await ran(jobs, "sleeps", {"path": str(tmp_path / "pid")})
    assert (finished.outcome, job.state) == ("timed_out", JobState.DEAD)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_what_a_process_raises_keeps_its_meaning(jobs: Jobs):
    jobs.handler("discards", run_in="process")(process_jobs.discards)
    jobs.handler("exits", run_in="process")(process_jobs.exits)
    async with jobs.running():
        _, job = await ran(jobs, "discards")
        assert (job.state, job.reason) == (JobState.DEAD, "hopeless")
        finished, job = await ran(jobs, "exits")
        assert finished.outcome == "failed"


async def test_middleware_stands_around_every_run_the_first_declared_outermost(jobs: Jobs):
    calls: list[str] = []

    def named(name: str):
        async def around(ctx: JobContext, call_next: Callable[[], Any]) -> Any:
            calls.append(f"{name} in")
            try:
                return await call_next()
            finally:
                calls.append(f"{name} out")

        return around

    jobs.middleware(named("outer"))
    jobs.middleware(named("inner"))

    @jobs.handler("note")
    async def note() -> str:
        calls.append("handler")
        return "from the handler"

    async with jobs.running():
        _, job = await ran(jobs, "note")
    assert calls == ["outer in", "inner in", "handler", "inner out", "outer out"]
    assert job.result == "from the handler"


async def test_middleware_may_refuse_change_or_answer_a_run(jobs: Jobs):
    @jobs.middleware
    async def guards(ctx: JobContext, call_next: Callable[[], Any]) -> Any:
        match ctx.tags:
            case ["refuse"]:
                raise Discard("refused")
            case ["answer"]:
                return "answered"
        return f"changed {await call_next()}"

    @jobs.handler("note")
    async def note() -> str:
        return "result"

    async with jobs.running():
        _, refused = await ran(jobs, "note", tags=["refuse"])
        _, answered = await ran(jobs, "note", tags=["answer"])
        _, changed = await ran(jobs, "note")
    assert refused.reason == "refused"
    assert (answered.result, changed.result) == ("answered", "changed result")


class Connection:
    def __init__(self) -> None:
        self.open = True


async def test_resources_are_opened_once_injected_by_type_and_closed_at_the_end(jobs: Jobs):
    opened: list[Connection] = []

    @jobs.lifespan
    async def connections() -> AsyncIterator[Connection]:
        opened.append(Connection())
        yield opened[-1]
        opened[-1].open = False

    @jobs.handler("uses")
    async def uses(ctx: JobContext, connection: Connection, n: int) -> list:
        return [connection is opened[0], connection.open, n]

    async with jobs.running():
        for n in range(3):
            _, job = await ran(jobs, "uses", {"n": n})
            assert job.result == [True, True, n]
    assert [connection.open for connection in opened] == [False]


async def test_a_daemon_whose_resources_cannot_be_opened_does_not_start(jobs: Jobs):
    @jobs.lifespan
    async def broken() -> AsyncIterator[Connection]:
        yield await refused()

    async def refused() -> Connection:
        raise ConnectionError("no way")

    with pytest.raises(ConnectionError, match="no way"):
        async with jobs.running():
            raise AssertionError("it runs")


async def test_two_resources_of_one_type_are_refused(jobs: Jobs):
    jobs.resource(Connection, Connection())
    with pytest.raises(HandlerError, match="Connection"):
        jobs.resource(Connection, Connection())


async def test_a_payload_that_does_not_fit_its_handler_is_a_failure_that_names_the_path(
    jobs: Jobs, link: Link
):
    @jobs.handler("typed")
    async def typed(n: int) -> None: ...

    async with jobs.running():
        # Past the client's own check, as another language would.
        id = await scalar(
            link, """select id from jobd.enqueue(kind => 'typed', payload => '{"n": "many"}')"""
        )
        job = await eventually(lambda: jobs.get(id), until=lambda job: job.errors)
    assert job.errors[0]["type"].endswith("PayloadError")
    assert "$.n" in job.errors[0]["message"]
