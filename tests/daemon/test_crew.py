"""A crew of small programs at the other end of the tether: children that misbehave in known ways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobd.supervision.crew import Crew
from jobd.supervision.handover import Plan
from jobd.supervision.supervisor import Watch
from tests.signals import eventually

PROGRAM = """
import asyncio, os, signal, sys, time
from jobd.supervision.handover import take_tether
from jobd.supervision.tether import Orders

tether = take_tether()
assert not [name for name in os.environ if name.startswith("_JOBD")]

class Condition:
    def stalled(self): return None
    async def unready(self): return []
    async def depths(self): return []
    def gauges(self): return {}
    def describe(self): return {"worker": str(os.getpid()), "roles": ["worker"], "queues": ["default"]}

def serve(condition=Condition(), step=lambda: os._exit(0)):
    tether.listen(Orders(step))
    asyncio.run(tether.serve(condition, None))

"""


class Told(logging.Handler):
    """What the supervisor logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        message: Any = record.msg
        self.lines.append(message.fields)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    async def reach(self, event: str, count: int = 1) -> dict[str, Any]:
        return (await eventually(lambda: self.of(event), until=lambda lines: len(lines) >= count))[count - 1]


@pytest.fixture
def told() -> Any:
    logger, handler = logging.getLogger("jobd.supervisor"), Told()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@asynccontextmanager
async def crew_of(
    program: str,
    *,
    processes: int = 2,
    grace: float = 0.0,
    last: float = 60.0,
    until_idle: bool = False,
    patience: int = 50,
) -> AsyncIterator[tuple[Crew, asyncio.Future[int]]]:
    """A crew at work and its exit code to come. It is told to end when the block ends.

    A process that has not answered `patience` times is ended.
    """
    plan = Plan(
        processes=processes,
        arguments=[],
        http_host=None,
        http_port=0,
        log_level="info",
        grace_seconds=grace,
        until_idle=until_idle,
    )
    command = [sys.executable, "-c", PROGRAM + program]
    crew = Crew(plan, command=command, environment={"SUPERVISED": "yes"}, last_seconds=last)
    work = asyncio.ensure_future(crew.run(complete=lambda: None))
    watch = asyncio.ensure_future(Watch(crew, every=0.1, patience=patience).run())
    try:
        yield crew, work
    finally:
        crew.stop()
        await asyncio.wait_for(work, 20)
        watch.cancel()


async def test_the_first_process_starts_alone(told: Told):
    async with crew_of("assert os.environ['SUPERVISED'] == 'yes'\nserve()", processes=3) as (crew, _):
        await told.reach("process started", 3)
        assert told.of("process started")[0]["process"] == 1
        assert {line["process"] for line in told.of("process started")} == {1, 2, 3}
        assert await crew.unready() == []


async def test_a_first_process_that_cannot_start_ends_the_whole_as_it_ended(told: Told):
    async with crew_of("sys.exit(3)") as (_, work):
        assert await work == 3
    async with crew_of("os.kill(os.getpid(), signal.SIGKILL)") as (_, work):
        assert await work == 137
    assert told.of("process ended, replacing it") == []


async def test_a_later_process_with_a_wrong_setting_ends_the_whole_and_the_others_in_good_order(told: Told):
    async with crew_of("serve() if tether.process == 1 else sys.exit(2)") as (_, work):
        assert await work == 2
    assert [line["process"] for line in told.of("process started")] == [1]


async def test_a_process_that_dies_again_and_again_comes_back_after_growing_pauses(told: Told):
    dies = "serve() if tether.process == 1 else os._exit(9)"
    async with crew_of(dies) as (crew, _):
        await told.reach("process ended, replacing it", 3)
        ends = told.of("process ended, replacing it")[:3]
        assert [(line["detail"], line["pause_seconds"]) for line in ends] == [
            ("exit code 9", 0),
            ("exit code 9", 1),
            ("exit code 9", 2),
        ]
        assert await crew.unready() == ["process 2: has ended (exit code 9) and is being replaced"]


async def test_a_process_that_says_a_restart_is_due_is_told_to_end_and_replaced(told: Told):
    blocked = """
class Blocked(Condition):
    def stalled(self): return "a handler blocks it"
serve(Blocked() if tether.process == 2 else Condition(), step=lambda: os._exit(70))
"""
    async with crew_of(blocked) as (crew, _):
        line = await told.reach("process does not work, ending it")
        assert (line["process"], line["detail"]) == (2, "a handler blocks it")
        assert (await told.reach("process ended, replacing it"))["detail"] == "exit code 70"
        await told.reach("process started", 3)
        assert crew.stalled() is None


async def test_a_process_that_answers_nothing_is_killed_and_replaced(told: Told):
    deaf = """
class Deaf(Condition):
    def stalled(self): time.sleep(1000)
serve(Deaf() if tether.process == 2 else Condition())
"""
    async with crew_of(deaf, patience=10) as (_, _):
        line = await told.reach("process does not work, ending it")
        assert (line["process"], line["detail"]) == (2, "its control thread does not answer")
        assert (await told.reach("process ended, replacing it"))["detail"] == "SIGKILL"
        await told.reach("process started", 3)


async def test_readiness_names_a_process_that_does_not_answer(told: Told):
    slow = """
class Slow(Condition):
    async def unready(self): time.sleep(1000)
serve(Slow() if tether.process == 2 else Condition())
"""
    async with crew_of(slow) as (crew, _):
        await told.reach("process started", 2)
        (reason,) = await crew.unready()
        assert reason.startswith("process 2: does not answer (pid ")


async def test_reasons_are_given_by_process(told: Told):
    unready = """
class Unready(Condition):
    async def unready(self): return ["no beat", "no database"] if tether.process == 2 else []
serve(Unready())
"""
    async with crew_of(unready) as (crew, _):
        await told.reach("process started", 2)
        assert await crew.unready() == ["process 2: no beat", "process 2: no database"]
        crew.stop()
        assert await crew.unready() == ["shutting down"]


async def test_a_check_that_fails_is_a_reason(told: Told):
    broken = """
class Broken(Condition):
    async def unready(self): raise ValueError("a bug")
serve(Broken())
"""
    async with crew_of(broken, processes=1) as (crew, _):
        await told.reach("process started")
        assert await crew.unready() == ["process 1: the check failed: ValueError, see the log"]


async def test_a_process_that_does_not_end_when_told_is_killed_in_the_end(told: Told):
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nserve(step=lambda: None)"
    async with crew_of(stubborn, last=0.3) as (crew, work):
        await told.reach("process started", 2)
        crew.stop()
        assert await asyncio.wait_for(asyncio.shield(work), 20) == 1
    assert len(told.of("process does not end, killing it")) == 2


async def test_a_process_that_is_still_importing_is_ended_by_the_signal_itself(told: Told):
    async with crew_of("serve() if tether.process == 1 else time.sleep(1000)") as (crew, work):
        await told.reach("process started")
        await eventually(lambda: crew.places[1].child)
        crew.stop()
        assert await asyncio.wait_for(asyncio.shield(work), 20) == 0


async def test_a_second_order_reaches_every_process(told: Told):
    twice = """
steps = []
def step():
    steps.append(1)
    if len(steps) == 2: os._exit(0)
serve(step=step)
"""
    async with crew_of(twice) as (crew, work):
        await told.reach("process started", 2)
        crew.stop()
        crew.stop()
        assert await asyncio.wait_for(asyncio.shield(work), 20) == 0


async def test_the_page_shows_how_many_processes_there_should_be_and_are(told: Told):
    async with crew_of("serve() if tether.process < 3 else time.sleep(1000)", processes=3) as (crew, _):
        await told.reach("process started", 2)
        page = await page_of(crew)
        assert 'jobd_processes{state="wanted"} 3.0' in page
        assert 'jobd_processes{state="working"} 2.0' in page
        assert json.loads(json.dumps(crew.describe()))["queues"] == ["default"]


SCHEDULING = """
class Scheduling(Condition):
    def describe(self):
        lead = [None, "follower", "leader"][tether.process - 1]
        running = lead is not None
        told = {"running": running, "lead": lead, "schedules": 7, "reason": None if running else "no role"}
        return {"scheduler": told}

serve(Scheduling())
"""


async def test_readiness_tells_of_the_scheduler_that_leads(told: Told):
    async with crew_of(SCHEDULING, processes=3) as (crew, _):
        await told.reach("process started", 3)
        assert await crew.unready() == []
        assert crew.describe()["scheduler"] == {
            "running": True,
            "lead": "leader",
            "schedules": 7,
            "reason": None,
        }


async def test_readiness_tells_why_no_scheduler_runs(told: Told):
    async with crew_of(SCHEDULING, processes=1) as (crew, _):
        await told.reach("process started", 1)
        assert await crew.unready() == []
        assert crew.describe()["scheduler"] == {
            "running": False,
            "lead": None,
            "schedules": 7,
            "reason": "no role",
        }


COUNTING = """
import json

def counted(jobs):
    return [["jobd_jobs", "counter", "Jobs.", [["jobd_jobs_total", {}, jobs]]]]

def say(*messages):
    tether._socket.sendall(b"".join(json.dumps(message).encode() + b"\\n" for message in messages))

def answer(on_metrics):
    say({"say": "here"}, {"say": "started", "about": {}})
    for order in map(json.loads, tether._socket.makefile("rb")):
        match order.get("ask"):
            case "metrics": on_metrics(order)
            case None: break
            case _: say({"id": order["id"], "answer": None})

def tell(order):
    ready = [["jobd_jobs_ready", "gauge", "Ready.", [["jobd_jobs_ready", {}, 7]]]] if order["depths"] else []
    say({"id": order["id"], "answer": counted(1) + ready})
"""


async def page_of(crew: Crew) -> str:
    return crew.page.render(await crew.depths(), crew.gauges())[0].decode()


async def test_the_page_is_whole_without_a_process_that_ended_before_it_was_asked(told: Told):
    async with crew_of(COUNTING + "answer(tell)", processes=3) as (crew, _):
        await told.reach("process started", 3)
        assert "jobd_jobs_total 3.0" in await page_of(crew)
        child = crew.places[1].child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        # It is gone, and maybe reaped by a thread; the crew, which lives on this loop, has not heard of it.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert "jobd_jobs_total 3.0" in await page_of(crew)


async def test_the_page_is_whole_without_a_process_that_ends_when_it_is_asked(told: Told):
    # The first is the one that counts the queues.
    dies = "answer(tell if tether.process == 2 else lambda order: os.kill(os.getpid(), signal.SIGKILL))"
    async with crew_of(COUNTING + dies) as (crew, _):
        await told.reach("process started", 2)
        page = await page_of(crew)
        assert "jobd_jobs_total 1.0" in page
        assert "jobd_jobs_ready 7.0" in page


async def test_what_a_process_says_last_outlives_an_answer_in_the_same_breath(told: Told):
    ends = """
def tell_and_end(order):
    say({"id": order["id"], "answer": counted(1)}, {"say": "ended", "metrics": counted(2)})
    os._exit(0)
answer(tell_and_end)
"""
    async with crew_of(COUNTING + ends, processes=1, until_idle=True) as (crew, work):
        await told.reach("process started")
        await crew.depths()
        await asyncio.wait_for(asyncio.shield(work), 20)
        assert "jobd_jobs_total 2.0" in await page_of(crew)
