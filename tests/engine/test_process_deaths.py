"""How handlers' processes end: by themselves, stopped, killed, closed, and with the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from jobd.engine.processes import ChildDied, Processes
from tests.engine import process_handlers as handlers
from tests.engine.door import NEVER, Door, children, running

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize(
    ("handler", "argument", "code", "text"),
    [
        (handlers.exit_at_once, 3, 3, "ended with exit code 3 before the handler ended"),
        (handlers.exit_at_once, 0, 0, "ended with exit code 0 before the handler ended"),
        (handlers.kill_itself, signal.SIGKILL, -9, "was killed by SIGKILL .*memory"),
        (handlers.kill_itself, signal.SIGSEGV, -11, "was killed by SIGSEGV before the handler ended"),
    ],
)
async def test_the_death_of_a_child_fails_its_run_alone(
    processes: Processes, door: Door, handler: Callable[[int], None], argument: int, code: int, text: str
) -> None:
    async with running(processes, handlers.stay, door.path) as neighbour:
        visit = await door.visit()
        with pytest.raises(ChildDied, match=text) as raised:
            await processes.run(handler, (argument,), {})
        assert raised.value.returncode == code
        assert await processes.run(handlers.add, (1, 2), {}) == 3
        visit.release("still here")
        assert await neighbour == "still here"


async def test_a_child_that_died_idle_costs_the_next_handler_nothing(
    processes: Processes, door: Door
) -> None:
    idle = await processes.run(handlers.keep_connected, (door.path,), {})
    visit = await door.visit()
    os.kill(idle, signal.SIGKILL)
    assert await processes.run(handlers.pid, (), {}) != idle
    await visit.over()


async def test_a_death_is_seen_though_a_forked_process_lives_on(processes: Processes, door: Door) -> None:
    with pytest.raises(ChildDied, match="exit code 4"):
        await processes.run(handlers.fork_and_exit, (door.path,), {})
    visit = await door.visit()
    visit.release()
    await visit.over()


async def test_a_child_that_cannot_start_is_told(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ChildDied, match="exit code 1 before the handler began"):
        await processes.run(handlers.pid, (), {})
    monkeypatch.undo()
    assert await processes.run(handlers.add, (1, 2), {}) == 3


async def test_programs_of_a_dead_child_die_with_it(processes: Processes, door: Door) -> None:
    with pytest.raises(ChildDied, match="exit code 5"):
        await processes.run(handlers.leave_a_program_behind, (door.path, 5), {})
    await (await door.visit()).over()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_that_others_send_are_left_to_the_daemon(
    processes: Processes, door: Door, number: signal.Signals
) -> None:
    async with running(processes, handlers.stay, door.path) as run:
        visit = await door.visit()
        assert os.getpgid(visit.pid) != os.getpgid(0)
        os.kill(visit.pid, number)
        visit.release("not impressed")
        assert await run == "not impressed"
    os.kill(visit.pid, number)
    assert await processes.run(handlers.pid, (), {}) == visit.pid


async def test_a_cancelled_handler_may_tidy_up_and_its_child_is_replaced(
    make_processes: Callable[..., Processes], door: Door
) -> None:
    processes = make_processes(limit=1)
    async with running(processes, handlers.stay_and_tidy_up, door.path) as run:
        visit = await door.visit()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await visit.said() == "tidied up"
        await visit.over()
        assert await processes.run(handlers.pid, (), {}) != visit.pid


async def test_a_cancelled_run_ends_at_once_while_its_handler_refuses_to(
    make_processes: Callable[..., Processes], door: Door
) -> None:
    processes = make_processes(limit=1, grace=NEVER)
    async with running(processes, handlers.stay_whatever_comes, door.path) as run:
        visit = await door.visit()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await visit.said() == "no"
        os.kill(visit.pid, 0)
        processes.kill()
        await visit.over()


async def test_a_handler_that_refuses_to_end_is_killed_after_the_grace(
    make_processes: Callable[..., Processes], door: Door
) -> None:
    processes = make_processes(limit=1, grace=0.05)
    async with running(processes, handlers.stay_whatever_comes, door.path) as run:
        visit = await door.visit()
        run.cancel()
        await visit.over()
    assert await processes.run(handlers.add, (1, 2), {}) == 3


async def test_a_timeout_around_a_run_stops_its_handler(processes: Processes, door: Door) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(NEVER) as timeout:
            async with running(processes, handlers.stay, door.path) as run:
                visit = await door.visit()
                timeout.reschedule(asyncio.get_running_loop().time())
                await run
    await visit.over()


async def test_a_run_cancelled_while_its_child_starts_leaves_nothing(
    make_processes: Callable[..., Processes],
) -> None:
    processes = make_processes(limit=1)
    for turns in range(6):
        run = asyncio.ensure_future(processes.run(handlers.add, ("x" * 3_000_000,), {}))
        for _ in range(turns):
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert await processes.run(handlers.add, (1, 2), {}) == 3


async def test_a_run_cancelled_while_it_waits_for_a_child_disturbs_nobody(
    make_processes: Callable[..., Processes], door: Door
) -> None:
    processes = make_processes(limit=1)
    async with running(processes, handlers.stay, door.path) as run:
        visit = await door.visit()
        async with running(processes, handlers.pid) as waiting:
            await asyncio.sleep(0)
        assert waiting.cancelled()
        visit.release("done")
        assert await run == "done"
    assert await processes.run(handlers.pid, (), {}) == visit.pid


async def test_programs_that_a_handler_started_are_killed_with_it(
    make_processes: Callable[..., Processes], door: Door
) -> None:
    processes = make_processes(grace=0.05)
    async with running(processes, handlers.stay_beside_a_program, door.path):
        visit = await door.visit()
    await visit.over()


async def test_kill_works_from_another_thread_while_the_loop_is_stuck(
    processes: Processes, tmp_path: Path
) -> None:
    path = str(tmp_path / "door")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        async with running(processes, handlers.stay_whatever_comes, path) as run:
            connection, _ = await asyncio.to_thread(listener.accept)
            with connection:
                thread = threading.Thread(target=processes.kill)
                thread.start()
                # From here to the end of the connection the loop does not turn.
                while connection.recv(100):
                    pass
                thread.join()
            with pytest.raises(ChildDied, match="SIGKILL"):
                await run


async def test_a_killed_run_that_waits_for_a_child_does_not_begin_and_later_ones_do(
    make_processes: Callable[..., Processes], door: Door
) -> None:
    processes = make_processes(limit=1)
    async with (
        running(processes, handlers.stay, door.path),
        running(processes, handlers.stay, door.path) as waiting,
    ):
        await door.visit()
        processes.kill()
        processes.kill()
        with pytest.raises(ChildDied, match="before the handler began"):
            await waiting
        assert await processes.run(handlers.add, (1, 2), {}) == 3
        assert door.nobody_waits


async def test_close_ends_the_idle_and_the_busy_and_refuses_new_runs(
    make_processes: Callable[..., Processes], door: Door
) -> None:
    processes = make_processes(limit=3)
    async with (
        running(processes, handlers.stay_and_tidy_up, door.path) as busy,
        running(processes, handlers.stay, door.path) as other,
    ):
        await processes.run(handlers.keep_connected, (door.path,), {})
        for _ in range(3):
            await door.visit()
        assert len(children()) == 3
        await processes.close()
        assert children() == []
        for run in (busy, other):
            with pytest.raises(ChildDied, match="exit code 143"):
                await run
    with pytest.raises(RuntimeError, match="closed"):
        await processes.run(handlers.pid, (), {})
    await processes.close()


async def test_a_close_that_is_cut_short_kills(make_processes: Callable[..., Processes], door: Door) -> None:
    processes = make_processes(grace=NEVER)
    async with running(processes, handlers.stay_whatever_comes, door.path):
        visit = await door.visit()
        closing = asyncio.ensure_future(processes.close())
        assert await visit.said() == "no"
        closing.cancel()
        await visit.over()


DAEMON = """
import asyncio, sys
from jobd.engine.processes import Processes
from tests.engine import process_handlers as handlers

async def main(door):
    processes = Processes(limit=2)
    await processes.run(handlers.keep_connected, (door,), {})
    busy = asyncio.ensure_future(processes.run(handlers.stay_whatever_comes, (door,), {}))
    idle = asyncio.ensure_future(processes.run(handlers.keep_connected, (door,), {}))
    await busy

asyncio.run(main(sys.argv[1]))
"""


async def test_children_die_with_the_daemon_whatever_their_handlers_do(door: Door) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, door.path], env=environment)
    try:
        visits = [await door.visit() for _ in range(3)]
    finally:
        daemon.kill()
        daemon.wait()
    for visit in visits:
        await visit.over()
