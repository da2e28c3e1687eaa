"""Handlers in processes: where they run, and how what they return and raise comes back."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from jobd.engine.processes import Processes, RemoteError, Untransferable
from jobd.outcomes import Cancel, Discard, Outcome, RetryAfter, Snooze
from jobd.storable import encode_error
from tests.engine import process_handlers as handlers
from tests.engine.door import Door, running

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
    make_processes: Callable[..., Processes], door: Door
) -> None:
    processes = make_processes(limit=2)
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


async def test_a_hundred_calls_at_once_are_all_answered(processes: Processes) -> None:
    sums = await asyncio.gather(*(processes.run(handlers.add, (number, 1), {}) for number in range(100)))
    assert sums == list(range(1, 101))
