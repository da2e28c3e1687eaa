"""A child's end of the line to its supervisor, with the test at the other end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from prometheus_client import Metric

from jobd.supervision.handover import command, take_plan, take_tether, tether_name
from jobd.supervision.tether import HURRY, STOP, Orders, Tether
from tests.signals import eventually


class Known:
    """A daemon's condition."""

    def stalled(self) -> str | None:
        return "a handler blocks it"

    async def unready(self) -> list[str]:
        return ["no beat"]

    async def depths(self) -> Any:
        return ()

    def gauges(self) -> Mapping[str, float]:
        return {"leader": 1.0}

    def describe(self) -> Mapping[str, Any]:
        return {"worker": "w"}


class Counted:
    """What it counted: 1 as long as it works, 2 at the end. The former may take until it is `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def families(self, depths: Any, gauges: Mapping[str, float]) -> Iterator[Metric]:
        working = bool(gauges)
        assert not working or self.released.wait(10)
        family = Metric("jobs", "Jobs.", "counter")
        family.add_sample("jobs_total", {}, 1.0 if working else 2.0)
        yield family


class Line:
    """The supervisor's end."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(10)
        self.descriptor = theirs.detach()
        self.tether = Tether(3, descriptor=self.descriptor)
        self._listens = False
        self._lines = self.ours.makefile("rb")

    def say(self, **message: Any) -> None:
        self.ours.sendall(json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        return dict(json.loads(await asyncio.to_thread(self._lines.readline)))

    def listen(self, step: Callable[[], None] = lambda: None) -> None:
        self._listens = True
        self.tether.listen(Orders(step))

    def close(self) -> None:
        self._lines.close()
        self.ours.close()
        if not self._listens:  # else it closes by itself
            self.tether.close()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def counting() -> tuple[list[int], Callable[[], None]]:
    steps: list[int] = []
    return steps, lambda: steps.append(1)


async def test_orders_are_obeyed_before_there_is_a_daemon_that_could_answer(line: Line) -> None:
    steps, step = counting()
    line.listen(step)
    assert await line.hear() == {"say": "here"}
    line.say(ask="stalled", id=1)
    line.say(stop=STOP)
    await eventually(lambda: len(steps), until=lambda count: count == 1)
    line.say(stop=HURRY)
    await eventually(lambda: len(steps), until=lambda count: count == 2)


async def test_the_end_of_the_line_is_an_order_to_stop(line: Line) -> None:
    steps, step = counting()
    line.listen(step)
    await line.hear()
    line.close()
    await eventually(lambda: len(steps), until=lambda count: count == 1)


async def test_questions_are_answered_while_the_daemon_works(line: Line) -> None:
    counted = Counted()
    counted.released.set()
    line.listen()
    serving = asyncio.ensure_future(line.tether.serve(Known(), counted))  # type: ignore[arg-type]
    assert await line.hear() == {"say": "here"}
    assert await line.hear() == {"say": "started", "about": {"worker": "w"}}
    line.say(ask="stalled", id=1)
    assert await line.hear() == {"id": 1, "answer": "a handler blocks it"}
    line.say(ask="unready", id=2)
    assert await line.hear() == {"id": 2, "answer": ["no beat"]}
    line.say(ask="describe", id=5)
    assert await line.hear() == {"id": 5, "answer": {"worker": "w"}}
    line.say(ask="metrics", id=3, depths=True)
    told = [["jobs", "counter", "Jobs.", [["jobs_total", {}, 1.0]]]]
    assert await line.hear() == {"id": 3, "answer": told}
    line.say(ask="something of a later release", id=4)
    assert await line.hear() == {"id": 4, "answer": None}
    serving.cancel()
    assert (await line.hear())["metrics"][0][3] == [["jobs_total", {}, 2.0]]


async def test_nothing_follows_the_last_counts_not_even_an_answer_that_took_its_time(line: Line) -> None:
    counted = Counted()
    line.listen()
    serving = asyncio.ensure_future(line.tether.serve(Known(), counted))  # type: ignore[arg-type]
    await line.hear()
    await line.hear()
    line.say(ask="metrics", id=1, depths=False)
    line.say(ask="stalled", id=2)
    assert (await line.hear())["id"] == 2  # so the first question is being answered
    serving.cancel()
    assert (await line.hear())["say"] == "ended"
    counted.released.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    line.ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        line.ours.recv(1)


async def test_programs_that_handlers_start_keep_no_end_of_it(line: Line) -> None:
    assert not os.get_inheritable(line.descriptor)


def test_the_handover_leaves_nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    for name, value in tether_name(7, theirs.detach()).items():
        monkeypatch.setenv(name, value)
    tether = take_tether()
    assert tether is not None
    assert tether.process == 7
    tether.close()
    ours.close()
    assert take_tether() is None
    assert take_plan() is None
    assert not [name for name in os.environ if name.startswith("_JOBD")]


def test_a_supervisor_has_the_pid_and_the_command_line_of_what_became_it() -> None:
    program = (
        "import os, sys\n"
        "from jobd.supervision.handover import Plan, become_supervisor\n"
        "print(os.getpid(), flush=True)\n"
        "become_supervisor(Plan(processes=2, arguments=['--version'], http_host=None, http_port=99999,"
        " log_level='info', grace_seconds=0, until_idle=True))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    # A first process that prints its version and ends is one that could not start.
    pid, version = done.stdout.split("\n", 1)
    assert pid.isdigit()
    assert version.startswith("jobd ")
    assert done.returncode == 0


def test_flags_of_the_interpreter_go_on_to_the_children() -> None:
    program = "from jobd.supervision.handover import command; print(command(['run']))"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, check=True
    )
    assert "'-X', 'dev'" in done.stdout
    assert command(["run", "--processes", "2"])[-5:] == ["-m", "jobd", "run", "--processes", "2"]
