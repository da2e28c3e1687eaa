"""What handlers do and how it ends: each way out of a handler is one outcome, and none ends the daemon."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from jobd import Cancel, Discard, JobContext, Jobs, JobState, RetryAfter, Snooze
from jobd.engine import maintenance
from jobd.events import LeaseRenewed
from tests.engine.running import ran
from tests.signals import eventually


class Odd(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no string either")

    __repr__ = __str__


async def test_what_a_handler_returns_is_the_result(jobs: Jobs):
    @jobs.handler("add")
    async def add(a: int, b: int) -> dict:
        return {"sum": a + b}

    async with jobs.running():
        finished, job = await ran(jobs, "add", {"a": 1, "b": 2})
    assert (finished.state, finished.outcome) == ("succeeded", "succeeded")
    assert job.state is JobState.SUCCEEDED
    assert job.result == {"sum": 3}
    assert (job.attempt, job.errors, job.claim_no) == (1, [], 2)


class BrokenSnooze(Snooze):
    """Forgets what it is made of."""

    def __init__(self) -> None:
        pass


async def test_an_answer_that_is_broken_is_a_failure(jobs: Jobs):
    @jobs.handler("snoozes")
    async def snoozes() -> None:
        raise BrokenSnooze

    async with jobs.running():
        finished, job = await ran(jobs, "snoozes")
    assert finished.outcome == "failed"
    assert job.errors[0]["type"] == "AttributeError"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no good"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopAsyncIteration(),
        ExceptionGroup("two", [ValueError(1), TypeError(2)]),
        Odd(),
        ValueError("NUL \x00 and surrogate \ud800"),
        ValueError("x" * 5_000_000),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_handler_raises_is_a_failure_that_is_recorded_and_tried_again(
    jobs: Jobs, error: BaseException
):
    @jobs.handler("fails", backoff={"kind": "constant", "base": "1h", "jitter": "none"})
    async def fails() -> None:
        raise error

    @jobs.handler("fine")
    async def fine() -> str:
        return "fine"

    async with jobs.running():
        finished, job = await ran(jobs, "fails")
        assert (finished.state, finished.outcome) == ("scheduled", "failed")
        assert job.state is JobState.SCHEDULED
        (entry,) = job.errors
        assert entry["attempt"] == 1
        assert entry["type"].split(".")[-1] == type(error).__name__
        assert len(entry["message"]) < 20_000
        # And the daemon goes on.
        _, job = await ran(jobs, "fine")
        assert job.result == "fine"


async def test_the_errors_of_every_attempt_are_kept_until_the_job_is_dead(jobs: Jobs):
    @jobs.handler("fails", max_attempts=3, backoff={"kind": "constant", "base": "0s"})
    async def fails(ctx: JobContext) -> None:
        raise LookupError(f"attempt {ctx.attempt} of {ctx.max_attempts}")

    async with jobs.running():
        job = await jobs.wait((await jobs.enqueue("fails")).id, timeout=10)
    assert job.state is JobState.DEAD
    assert [entry["message"] for entry in job.errors] == [f"attempt {n} of 3" for n in (1, 2, 3)]
    assert [entry["attempt"] for entry in job.errors] == [1, 2, 3]
    assert all("LookupError" in entry["traceback"] for entry in job.errors)
    assert job.attempt == 3
    assert job.reason is not None
    assert "attempt 3 of 3" in job.reason


async def test_snooze_gives_the_attempt_back_and_runs_the_job_later(jobs: Jobs):
    @jobs.handler("snoozes", max_attempts=1)
    async def snoozes(ctx: JobContext) -> int:
        if ctx.claim_no < 5:
            raise Snooze("1h" if ctx.claim_no == 1 else "0.1s", "not yet")
        return ctx.attempt

    async with jobs.running():
        finished, job = await ran(jobs, "snoozes")
        assert (finished.state, finished.outcome, finished.reason) == ("scheduled", "snoozed", "not yet")
        assert job.attempt == 0
        await jobs.run_now(job.id)
        done = await jobs.wait(job.id, timeout=10)
    assert (done.state, done.result, done.errors) == (JobState.SUCCEEDED, 1, [])
    assert done.claim_no == 6


async def test_cancel_and_discard_end_a_job_with_their_reason(jobs: Jobs):
    @jobs.handler("cancels")
    async def cancels() -> None:
        raise Cancel("not wanted any more")

    @jobs.handler("discards")
    async def discards() -> None:
        raise Discard("hopeless")

    async with jobs.running():
        _, cancelled = await ran(jobs, "cancels")
        _, discarded = await ran(jobs, "discards")
    assert (cancelled.state, cancelled.reason) == (JobState.CANCELLED, "not wanted any more")
    assert (discarded.state, discarded.reason) == (JobState.DEAD, "hopeless")


async def test_retry_after_counts_as_a_failure_and_sets_the_delay(jobs: Jobs):
    @jobs.handler("later", max_attempts=2)
    async def later() -> None:
        raise RetryAfter("1h", "rate limited")

    async with jobs.running():
        before = datetime.now(UTC)
        _, job = await ran(jobs, "later")
        assert job.state is JobState.SCHEDULED
        assert timedelta(minutes=59) < job.run_at - before < timedelta(minutes=61)
        assert [entry["message"] for entry in job.errors] == ["rate limited"]
        await jobs.run_now(job.id)
        dead = await jobs.wait(job.id, timeout=10)
    assert dead.state is JobState.DEAD
    assert len(dead.errors) == 2


async def test_a_coroutine_that_takes_too_long_is_cancelled_and_fails_as_timed_out(jobs: Jobs):
    cleaned_up = asyncio.Event()

    @jobs.handler("slow", timeout="0.2s")
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    async with jobs.running():
        finished, job = await ran(jobs, "slow")
    assert cleaned_up.is_set()
    assert (finished.state, finished.outcome) == ("scheduled", "timed_out")
    assert "0.2 s" in job.errors[0]["message"]
    assert job.errors[0]["type"] == "TimeoutError"


async def test_the_time_limit_of_a_job_counts_before_that_of_its_handler(jobs: Jobs):
    @jobs.handler("slow", timeout="1h")
    async def slow() -> None:
        await asyncio.Event().wait()

    async with jobs.running():
        finished, _ = await ran(jobs, "slow", timeout="0.1s", max_attempts=1)
    assert (finished.state, finished.outcome) == ("dead", "timed_out")


async def test_a_handler_that_swallows_its_cancellation_is_abandoned_and_its_slot_is_free(jobs: Jobs):
    let_go = asyncio.Event()

    @jobs.handler("stubborn", timeout="0.1s")
    async def stubborn() -> None:
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    @jobs.handler("fine")
    async def fine() -> str:
        return "fine"

    async with jobs.running(concurrency=1):
        finished, _ = await ran(jobs, "stubborn", backoff="constant")
        assert finished.outcome == "timed_out"
        _, job = await ran(jobs, "fine")
        assert job.result == "fine"
        let_go.set()


async def test_a_success_during_the_cancellation_of_a_time_limit_stays_one(jobs: Jobs):
    @jobs.handler("just_made_it", timeout="0.1s")
    async def just_made_it() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done after all"
        return "never"

    async with jobs.running():
        _, job = await ran(jobs, "just_made_it")
    assert (job.state, job.result) == (JobState.SUCCEEDED, "done after all")


@pytest.mark.parametrize("notify", ["on", "off"])
async def test_the_cancel_of_a_running_job_really_cancels_its_handler(jobs: Jobs, notify: str):
    started, cleaned_up = asyncio.Event(), asyncio.Event()

    @jobs.handler("endless")
    async def endless(ctx: JobContext) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.cancelled
            cleaned_up.set()

    async with jobs.running(notify=notify):
        job = await jobs.enqueue("endless")
        async with asyncio.timeout(10):
            await started.wait()
        assert await jobs.cancel(job.id) is JobState.RUNNING
        done = await jobs.wait(job.id, timeout=5)
    assert cleaned_up.is_set()
    assert (done.state, done.reason) == (JobState.CANCELLED, "cancelled on request")


async def test_without_notifications_a_cancel_arrives_with_the_next_beat(jobs: Jobs):
    started = asyncio.Event()
    beats: list[LeaseRenewed] = []
    seen: list[int] = []
    jobs.events.subscribe(LeaseRenewed, beats.append)

    @jobs.handler("endless")
    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(len(beats))

    async with jobs.running(notify="off", heartbeat="0.5s"):
        job = await jobs.enqueue("endless")
        async with asyncio.timeout(10):
            await started.wait()
        await jobs.cancel(job.id)
        before = len(beats)
        await jobs.wait(job.id, timeout=10)
    # The next beat sees it; another one may come before the handler has its turn.
    assert seen[0] - before <= 2


async def test_a_kind_runs_at_most_as_often_at_once_as_its_handler_allows(jobs: Jobs):
    now, most = {"limited": 0, "free": 0}, {"limited": 0, "free": 0}
    all_free = asyncio.Event()

    async def busy(kind: str) -> None:
        now[kind] += 1
        most[kind] = max(most[kind], now[kind])
        if now["free"] == 8:
            all_free.set()
        await (all_free.wait() if kind == "free" else asyncio.sleep(0.01))
        now[kind] -= 1

    @jobs.handler("limited", concurrency=2)
    async def limited() -> None:
        await busy("limited")

    @jobs.handler("free")
    async def free() -> None:
        await busy("free")

    async with jobs.running(concurrency=10):
        # The limited ones stand first in the queue, and must not keep the others waiting.
        await jobs.enqueue_many("limited", [{}] * 30)
        ids = await jobs.enqueue_many("free", [{}] * 8)
        for id in ids:
            await jobs.wait(id, timeout=10)
        assert most == {"limited": 2, "free": 8}
        await eventually(lambda: finished(jobs, 38))
    assert most["limited"] == 2


async def finished(jobs: Jobs, count: int) -> bool:
    return len(await jobs.client.list(state="succeeded", count=100)) >= count


async def test_a_queue_runs_at_most_as_many_jobs_at_once_as_its_settings_allow(jobs: Jobs):
    now = most = 0

    @jobs.handler("busy", queue="narrow")
    async def busy() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    jobs.overrides["queues"] = {"narrow": {"concurrency": 3}}
    async with jobs.running(concurrency=10):
        await jobs.enqueue_many("busy", [{}] * 20)
        await eventually(lambda: finished(jobs, 20))
    assert most == 3


async def test_higher_priorities_start_first_and_older_jobs_before_younger_ones(jobs: Jobs):
    order: list[str] = []

    @jobs.handler("note")
    async def note(name: str) -> None:
        order.append(name)

    async with jobs:
        for name, priority in [("low", -1), ("first", 0), ("second", 0), ("high", 5), ("third", 0)]:
            await jobs.enqueue("note", {"name": name}, priority=priority)
    async with jobs.running(concurrency=1):
        await eventually(lambda: finished(jobs, 5))
    assert order == ["high", "first", "second", "third", "low"]


async def test_a_delayed_job_starts_at_its_time_and_not_before(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    # Nothing is found by looking around.
    monkeypatch.setattr(maintenance, "LONGEST_SLEEP", 60.0)
    started_at: list[datetime] = []

    @jobs.handler("note")
    async def note() -> None:
        started_at.append(datetime.now(UTC))

    async with jobs:
        # Before the daemon is there: of a job that comes while it sleeps it knows with its next look.
        made = await jobs.enqueue("note", delay="2s")
    async with jobs.running(poll_interval="60s"):
        job = await jobs.wait(made.id, timeout=10)
    late = (started_at[0] - job.run_at).total_seconds()
    assert 0 <= late < 10, late


async def test_raise_if_cancelled_at_a_shutdown_hands_the_job_back(jobs: Jobs):
    started = asyncio.Event()

    @jobs.handler("checks")
    async def checks(ctx: JobContext) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ctx.raise_if_cancelled()

    async with jobs.running(shutdown_grace="0s"):
        job = await jobs.enqueue("checks")
        async with asyncio.timeout(10):
            await started.wait()
    async with jobs:
        assert (await jobs.get(job.id)).state is JobState.READY


async def test_the_memory_of_a_run_is_given_back_with_its_end(jobs: Jobs):
    class Big:
        alive = 0

        def __init__(self) -> None:
            Big.alive += 1

        def __del__(self) -> None:
            Big.alive -= 1

    @jobs.handler("holds")
    async def holds(ctx: JobContext) -> None:
        ctx.big = Big()  # type: ignore[attr-defined]

    async with jobs.running():
        ids = await jobs.enqueue_many("holds", [{}] * 50)
        for id in ids:
            await jobs.wait(id, timeout=10)
        assert Big.alive <= 2
