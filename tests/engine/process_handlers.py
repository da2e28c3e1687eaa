"""Handlers that the tests of processes run in children; they meet the test at a unix socket."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

from jobd.outcomes import Cancel, Discard, RetryAfter, Snooze

_kept: list[object] = []


def knock(door: str) -> socket.socket:
    """A connection to the test, which ends when every process that has it is gone."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(door)
    return connection


def enter(connection: socket.socket) -> None:
    """Tell the test that we are here; from now on it may do anything to us."""
    connection.sendall(b"%d\n" % os.getpid())


def meet(door: str) -> socket.socket:
    connection = knock(door)
    enter(connection)
    return connection


def add(left: Any, right: Any = 0) -> Any:
    return left + right


def pid() -> int:
    return os.getpid()


def stay(door: str) -> str:
    """Run until the test says how to go on."""
    with meet(door) as connection:
        return connection.recv(100).decode()


def keep_connected(door: str) -> int:
    _kept.append(meet(door))
    return os.getpid()


def stay_and_tidy_up(door: str) -> None:
    connection = knock(door)
    try:
        enter(connection)
        connection.recv(1)
    finally:
        connection.sendall(b"tidied up\n")


def stay_whatever_comes(door: str) -> None:
    connection = knock(door)
    try:
        enter(connection)
        connection.recv(1)
    except SystemExit:
        connection.sendall(b"no\n")
        connection.recv(1)


def stay_beside_a_program(door: str) -> None:
    connection = knock(door)
    start_program(connection)
    enter(connection)
    connection.recv(1)


def leave_a_program_behind(door: str, code: int) -> None:
    connection = knock(door)
    start_program(connection)
    enter(connection)
    os._exit(code)


def start_program(connection: socket.socket) -> None:
    """Start a program that never ends and keeps our connection to the test."""
    connection.set_inheritable(True)
    _kept.append(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], close_fds=False))


def fork_and_exit(door: str) -> None:
    """Die, and leave a forked process that no signal to the group reaches."""
    there, here = os.pipe()
    if os.fork() == 0:
        os.setsid()
        connection = meet(door)
        os.write(here, b"!")
        connection.recv(1)
        os._exit(0)
    os.read(there, 1)
    os._exit(4)


def terminate_a_fork() -> int | None:
    """What multiprocessing does with its workers."""
    process = multiprocessing.get_context("fork").Process(target=signal.pause)
    process.start()
    process.terminate()
    process.join()
    return process.exitcode


def exit_at_once(code: int) -> None:
    os._exit(code)


def leave(code: int) -> None:
    sys.exit(code)


def interrupt() -> None:
    raise KeyboardInterrupt


def kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def print_words(words: str) -> None:
    print(words)


def main_file() -> str | None:
    return getattr(sys.modules["__main__"], "__file__", None)


def read_stdin() -> str:
    return sys.stdin.read()


def divide(left: int, right: int) -> float:
    return left / right


def snooze() -> None:
    raise Snooze("90s", "not yet")


def snooze_reason_like_a_delay() -> None:
    raise Snooze("90s", "5s")


def cancel() -> None:
    raise Cancel("stop it")


def discard() -> None:
    raise Discard("no good")


def retry_after() -> None:
    raise RetryAfter("2m", "busy")


class NoSuchPage(Exception):
    def __init__(self, *, url: str, status: int) -> None:
        self.url = url
        self.status = status
        self.lock = threading.Lock()
        super().__init__(f"{url} answered {status}")


class NoMessage(Exception):
    def __str__(self) -> str:
        raise ValueError("no message")


def find_page() -> None:
    raise NoSuchPage(url="http://localhost/x", status=404)


def open_nothing() -> None:
    os.stat("/nonexistent/file")


def raise_group() -> None:
    raise ExceptionGroup("both", [ValueError("one"), KeyError("two")])


def raise_local_class() -> None:
    class Local(Exception):
        pass

    raise Local("from inside")


def raise_without_message() -> None:
    raise NoMessage


def raise_chained() -> None:
    try:
        divide(1, 0)
    except ZeroDivisionError as error:
        raise RuntimeError("no quotient") from error


def return_lock() -> object:
    return threading.Lock()
