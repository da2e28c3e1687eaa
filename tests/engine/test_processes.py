"""Handlers in processes: what comes back, what their death is, and that none is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from jobd.engine.processes import ChildDied, Processes, RemoteError, Untransferable
from jobd.outcomes import Cancel, Discard, Outcome, RetryAfter, Snooze
from jobd.storable import encode_error
from tests.engine import process_handlers as handlers

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
NEVER = 600.0  # a grace that no test waits for


class Visit:
    """A handler that came to the door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int) -> None:
        self._reader = reader
        self._writer = writer
        self.pid = pid

    def release(self, word: str = "go on") -> None:
        self._writer.write(word.encode())

    async def said(self) -> str:
        return (await self._reader.readline()).decode().strip()

    async def over(self) -> None:
        """Until no process has the connection open any more."""
        with suppress(ConnectionResetError):
            await self._reader.read()


class Door:
    """Where handlers in children meet their test."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._visits: asyncio.Queue[Visit] = asyncio.Queue()

    async def visit(self) -> Visit:
        return await self._visits.get()

    @property
    def nobody_waits(self) -> bool:
        return self._visits.empty()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        writers = []

        async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            pid = int((await reader.readline()).split()[0])
            self._visits.put_nowait(Visit(reader, writer, pid))

        server = await asyncio.start_unix_server(arrive, self.path)
        try:
            yield self
        finally:
            server.close()
            for writer in writers:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(str(tmp_path / "door")).open() as door:
        yield door


def children() -> list[str]:
    """The processes of handlers that this process has."""
    shown = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return [line for line in shown.stdout.splitlines() if "jobd.engine.child" in line]


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Processes]]:
    made: list[Processes] = []

    def make(*, limit: int = 2, grace: float = NEVER) -> Processes:
        made.append(Processes(limit=limit, grace=grace))
        return made[-1]

    yield make
    for processes in made:
        processes.kill()
        await processes.close()
    assert children() == []


@pytest.fixture
def processes(make: Callable[..., Processes]) -> Processes:
    return make()


@asynccontextmanager
async def running(
    processes: Processes, function: Callable[..., Any], *args: Any
) -> AsyncIterator[asyncio.Task[Any]]:
    """A run under way, which is cancelled at the end."""
    task = asyncio.ensure_future(processes.run(function, args, {}))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


# What comes back


async def test_a_handler_gets_its_arguments_and_its_result_comes_back(processes: Processes) -> None:
    assert await processes.run(handlers.add, (["a"],), {"right": ["b"]}) == ["a", "b"]


async def test_megabytes_cross_both_ways(processes: Processes) -> None:
    half = "ä" * 4_000_000
    assert await processes.run(handlers.add, (half, half), {}) == half * 2


async def test_a_handler_runs_in_another_process_and_the_next_one_in_the_same(processes: Processes) -> None:
    first = await processes.run(handlers.pid, (), {})
    assert first != os.getpid()
    assert await processes.run(handlers.pid, (), {}) == first


async def test_an_exception_comes_back_with_the_place_where_it_was_raised(processes: Processes) -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero") as raised:
        await processes.run(handlers.divide, (1, 0), {})
    recorded = encode_error(raised.value, attempt=1, at=datetime.now(UTC))
    assert recorded["type"] == "ZeroDivisionError"
    assert recorded["message"] == "division by zero"
    assert "process_handlers.py" in recorded["traceback"]
    assert "return left / right" in recorded["traceback"]


async def test_the_cause_of_an_exception_is_in_its_traceback(processes: Processes) -> None:
    with pytest.raises(RuntimeError, match="no quotient") as raised:
        await processes.run(handlers.raise_chained, (), {})
    assert "ZeroDivisionError: division by zero" in str(raised.value.__cause__)


@pytest.mark.parametrize(
    ("handler", "outcome", "reason", "delay"),
    [
        (handlers.snooze, Snooze, "not yet", timedelta(seconds=90)),
        (handlers.snooze_reason_like_a_delay, Snooze, "5s", timedelta(seconds=90)),
        (handlers.retry_after, RetryAfter, "busy", timedelta(minutes=2)),
        (handlers.cancel, Cancel, "stop it", None),
        (handlers.discard, Discard, "no good", None),
    ],
)
async def test_an_answer_of_a_handler_keeps_its_fields(
    processes: Processes,
    handler: Callable[[], None],
    outcome: type[Outcome],
    reason: str,
    delay: timedelta | None,
) -> None:
    with pytest.raises(outcome) as raised:
        await processes.run(handler, (), {})
    assert raised.value.reason == str(raised.value) == reason
    assert getattr(raised.value, "delay", None) == delay


async def test_an_exception_that_pickle_cannot_make_again_keeps_its_type_and_plain_fields(
    processes: Processes,
) -> None:
    with pytest.raises(handlers.NoSuchPage, match="http://localhost/x answered 404") as raised:
        await processes.run(handlers.find_page, (), {})
    assert raised.value.status == 404
    assert not hasattr(raised.value, "lock")


async def test_an_error_of_the_system_keeps_its_number(processes: Processes) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        await processes.run(handlers.open_nothing, (), {})
    assert raised.value.errno == 2
    assert raised.value.filename == "/nonexistent/file"


async def test_a_group_of_exceptions_comes_back_as_one(processes: Processes) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await processes.run(handlers.raise_group, (), {})
    assert [type(error) for error in raised.value.exceptions] == [ValueError, KeyError]


@pytest.mark.parametrize(
    ("handler", "args", "text"),
    [
        (
            handlers.raise_local_class,
            (),
            r"process_handlers\.raise_local_class\.<locals>\.Local: from inside",
        ),
        (handlers.raise_without_message, (), r"NoMessage: <no message: its __str__ raised ValueError>"),
        (handlers.leave, (3,), "SystemExit: 3"),
        (handlers.interrupt, (), "KeyboardInterrupt: "),
    ],
)
async def test_an_exception_that_cannot_leave_its_process_is_told(
    processes: Processes, handler: Callable[..., None], args: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(RemoteError, match=text) as raised:
        await processes.run(handler, args, {})
    assert handler.__name__ in str(raised.value.__cause__)


async def test_a_result_that_cannot_leave_its_process_is_told_and_the_child_lives_on(
    processes: Processes,
) -> None:
    before = await processes.run(handlers.pid, (), {})
    with pytest.raises(Untransferable, match="return_lock returned a lock that cannot leave its process"):
        await processes.run(handlers.return_lock, (), {})
    assert await processes.run(handlers.pid, (), {}) == before


async def test_an_argument_that_cannot_cross_is_told(processes: Processes) -> None:
    with pytest.raises(Untransferable, match=r"arguments of .*process_handlers\.add cannot be passed"):
        await processes.run(handlers.add, (threading.Lock(),), {})


async def test_a_function_that_its_name_does_not_lead_to_is_an_error_of_its_call(
    processes: Processes,
) -> None:
    with pytest.raises(AttributeError, match="no_such"):
        await processes.run(type("no_such", (), {"__module__": handlers.__name__}), (), {})


async def test_raised_exceptions_leave_no_cycles(processes: Processes) -> None:
    gc.collect()
    gc.disable()
    try:
        with suppress(RuntimeError):
            await processes.run(handlers.raise_chained, (), {})
        assert not [
            found for found in gc.get_objects() if type(found) is RuntimeError and "quotient" in str(found)
        ]
    finally:
        gc.enable()


# Where handlers run


async def test_what_a_handler_prints_goes_where_the_daemon_prints(
    processes: Processes, capfd: pytest.CaptureFixture[str]
) -> None:
    await processes.run(handlers.print_words, ("from a child",), {})
    assert capfd.readouterr().out == "from a child\n"


async def test_a_handler_reads_nothing_from_the_terminal(processes: Processes) -> None:
    assert await processes.run(handlers.read_stdin, (), {}) == ""


async def test_a_module_is_found_where_the_daemon_found_it(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"found_in_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("def where(): return __file__\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__(name)
    assert await processes.run(module.where, (), {}) == str(tmp_path / f"{name}.py")


async def test_the_application_s_main_module_is_not_imported(processes: Processes) -> None:
    assert await processes.run(handlers.main_file, (), {}) is None


async def test_a_child_serves_one_call_at_a_time_and_there_are_never_more_than_the_limit(
    make: Callable[..., Processes], door: Door
) -> None:
    processes = make(limit=2)
    async with (
        running(processes, handlers.stay, door.path) as first,
        running(processes, handlers.stay, door.path) as second,
        running(processes, handlers.stay, door.path) as third,
    ):
        one, two = await door.visit(), await door.visit()
        assert one.pid != two.pid
        assert door.nobody_waits
        two.release("second ended")
        three = await door.visit()
        assert three.pid == two.pid
        three.release("third ended")
        one.release("first ended")
        ended = set(await asyncio.gather(first, second, third))
        assert ended == {"first ended", "second ended", "third ended"}


async def test_a_handler_may_end_processes_that_it_forked(processes: Processes) -> None:
    assert await processes.run(handlers.terminate_a_fork, (), {}) == -signal.SIGTERM


# Deaths


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


# Being stopped


async def test_a_cancelled_handler_may_tidy_up_and_its_child_is_replaced(
    make: Callable[..., Processes], door: Door
) -> None:
    processes = make(limit=1)
    async with running(processes, handlers.stay_and_tidy_up, door.path) as run:
        visit = await door.visit()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await visit.said() == "tidied up"
        await visit.over()
        assert await processes.run(handlers.pid, (), {}) != visit.pid


async def test_a_cancelled_run_ends_at_once_while_its_handler_refuses_to(
    make: Callable[..., Processes], door: Door
) -> None:
    processes = make(limit=1, grace=NEVER)
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
    make: Callable[..., Processes], door: Door
) -> None:
    processes = make(limit=1, grace=0.05)
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


async def test_a_run_cancelled_while_its_child_starts_leaves_nothing(make: Callable[..., Processes]) -> None:
    processes = make(limit=1)
    for turns in range(6):
        run = asyncio.ensure_future(processes.run(handlers.add, ("x" * 3_000_000,), {}))
        for _ in range(turns):
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert await processes.run(handlers.add, (1, 2), {}) == 3


async def test_a_run_cancelled_while_it_waits_for_a_child_disturbs_nobody(
    make: Callable[..., Processes], door: Door
) -> None:
    processes = make(limit=1)
    async with running(processes, handlers.stay, door.path) as run:
        visit = await door.visit()
        async with running(processes, handlers.pid) as waiting:
            await asyncio.sleep(0)
        assert waiting.cancelled()
        visit.release("done")
        assert await run == "done"
    assert await processes.run(handlers.pid, (), {}) == visit.pid


async def test_programs_that_a_handler_started_are_killed_with_it(
    make: Callable[..., Processes], door: Door
) -> None:
    processes = make(grace=0.05)
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
    make: Callable[..., Processes], door: Door
) -> None:
    processes = make(limit=1)
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
    make: Callable[..., Processes], door: Door
) -> None:
    processes = make(limit=3)
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


async def test_a_close_that_is_cut_short_kills(make: Callable[..., Processes], door: Door) -> None:
    processes = make(grace=NEVER)
    async with running(processes, handlers.stay_whatever_comes, door.path):
        visit = await door.visit()
        closing = asyncio.ensure_future(processes.close())
        assert await visit.said() == "no"
        closing.cancel()
        await visit.over()


# When the daemon dies

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


async def test_a_hundred_calls_at_once_are_all_answered(processes: Processes) -> None:
    sums = await asyncio.gather(*(processes.run(handlers.add, (number, 1), {}) for number in range(100)))
    assert sums == list(range(1, 101))
