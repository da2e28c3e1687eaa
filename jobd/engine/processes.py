"""Processes for handlers that must be killable, or may die: one call at a time in each.

    start -> idle <-> calling -> ended
               |         |         ^
               +-- stop -+-- SIGTERM, then SIGKILL after the grace

A child is a fresh interpreter (never a fork of this one, whose threads and locks it would inherit half
of), in a process group of its own, so that what a handler started is killed with it and the terminal's
Ctrl-C reaches the daemon only. multiprocessing is not used: it would import the application's
`__main__` in each child and keep a tracker process. What is sent is in `crossing`, the other side in `child`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from jobd.engine.crossing import LENGTH, RemoteError, Untransferable, frame, pack_call, unpack_answer

__all__ = ["ChildDied", "Processes", "RemoteError", "Untransferable"]

# -P and a given sys.path: the child imports what the daemon would, and not what lies in the current folder.
_PROGRAM: Final = """\
import sys
_, descriptor, parent, *sys.path = sys.argv
del sys.argv[1:]
from jobd.engine.child import main
main(int(descriptor), int(parent))
"""


class ChildDied(Exception):
    """The process of a handler ended before the handler did; `returncode` is negative for a signal."""

    def __init__(self, returncode: int, *, begun: bool = True) -> None:
        self.returncode = returncode
        self.begun = begun
        if returncode >= 0:
            how = f"ended with exit code {returncode}"
        else:
            how = f"was killed by {_signal_name(-returncode)}"
        if returncode == -signal.SIGKILL:
            how += " (Linux does that when memory runs out)"
        when = "before the handler ended" if begun else "before the handler began; its stderr may say why"
        super().__init__(f"the handler's process {how} {when}")


class Processes:
    """At most `limit` children, started when they are needed and used again.

    `run` and `close` belong to one event loop, and the thread of that loop is what children are bound to:
    they die when it ends.
    """

    def __init__(self, *, limit: int, grace: float = 2.0) -> None:
        """`grace`: seconds that a child which is told to stop has before it is killed."""
        self._grace = grace
        self._slots = asyncio.Semaphore(limit)
        # Of those alive, each either is in `_idle` or holds a slot: so they are at most `limit`.
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []
        # Guards `_children` and `_kills`, which kill() uses from other threads.
        self._lock = threading.Lock()
        self._kills = 0
        self._closed = False

    async def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function, known by module and name, in a child; wait for a free one if need be.

        Raises what the function raised, caused by a RemoteTraceback; RemoteError where that exception
        cannot leave its process; Untransferable for arguments or a result that cannot cross; ChildDied.
        When it is cancelled it ends at once, while the child has the grace to end the handler.
        """
        call = frame(pack_call(function, args, kwargs))
        kills = self._kills
        while True:
            await self._slots.acquire()
            child = None
            try:
                child = self._take(kills)
                answer = await child.ask(call)
                break
            except ChildDied as death:
                # One that died while it was idle is no failure of this call; one that cannot start is.
                if death.begun or child is None or child.calls == 1 or kills != self._kills:
                    raise
            finally:
                self._give_back(child)
        return unpack_answer(answer)

    def kill(self) -> None:
        """Kill all children at once; from any thread, also while the loop is stuck.

        Calls under way, and those waiting for a child, raise ChildDied; later ones start anew.
        """
        with self._lock:
            self._kills += 1
            children = list(self._children)
        for child in children:
            child.kill()

    async def close(self) -> None:
        """Stop all children, and wait until there are none; later calls of run() raise RuntimeError."""
        self._closed = True
        with self._lock:
            children = list(self._children)
        try:
            for child in children:
                child.stop(self._grace)
            for child in children:
                await child.exited.wait()
        finally:
            self.kill()

    def _take(self, kills: int) -> _Child:
        with self._lock:
            if self._closed:
                raise RuntimeError("these processes are closed: no handler can run in them any more")
            if kills != self._kills:
                raise ChildDied(-signal.SIGKILL, begun=False)
            if self._idle:
                return self._idle.pop()
            child = _Child(self._ended)
            self._children.add(child)
            return child

    def _give_back(self, child: _Child | None) -> None:
        if child is None:
            self._slots.release()
        elif not child.exited.is_set():
            if child.idle and not self._closed:
                self._idle.append(child)
                self._slots.release()
            else:
                child.stop(self._grace)

    def _ended(self, child: _Child) -> None:
        with self._lock:
            self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        else:
            self._slots.release()


class _Child:
    """One process, from its start until nothing is left of it; `ended` is called on the loop then."""

    def __init__(self, ended: Callable[[_Child], None]) -> None:
        self.calls = 0
        self.idle = True
        self.exited = asyncio.Event()
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._asking = self._sending = False
        self._killing: asyncio.TimerHandle | None = None
        # Held while a signal is sent and while the pid is given up, so that no other process is hit.
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        try:
            with theirs:
                self._popen = subprocess.Popen(
                    _command(theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
        except BaseException:
            self._socket.close()
            raise
        # A thread works with every loop, and also sees deaths that the socket does not show.
        threading.Thread(target=self._watch, name=f"jobd-child-{self._popen.pid}", daemon=True).start()

    async def ask(self, call: bytes) -> bytearray:
        """The answer to a call, after which the child is idle again. Raises ChildDied."""
        self.calls += 1
        self.idle = begun = False
        self._asking = self._sending = True
        try:
            # sock_* is the same on asyncio and uvloop, and leaves nothing to take down when cancelled.
            await self._loop.sock_sendall(self._socket, call)
            self._sending = False
            await self._receive()
            begun = True
            answer = await self._receive()
        except (EOFError, OSError):
            await self.exited.wait()
            raise ChildDied(self._popen.returncode, begun=begun) from None
        finally:
            self._asking = False
            if self.exited.is_set():
                self._socket.close()
        self.idle = True
        return answer

    def stop(self, grace: float) -> None:
        """Let it end what it does, and kill it `grace` seconds from now."""
        if self._killing or self.exited.is_set():
            return
        if self._sending:  # half a call is in the socket, and nothing can be told any more
            self.kill()
            return
        try:
            self._socket.send(frame(b""))
        except OSError:
            self.kill()
            return
        self._killing = self._loop.call_later(grace, self.kill)
        with self._lock:
            if not self.idle and self._popen.returncode is None:
                os.kill(self._popen.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and what its handlers started; from any thread."""
        with self._lock:
            if self._popen.returncode is None:
                # macOS refuses it for a group of zombies.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._popen.pid, signal.SIGKILL)

    def _watch(self) -> None:
        if sys.platform == "darwin":  # has no waitid before Python 3.13
            self._popen.wait()
        else:
            # The zombie stays: until it is reaped, its pid and group cannot become somebody else's.
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
            self.kill()
            with self._lock:
                self._popen.wait()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._gone)

    def _gone(self) -> None:
        self.idle = False
        self.exited.set()
        if self._killing:
            self._killing.cancel()
        if self._asking:
            # Ends a read that a process which inherited the other end would keep waiting.
            self._socket.shutdown(socket.SHUT_RDWR)
        else:
            self._socket.close()
        self._ended(self)

    async def _receive(self) -> bytearray:
        (size,) = LENGTH.unpack(await self._exactly(LENGTH.size))
        return await self._exactly(size)

    async def _exactly(self, size: int) -> bytearray:
        content = bytearray(size)
        room = memoryview(content)
        while room:
            got = await self._loop.sock_recv_into(self._socket, room)
            if not got:
                raise EOFError
            room = room[got:]
        return content


def _command(descriptor: int) -> list[str]:
    # -X, -W, -O and the like of this interpreter, as multiprocessing hands them on.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # Entries that are no folders (editable installs have such) stay as they are.
    path = [entry or os.getcwd() for entry in sys.path]
    return [sys.executable, *flags, "-P", "-c", _PROGRAM, str(descriptor), str(os.getpid()), *path]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
