"""What follows the end of a supervisor's child, and how orders to end are counted."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from jobd.supervision.ends import End, Pauses, Verdict, judge, whole
from jobd.supervision.tether import HURRY, STOP, Orders

KILLED = -signal.SIGKILL
TERMINATED = -signal.SIGTERM


def verdict(
    code: int,
    *,
    started: bool = True,
    told: bool = False,
    retired: bool = False,
    until_idle: bool = False,
    any_started: bool = True,
    place_started: bool = True,
) -> Verdict:
    return judge(
        End(code=code, started=started, told=told, retired=retired),
        until_idle=until_idle,
        any_started=any_started,
        place_started=place_started,
    )


@pytest.mark.parametrize("code", [0, 1, 2, 3, 70, KILLED])
@pytest.mark.parametrize("started", [True, False])
def test_a_process_that_worked_before_is_replaced_however_the_next_one_ends(code: int, started: bool) -> None:
    assert verdict(code, started=started) is Verdict.REPLACE


@pytest.mark.parametrize("code", [0, 1, 2, 3, 70, KILLED])
def test_the_end_of_the_first_process_before_it_works_is_the_end_of_all(code: int) -> None:
    assert verdict(code, started=False, any_started=False, place_started=False) is Verdict.FATAL


def test_a_process_beside_others_that_work_ends_all_by_a_wrong_setting_alone() -> None:
    assert verdict(2, started=False, place_started=False) is Verdict.FATAL
    assert verdict(1, started=False, place_started=False) is Verdict.REPLACE
    assert verdict(KILLED, started=False, place_started=False) is Verdict.REPLACE


@pytest.mark.parametrize("code", [0, 1, 70, KILLED, TERMINATED])
def test_nobody_is_replaced_once_all_were_told_to_end(code: int) -> None:
    assert verdict(code, told=True) is Verdict.DONE
    assert verdict(code, told=True, started=False, any_started=False) is Verdict.DONE


def test_until_idle_a_process_that_ended_with_0_by_itself_is_done_and_any_other_is_replaced() -> None:
    assert verdict(0, until_idle=True) is Verdict.DONE
    assert verdict(0, until_idle=True, retired=True) is Verdict.REPLACE
    assert verdict(KILLED, until_idle=True) is Verdict.REPLACE


def test_the_whole_ends_as_its_worst_process() -> None:
    assert whole([]) == whole([0, 0]) == 0
    assert whole([0, 1]) == whole([3, 0]) == 1
    assert whole([0, 70, 1]) == 70


@pytest.mark.parametrize(
    ("code", "started", "loss"),
    [
        (0, True, 0),
        (1, True, 1),
        (70, True, 70),
        (KILLED, True, 1),
        (TERMINATED, True, 1),
        (TERMINATED, False, 0),
    ],
)
def test_a_process_that_was_killed_lost_something_unless_it_had_nothing_yet(
    code: int, started: bool, loss: int
) -> None:
    assert End(code=code, started=started, told=True).loss == loss


def test_an_end_is_named_by_its_signal_or_its_code() -> None:
    assert str(End(code=KILLED, started=True, told=False)) == "SIGKILL"
    assert str(End(code=70, started=True, told=False)) == "exit code 70"
    assert End(code=KILLED, started=False, told=False).exit_code == 137


def test_a_place_is_filled_at_once_then_after_growing_pauses_until_a_process_has_settled() -> None:
    pauses = Pauses()
    assert [pauses.after(1) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert [pauses.after(60), pauses.after(59), pauses.after(0)] == [0, 1, 2]


def test_an_order_counts_once_however_often_it_is_given() -> None:
    steps: list[int] = []
    orders = Orders(lambda: steps.append(1))
    for level in (STOP, STOP, STOP):
        orders.told(level)
    assert len(steps) == 1
    for level in (HURRY, STOP, HURRY):
        orders.told(level)
    assert len(steps) == 2


def test_an_order_to_hurry_is_also_one_to_stop() -> None:
    steps: list[int] = []
    Orders(lambda: steps.append(1)).told(HURRY)
    assert len(steps) == 2


def test_an_order_given_by_many_threads_at_once_counts_once() -> None:
    steps: list[int] = []
    orders = Orders(lambda: steps.append(1))
    start = threading.Barrier(8)

    def tell() -> None:
        start.wait()
        orders.told(STOP)

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(steps) == 1


def test_a_supervisor_imports_nothing_of_a_worker() -> None:
    program = (
        "import sys, jobd.supervision.supervisor, jobd.api.probes, jobd.api.server\n"
        "worker = {'asyncpg', 'uvloop', 'pydantic', 'fastapi', 'structlog', 'rich', 'typer', 'jobd.app'}\n"
        "assert not worker & set(sys.modules), worker & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
