"""The main program of a handler's process: takes one call after the other until it is told to stop.

It has one thread, the main one, where handlers run: a handler may fork, and may set an alarm. Nothing
of the application is imported before the first call names its module.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from threading import get_ident
from types import FrameType
from typing import Final

from jobd.engine.crossing import LENGTH, Stopped, answer, frame

_PR_SET_PDEATHSIG: Final = 1


def main(descriptor: int, parent: int) -> None:
    """Serve the daemon, process `parent`, on an inherited socket."""
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    _listen_to_the_daemon_only(connection)
    _end_with(parent)
    with suppress(BrokenPipeError, ConnectionResetError):  # the daemon died
        while call := _receive(connection):
            # From here on our death is the death of this call; before it, the call can go to another child.
            connection.sendall(frame(b""))
            reply = answer(call)
            del call
            _flush()
            connection.sendall(frame(reply))
    # The SIGTERM of a stop that was read before it came would be raised in the midst of what ends us.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _listen_to_the_daemon_only(connection: socket.socket) -> None:
    """Let SIGTERM end us only when the daemon sent it; leave SIGINT to the daemon.

    systemd and others send the signals of a shutdown to every process of a service, while the daemon
    still means to let its handlers finish. The daemon puts a stop into the socket before it signals.
    """

    def ended(number: int, _: FrameType | None) -> None:
        if number == signal.SIGTERM and _is_stop(connection):
            raise Stopped(128 + number)

    # Functions, not SIG_IGN: that would be inherited by the programs that handlers start.
    signal.signal(signal.SIGINT, ended)
    signal.signal(signal.SIGTERM, ended)
    _spare_forks(connection)


def _spare_forks(connection: socket.socket) -> None:
    """Let what a handler forks (multiprocessing does) keep no end of the socket, and hear signals as usual.

    Both signals wait during the fork: one that met the new process before its own dispositions were set,
    such as from a terminate() right after the start, would be lost.
    """
    held: dict[int, Iterable[int]] = {}

    def hold() -> None:
        held[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, held.pop(get_ident()))

    def forked() -> None:
        connection.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        let_go()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=forked)


def _is_stop(connection: socket.socket) -> bool:
    """Whether a stop lies in the socket, or nobody is at its other end."""
    try:
        return connection.recv(LENGTH.size, socket.MSG_PEEK | socket.MSG_DONTWAIT) in (b"", frame(b""))
    except BlockingIOError:
        return False
    except OSError:  # a handler closed it: nobody can be asked
        return True


def _end_with(parent: int) -> None:
    """Die when the daemon does, also in the middle of a handler, whose job will run elsewhere.

    Only Linux has this; elsewhere the closed socket is found when the handler ends.
    """
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _receive(connection: socket.socket) -> bytearray | None:
    """The next call, empty for a stop; None when the daemon is gone."""
    head = _exactly(connection, LENGTH.size)
    return None if head is None else _exactly(connection, LENGTH.unpack(head)[0])


def _exactly(connection: socket.socket, size: int) -> bytearray | None:
    content = bytearray(size)
    room = memoryview(content)
    while room:
        got = connection.recv_into(room)
        if not got:
            return None
        room = room[got:]
    return content


def _flush() -> None:
    """Bring out what the handler printed, before the daemon says that it ended."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
