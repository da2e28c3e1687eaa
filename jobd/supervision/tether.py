"""A child's end of the line to its supervisor: orders and questions come, answers go.

    supervisor -> child   {"stop": 1}  SIGTERM once   {"stop": 2}  twice
                          {"ask": "stalled" | "unready" | "describe" | "metrics", "id": 7, ...}
    child -> supervisor   {"say": "here"}     signals are heard from now on
                          {"say": "started", "about": {...}}
                          {"answer": ..., "id": 7}
                          {"say": "ended", "metrics": [...]}

One JSON document a line. A thread reads it from before the daemon has a loop until the process ends, so
that neither a start that waits for its database nor a handler that blocks the loop can miss an order.
The end of the line is the end of the supervisor, however it died, and an order to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prometheus_client import Metric

    from jobd.api.probes import Condition
    from jobd.metrics import Metrics
    from jobd.reader import Stock

logger = logging.getLogger(__name__)

SEND_SECONDS: Final = 5
ANSWER_SECONDS: Final = 2.5
"""Below what the supervisor waits: a reason is worth more than its time-out."""

STOP: Final = 1
HURRY: Final = 2


class Orders:
    """How far a process was told to end: each step is taken once, however often and by whomever it is told.

    systemd signals every process of a service, and the supervisor passes its own signal on: two of those
    are one order, and must not cut the grace.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        """`step` is called once for STOP and once more for HURRY, from any thread or a signal handler."""
        self._step = step
        self._level = 0
        self._lock = threading.RLock()  # a signal handler may interrupt its own thread here

    def told(self, level: int) -> None:
        """Be told; from any thread, and from signal handlers."""
        with self._lock:
            steps = level - self._level
            self._level = max(self._level, level)
        for _ in range(steps):
            self._step()


class Tether:
    """Reads from `listen` on; answers while `serve` runs."""

    def __init__(self, process: int, *, descriptor: int) -> None:
        """`process` is our place among the supervisor's children, from 1 on."""
        self.process = process
        self._socket = socket.socket(fileno=descriptor)
        # The programs that handlers start must not keep it open.
        self._socket.set_inheritable(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        self._sending = threading.Lock()
        self._said_last = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._condition: Condition[Stock] | None = None
        self._counts: Metrics | None = None
        self._nothing: Stock | None = None

    def listen(self, orders: Orders) -> None:
        """Begin to obey, and say so."""
        threading.Thread(target=self._read, args=(orders,), name="jobd-tether", daemon=True).start()
        self._send({"say": "here"})

    async def serve(self, condition: Condition[Stock], counts: Metrics | None) -> None:
        """Answer about this daemon until cancelled, on the loop that the condition is asked on.

        Says first that the daemon works, and last what it has counted. `counts` is None without role http.
        """
        # Not at the top: the supervisor imports this module, too, and nothing of a worker.
        from jobd.reader import Stock

        self._nothing = Stock()
        self._loop = asyncio.get_running_loop()
        self._condition = condition
        self._counts = counts
        await asyncio.to_thread(self._send, {"say": "started", "about": dict(condition.describe())})
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._condition = None
            if counts is not None:
                # Shielded by being no await: the loop is told to end, and this is the last it does.
                self._send({"say": "ended", "metrics": plain(counts.families(self._nothing, {}))}, last=True)

    def close(self) -> None:
        """Give the line up, for a process that does not become a daemon after all."""
        self._socket.close()

    def _read(self, orders: Orders) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                order = json.loads(line)
                if (level := order.get("stop")) is not None:
                    orders.told(level)
                elif self._loop is not None:
                    with contextlib.suppress(RuntimeError):  # it has closed
                        asyncio.run_coroutine_threadsafe(self._reply(order), self._loop)
        logger.warning("the supervisor is gone: ending")
        orders.told(STOP)
        self.close()

    async def _reply(self, order: Mapping[str, Any]) -> None:
        condition = self._condition
        if condition is None:
            return
        answer: Any
        match order["ask"]:
            case "stalled":
                answer = condition.stalled()
            case "unready":
                answer = await self._unready(condition)
            case "describe":
                answer = dict(condition.describe())
            case "metrics" if self._counts is not None:
                depths = await self._depths(condition) if order["depths"] else self._nothing
                answer = self._counts.families(depths, condition.gauges())
            case _:
                answer = None
        # Elsewhere than on the loop that beats: the page may be long, and the supervisor busy.
        await asyncio.to_thread(self._answer, order["id"], answer)

    @staticmethod
    async def _unready(condition: Condition[Any]) -> list[str]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await condition.unready()
        except TimeoutError:
            return [f"the check did not end within {ANSWER_SECONDS:g} s"]
        except Exception as error:
            logger.exception("the readiness check failed")
            return [f"the check failed: {type(error).__name__}, see the log"]

    @staticmethod
    async def _depths(condition: Condition[Stock]) -> Stock | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await condition.depths()
        except Exception as error:
            # The rest of the page matters most at such a time.
            logger.warning("queues and schedules are left out of /metrics: %r", error)
            return None

    def _answer(self, id: int, answer: Any) -> None:
        known = answer is None or isinstance(answer, (str, list, dict))
        self._send({"id": id, "answer": answer if known else plain(answer)})

    def _send(self, message: Mapping[str, Any], *, last: bool = False) -> None:
        content = json.dumps(message, default=str).encode() + b"\n"
        with self._sending:
            if self._said_last:  # an answer that took its time: older counts must not follow the last ones
                return
            self._said_last = last
            try:
                self._socket.sendall(content)
            except OSError:
                # Half a line may be in it, so that nothing more can be told. That it is shut is also how
                # the supervisor learns of it, and how `_read` learns that the supervisor is gone.
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)


def plain(families: Iterable[Metric]) -> list[Any]:
    """Metrics as JSON has them: [name, type, help, [[sample, labels, value], ...]] each."""
    return [
        [
            family.name,
            family.type,
            family.documentation,
            [[sample.name, sample.labels, sample.value] for sample in family.samples],
        ]
        for family in families
    ]
