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


def meet(door: str, *words: object) -> socket.socket:
    """Tell the test that we are here. The connection ends when every process that has it is gone."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(door)
    connection.sendall(" ".join(map(str, (os.getpid(), *words))).encode() + b"\n")
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
    connection = meet(door)
    try:
        connection.recv(1)
    finally:
        connection.sendall(b"tidied up\n")


def stay_whatever_comes(door: str) -> None:
    connection = meet(door)
    while True:
        try:
            connection.recv(1)
            return
        except SystemExit:
            connection.sendall(b"no\n")


def stay_beside_a_program(door: str) -> None:
    connection = meet(door)
    connection.set_inheritable(True)
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], close_fds=False)
    connection.recv(1)


def leave_a_program_behind(door: str, code: int | None) -> None:
    connection = meet(door)
    connection.set_inheritable(True)
    _kept.append(subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], close_fds=False))
    if code is not None:
        os._exit(code)


def fork_and_exit(door: str) -> None:
    """Die, and leave a forked process that nobody's signals to the group reach."""
    if os.fork() == 0:
        os.setsid()
        meet(door).recv(1)
        os._exit(0)
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


def with_path() -> list[str]:
    return sys.path
