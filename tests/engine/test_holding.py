"""Claims beyond the free slots: held in their order, for a moment, and never at anybody's cost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta

import pytest

from jobd import Jobs, JobState
from jobd.door import Link
from jobd.engine import executor as engine_executor
from jobd.engine import limits as engine_limits
from jobd.engine import prefetch as engine_prefetch
from jobd.engine.holdings import Stop
from jobd.events import JobFinished, JobStarted, LeaseRenewed, RunStale
from tests.engine.hands import Hands, hands_on, turn
from tests.factories import make_worker, query, scalar
from tests.signals import eventually, expect

HOUR = timedelta(hours=1)
RUNNING = "select count(*) from jobd.jobs where state = 'running'"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is held goes back for having waited too long."""
    monkeypatch.setattr(engine_executor, "HOLD_LIMIT", 60.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_executor, "HOLD_LIMIT", 0.1)


async def began(hands: Hands, *names: str) -> None:
    async def so_far() -> list[str]:
        return hands.began

    await eventually(so_far, until=lambda found: found == list(names))


async def in_states(hands: Hands, **states: str) -> dict:
    async def now() -> dict:
        rows = await hands.rows()
        return rows if {name: rows[name]["state"] for name in states} == states else {}

    return await eventually(now)


@pytest.mark.usefixtures("patient")
async def test_claims_beyond_the_slots_are_held_and_begin_in_their_order_as_slots_come_free(
    database_url: str,
):
    async with hands_on(database_url, total=2) as hands:
        hands.quick()
        await hands.start("a", "b", "c", "d", "e")
        assert hands.began == ["a", "b"]
        assert (hands.slots.busy, hands.slots.held) == (2, 3)
        hands.end("b")
        await began(hands, "a", "b", "c")
        hands.end("a", "c")
        await began(hands, "a", "b", "c", "d", "e")
        assert (hands.slots.busy, hands.slots.held) == (2, 0)
        hands.end("d", "e")
        rows = await in_states(hands, **dict.fromkeys("abcde", "succeeded"))
        assert {row["claim_no"] for row in rows.values()} == {2}


@pytest.mark.usefixtures("impatient")
async def test_what_found_no_slot_in_time_goes_back_unburned_and_untold_for_another_worker(
    database_url: str,
):
    async with hands_on(database_url, total=1) as hands:
        hands.quick()
        stuck, held = await hands.start("stuck", "held")
        row = (await in_states(hands, held="ready"))["held"]
        assert (row["attempt"], row["claim_no"], row["crashes"], row["errors"]) == (0, 2, 0, "[]")
        assert hands.told == [("started", stuck.claim.id)]
        async with hands_on(database_url, total=1) as other:
            (claim,) = await other.claim()
            assert (claim.id, claim.attempt) == (held.claim.id, 1)
            other.executor.start([claim])
            other.end("held")
            await in_states(other, held="succeeded")
        hands.end("stuck")
        await in_states(hands, stuck="succeeded")
        assert hands.began == ["stuck"]


@pytest.mark.usefixtures("patient")
async def test_of_what_never_began_no_time_is_told(database_url: str):
    async with hands_on(database_url, total=1) as hands:
        hands.quick()
        took: dict[object, float | None] = {}
        hands.events.subscribe(JobFinished, lambda event: took.update({event.id: event.run_seconds}))
        stuck, held = await hands.start("stuck", "unwanted")
        await hands.store.cancel(held.claim.id, reason="not needed")
        hands.executor.stop(held, Stop.CANCEL)
        await in_states(hands, unwanted="cancelled")
        hands.end("stuck")
        await in_states(hands, stuck="succeeded")
        assert took[held.claim.id] is None
        assert took[stuck.claim.id] is not None


@pytest.mark.usefixtures("patient")
async def test_a_cancel_of_a_held_job_ends_it_without_running_it(database_url: str):
    async with hands_on(database_url, total=1) as hands:
        hands.quick()
        _, held, _ = await hands.start("stuck", "unwanted", "next")
        assert await hands.store.cancel(held.claim.id, reason="not needed") is JobState.RUNNING
        hands.executor.stop(held, Stop.CANCEL)
        row = (await in_states(hands, unwanted="cancelled"))["unwanted"]
        assert row["reason"] == "not needed"
        assert hands.slots.held == 1
        hands.end("stuck", "next")
        await in_states(hands, next="succeeded")
        assert hands.began == ["stuck", "next"]
        assert ("started", held.claim.id) not in hands.told


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("why", [Stop.SHUTDOWN, Stop.FENCE])
async def test_a_stopped_process_hands_back_what_it_holds(database_url: str, why: Stop):
    async with hands_on(database_url, total=1) as hands:
        hands.quick()
        _, held = await hands.start("stuck", "held")
        hands.executor.stop_all(why)
        rows = await in_states(hands, stuck="ready", held="ready")
        assert {row["attempt"] for row in rows.values()} == {0}
        assert hands.began == ["stuck"]
        assert [told for told in hands.told if told[1] == held.claim.id] == []


@pytest.mark.usefixtures("patient")
async def test_a_claim_that_was_lost_while_held_is_not_run(database_url: str):
    async with hands_on(database_url, total=1) as hands:
        hands.quick()
        _, held = await hands.start("stuck", "held")
        async with expect(hands.events, RunStale, id=held.claim.id):
            hands.executor.stop(held, Stop.LOST)
        hands.end("stuck")
        await in_states(hands, stuck="succeeded", held="running")
        assert hands.began == ["stuck"]
        await query(hands.store.door, "delete from jobd.jobs")


@pytest.mark.usefixtures("patient")
async def test_the_limit_of_a_queue_counts_what_is_held(database_url: str):
    async with hands_on(database_url, total=1, queue_limits={"default": 3}) as hands:
        hands.quick()
        await hands.start("a", "b", "c", "d", "e")
        assert (hands.slots.busy, hands.slots.held) == (1, 2)
        assert hands.slots.queue_room("default") == 0
        assert hands.slots.queue_room("other") > 0
        await in_states(hands, c="running", d="ready", e="ready")


@pytest.mark.usefixtures("patient")
async def test_the_limit_of_a_kind_counts_what_is_held(database_url: str):
    async with hands_on(database_url, total=1, kind_limit=3) as hands:
        hands.quick()
        await hands.start("a", "b", "c", "d", "e")
        (handler,) = hands.registry
        assert (hands.slots.busy, hands.slots.held) == (1, 2)
        assert hands.slots.kind_room(handler) == 0
        await in_states(hands, c="running", d="ready", e="ready")


@pytest.mark.usefixtures("patient")
async def test_what_ends_while_held_gives_its_place_in_queue_and_kind_back(database_url: str):
    async with hands_on(database_url, total=1, queue_limits={"default": 3}, kind_limit=3) as hands:
        hands.quick()
        _, first, second = await hands.start("a", "b", "c")
        (handler,) = hands.registry
        hands.executor.stop(first, Stop.CANCEL)
        hands.executor.stop(first, Stop.CANCEL)
        hands.executor.stop(second, Stop.SHUTDOWN)
        assert (hands.slots.held, hands.slots.queue_room("default"), hands.slots.kind_room(handler)) == (
            0,
            2,
            2,
        )


@pytest.mark.usefixtures("patient")
async def test_nothing_of_a_kind_that_was_not_seen_yet_is_held(database_url: str):
    async with hands_on(database_url, total=2) as hands:
        await hands.start("a", "b", "c", "d")
        assert hands.began == ["a", "b"]
        await in_states(hands, a="running", b="running", c="ready", d="ready")
        assert (hands.slots.held, hands.slots.room) == (0, 0)


@pytest.mark.usefixtures("patient")
async def test_nothing_waits_beside_a_victim_of_a_crash(database_url: str):
    async with hands_on(database_url, total=2) as hands:
        hands.quick()
        await hands.start("a", "b", "c")
        assert hands.slots.held == 1
        # What was held before it came goes back as well as what came with it.
        await hands.make("x")
        await hands.make("victim", crashes=1)
        hands.executor.start(await hands.claim())
        await in_states(hands, a="running", b="running", c="ready", x="ready", victim="ready")
        assert hands.slots.held == 0


@pytest.mark.usefixtures("patient")
async def test_while_a_victim_of_a_crash_runs_no_more_is_claimed_than_slots_are_free(database_url: str):
    async with hands_on(database_url, total=3) as hands:
        hands.quick()
        await hands.start("victim", crashes=1)
        assert hands.slots.room == 2
        await hands.start("quick")
        assert hands.slots.room == 1
        hands.end("victim")
        await in_states(hands, victim="succeeded")
        hands.quick()
        await hands.start("quicker")
        assert hands.slots.room > 100


@pytest.mark.usefixtures("patient")
async def test_a_slot_whose_handler_takes_long_does_not_count_for_what_may_be_held(database_url: str):
    async with hands_on(database_url, total=2) as hands:
        hands.quick()
        await hands.start("a")
        assert hands.slots.room > 100

        async def room() -> int:
            return hands.slots.room

        before = hands.slots.room
        await eventually(room, until=lambda now: now < before - 100)
        await hands.start("b")
        # No slot is left that gets through any work.
        await eventually(room, until=lambda now: now == 0)
        hands.end("a", "b")
        await eventually(room, until=lambda now: now > before - 100)


@pytest.mark.usefixtures("patient")
async def test_a_held_job_does_not_start_after_the_deadline_that_drops_it(database_url: str):
    async with hands_on(database_url, total=1) as hands:
        hands.quick()
        await hands.make("stuck")
        await hands.make("late", deadline_policy="drop", delay_tolerance=timedelta(seconds=1))
        hands.executor.start(await hands.claim())
        since = time.monotonic()
        await turn()

        async def in_hold() -> float:
            return time.monotonic() - since

        # It is measured here, from the claim's answer on.
        await eventually(in_hold, until=lambda seconds: seconds > 1)
        hands.end("stuck", "late")
        await in_states(hands, stuck="succeeded", late="ready")
        assert hands.began == ["stuck"]
        assert (await hands.store.expire(batch=10)).total() == 1


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("tolerance", "limited", "runs", "given_up"),
    [
        (2 * HOUR, False, 5, True),
        (timedelta(minutes=100), False, 5, False),
        (2 * HOUR, True, 5, False),
        (2 * HOUR, False, 4, False),
    ],
    ids=["it had time", "it never had", "it has used up a limit", "too few runs were seen"],
)
async def test_a_job_that_would_be_stopped_at_its_deadline_leaves_its_slot_to_others(
    database_url: str, tolerance: timedelta, limited: bool, runs: int, given_up: bool
):
    async with hands_on(database_url, total=1) as hands:
        for _ in range(runs):
            hands.slots.prefetch.learn("waits", HOUR.total_seconds())
        run_at = datetime.now(UTC) - tolerance + HOUR / 2
        await hands.make("late", deadline_policy="drop", delay_tolerance=tolerance, run_at=run_at)
        await hands.make("next", run_at=datetime.now(UTC) + HOUR, state="ready")
        hands.executor.start(await hands.claim(), limited=limited)
        await began(hands, "next" if given_up else "late")
        if given_up:
            row = (await in_states(hands, late="scheduled"))["late"]
            assert (row["attempt"], row["errors"]) == (0, "[]")
            later = datetime.now(UTC) + HOUR
            assert (await hands.store.expire(batch=10, now=later)).total() == 1
        hands.end("late", "next")


@pytest.mark.usefixtures("patient")
async def test_where_nothing_waits_for_the_slot_it_is_tried(database_url: str):
    async with hands_on(database_url, total=1) as hands:
        for _ in range(5):
            hands.slots.prefetch.learn("waits", HOUR.total_seconds())
        run_at = datetime.now(UTC) - HOUR * 1.5
        await hands.make("late", deadline_policy="drop", delay_tolerance=2 * HOUR, run_at=run_at)
        hands.executor.start(await hands.claim())
        await began(hands, "late")
        hands.end("late")


@pytest.mark.usefixtures("patient")
async def test_the_time_in_hold_is_told_as_waiting(database_url: str):
    async with hands_on(database_url, total=1) as hands:
        hands.quick()
        _, held = await hands.start("stuck", "held")
        since = time.monotonic()

        async def waited() -> float:
            return time.monotonic() - since

        await eventually(waited, until=lambda seconds: seconds > 0.2)
        async with expect(hands.events, JobStarted, id=held.claim.id) as started:
            hands.end("stuck")
        assert started.event.wait_seconds > 0.2
        hands.end("held")


@pytest.mark.usefixtures("patient")
async def test_a_run_that_is_cancelled_before_its_first_step_ends_once_and_frees_its_slot(database_url: str):
    async with hands_on(database_url, total=1) as hands:
        await hands.make("unwanted")
        (claim,) = await hands.claim()
        await hands.store.cancel(claim.id, reason="not needed")
        hands.executor.start([claim])
        run = hands.holdings.get(claim.id)
        assert run is not None
        assert hands.slots.busy == 1
        hands.executor.stop(run, Stop.CANCEL)
        assert hands.slots.busy == 0
        await in_states(hands, unwanted="cancelled")
        assert hands.began == []
        assert hands.told == [("started", claim.id), ("cancelled", claim.id)]
        # The slot is not counted twice.
        hands.quick()
        await hands.start("next", "after")
        assert (hands.began, hands.slots.busy) == (["next"], 1)


class Deaf:
    """A handler that swallows every cancellation until it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def __call__(self, name: str) -> None:
        while not self.let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.let_go.wait()


@pytest.mark.parametrize("times", [1, 1000], ids=["told once", "told at every beat"])
async def test_an_abandoned_handler_is_counted_until_it_comes_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch, times: int
):
    monkeypatch.setattr(engine_executor, "ABANDON_GRACE", 0.3)
    deaf = Deaf()

    async def handler(name: str) -> None:
        await deaf(name)

    async with hands_on(database_url, total=1) as hands:
        hands.registry.handler("deaf")(handler)
        (run,) = await hands.start("deaf", kind="deaf")
        left = times

        async def told() -> tuple[int, int]:
            nonlocal left
            if left:
                left -= 1
                hands.executor.stop(run, Stop.LOST)
            return hands.executor.abandoned, hands.slots.busy

        try:
            # To be told at every beat, which these are too many for, puts nothing off.
            await eventually(told, until=lambda now: now == (1, 0), timeout=3)
        finally:
            deaf.let_go.set()

        async def abandoned() -> bool:
            return hands.executor.abandoned == 0

        await eventually(abandoned)
        assert hands.slots.busy == 0
        await query(hands.store.door, "delete from jobd.jobs")


# With a whole daemon around it.


class Line:
    """A kind that is quick, but for those of its jobs that are told to wait."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.began: list[str] = []
        self.let_go = asyncio.Event()

        @jobs.handler("step")
        async def step(name: str = "", stuck: bool = False) -> None:
            if name:
                self.began.append(name)
            if stuck:
                await self.let_go.wait()

    async def learned(self) -> None:
        """Run enough of them to be known as quick."""
        async with expect(self.jobs.events, JobFinished, count=20):
            await self.jobs.enqueue_many("step", [{}] * 20)

    async def held(self, link: Link, slots: int, count: int) -> list:
        """Fill the slots for long, and have `count` jobs held behind them; return the ids of these."""
        stuck = [{"name": "stuck", "stuck": True}] * slots
        ids = await self.jobs.enqueue_many("step", [*stuck, *({"name": f"{n}"} for n in range(count))])
        await eventually(lambda: scalar(link, RUNNING), until=lambda now: now == slots + count)
        return list(ids)[slots:]


@pytest.fixture
def line(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Line:
    # However busy the machine is: what it measures here passes for quick.
    monkeypatch.setattr(engine_prefetch, "HOLD_SECONDS", 10.0)
    return Line(jobs)


@pytest.fixture
def lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handler counts as one that takes long, behind which nothing is held."""
    monkeypatch.setattr(engine_limits, "MOMENT", 60.0)


@pytest.mark.usefixtures("patient", "lively")
async def test_jobs_that_are_held_run_as_soon_as_there_is_a_slot(jobs: Jobs, link: Link, line: Line):
    async with jobs.running(concurrency=2):
        await line.learned()
        ids = await line.held(link, 2, 3)
        await eventually(lambda: line.began == ["stuck", "stuck"])
        line.let_go.set()
        for id in ids:
            await jobs.wait(id, timeout=10)
    assert line.began == ["stuck", "stuck", "0", "1", "2"]
    assert await scalar(link, "select count(*) from jobd.job_history where claim_no <> 2") == 0


@pytest.mark.usefixtures("patient", "lively")
async def test_a_shutdown_hands_held_jobs_back(jobs: Jobs, link: Link, line: Line):
    async with jobs.running(concurrency=2, shutdown_grace="0s"):
        await line.learned()
        await line.held(link, 2, 3)
    rows = await query(link, "select state, attempt, crashes, claim_no from jobd.jobs")
    assert [tuple(row) for row in rows] == [("ready", 0, 0, 2)] * 5
    assert line.began == ["stuck", "stuck"]


@pytest.mark.usefixtures("patient", "lively")
async def test_a_shutdown_hands_held_jobs_back_while_handlers_may_still_end(
    jobs: Jobs, link: Link, line: Line
):
    async def let_go_when_they_are_back() -> None:
        ready = "select count(*) from jobd.jobs where state = 'ready' and claim_no = 2"
        await eventually(lambda: scalar(link, ready), until=lambda count: count == 2)
        line.let_go.set()

    async with jobs.running(concurrency=1, shutdown_grace="30s"):
        await line.learned()
        await line.held(link, 1, 2)
        watching = asyncio.ensure_future(let_go_when_they_are_back())
    await watching
    assert line.began == ["stuck"]
    assert await scalar(link, "select count(*) from jobd.job_history") == 21


@pytest.mark.usefixtures("patient", "lively")
@pytest.mark.parametrize("notify", ["on", "off"])
async def test_the_cancel_of_a_held_job_arrives(jobs: Jobs, link: Link, line: Line, notify: str):
    async with jobs.running(concurrency=1, notify=notify):
        await line.learned()
        unwanted, wanted = await line.held(link, 1, 2)
        assert await jobs.cancel(unwanted) is JobState.RUNNING
        done = await jobs.wait(unwanted, timeout=10)
        assert (done.state, done.reason) == (JobState.CANCELLED, "cancelled on request")
        line.let_go.set()
        await jobs.wait(wanted, timeout=10)
    assert line.began == ["stuck", "1"]


@pytest.mark.usefixtures("patient", "lively")
async def test_the_heartbeat_finds_a_held_claim_that_was_lost(jobs: Jobs, link: Link, line: Line):
    async with jobs.running(concurrency=1):
        await line.learned()
        (lost,) = await line.held(link, 1, 1)
        other = await make_worker(link)
        async with expect(jobs.events, RunStale, id=lost):
            await query(
                link,
                "update jobd.jobs set claim_no = claim_no + 2, worker_id = $2::uuid where id = $1::uuid",
                lost,
                other,
            )
        line.let_go.set()
        async with expect(jobs.events, JobFinished, count=2, state="succeeded"):
            await jobs.enqueue("step", {"name": "last"})
        assert (await jobs.get(lost)).state is JobState.RUNNING
    assert line.began == ["stuck", "last"]


async def test_a_kind_that_turned_slow_is_left_to_other_workers(jobs: Jobs, link: Link, line: Line):
    async with jobs.running(concurrency=2):
        await line.learned()
        async with expect(jobs.events, JobStarted, count=2):
            await jobs.enqueue_many("step", [{"name": "stuck", "stuck": True}] * 2)
        async with expect(jobs.events, LeaseRenewed, count=2):
            pass
        left = await jobs.enqueue("step", {"name": "left"})
        async with expect(jobs.events, LeaseRenewed, count=3):
            pass
        job = await jobs.get(left.id)
        assert (job.state, job.claim_no) == (JobState.READY, 0)
        line.let_go.set()
        await jobs.wait(left.id, timeout=10)


@pytest.mark.parametrize("notify", ["on", "off"])
async def test_a_job_that_went_back_is_claimed_again_when_a_slot_comes_free(
    jobs: Jobs, link: Link, line: Line, notify: str
):
    async with jobs:
        await jobs.enqueue_many("step", [{}] * 10)
        stuck = await jobs.enqueue("step", {"name": "stuck", "stuck": True})
        back = await jobs.enqueue("step", {"name": "back"})
    async with jobs.running(concurrency=1, notify=notify, poll_interval="60s"):
        went_back = "select count(*) from jobd.jobs where id = $1::uuid and state = 'ready' and claim_no = 2"
        await eventually(lambda: scalar(link, went_back, back.id))
        line.let_go.set()
        await jobs.wait(stuck.id, timeout=10)
        done = await jobs.wait(back.id, timeout=10)
    assert (done.attempt, done.crashes) == (1, 0)
