"""Two ways to host a daemon: in a process of its own, and inside an application.

run_forever    `jobd run`: signals, logs and the loop are ours; returns the exit code
running        `Jobs.running`: the loop is the application's; leaving the block stops the daemon
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from jobd.app import Jobs
from jobd.daemon import ROLES, Daemon
from jobd.errors import ConfigError
from jobd.logs import configure_logs
from jobd.supervision.tether import STOP, Orders

if TYPE_CHECKING:
    from jobd.settings import Settings
    from jobd.supervision.tether import Tether


@asynccontextmanager
async def running(
    jobs: Jobs,
    *,
    roles: Collection[str] = ("worker", "scheduler"),
    queues: Sequence[str] = (),
    **overrides: Any,
) -> AsyncIterator[Daemon]:
    """The daemon inside another application; see `Jobs.running`."""
    from jobd.settings import load_settings

    if "processes" in overrides:
        raise ConfigError(
            "processes",
            overrides["processes"],
            "an application runs the daemon in its own process; leave it out, or use `jobd run --processes`",
        )
    settings = load_settings(**{**jobs.overrides, **overrides})
    jobs.configure(settings)
    daemon = Daemon(jobs, settings, roles=roles, queues=queues)
    work = asyncio.ensure_future(daemon.run())
    work.add_done_callback(lambda _: daemon.tell_failure(work))
    started = asyncio.ensure_future(daemon.ready.wait())
    try:
        await asyncio.wait({work, started}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
        yield daemon
    finally:
        started.cancel()
        daemon.stop()
        # Also when the application is being cancelled: the ladder is taken to its end.
        import anyio

        with anyio.CancelScope(shield=True):
            await asyncio.wait({work})
        work.result()


def run_forever(
    jobs: Jobs,
    settings: Settings,
    *,
    roles: Collection[str] | None = None,
    queues: Sequence[str] = (),
    until_idle: bool = False,
    tether: Tether | None = None,
) -> int:
    """Run a daemon of its own until SIGTERM or SIGINT; return the exit code of the process.

    With a `tether` it is a supervisor's child and ends as that says; a signal then counts once.
    Raises ConfigError and DatabaseUnavailable where it cannot start.
    """
    jobs.configure(settings)
    configure_logs(settings.log_level, process=tether.process if tether else None)

    async def work() -> int:
        daemon = Daemon(
            jobs,
            settings,
            roles=roles or ROLES,
            queues=queues,
            until_idle=until_idle,
            standalone=True,
            tether=tether,
        )
        loop = asyncio.get_running_loop()
        stop, told = daemon.stop, daemon.told_to_stop
        if tether is not None:
            orders = _orders(daemon, loop)
            stop = told = partial(orders.told, STOP)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
            # In place of the loop's own, which does nothing: the loop is told through its wakeup descriptor.
            signal.signal(number, lambda *_: told())
            signal.siginterrupt(number, False)
        if tether is not None:
            tether.listen(orders)
        code = await daemon.run()
        try:
            async with asyncio.timeout(2):
                await loop.shutdown_default_executor()
        except TimeoutError:
            # A handler left a thread behind (asyncio.to_thread); its job was handed back.
            os._exit(code)
        return code

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work())


def _orders(daemon: Daemon, loop: asyncio.AbstractEventLoop) -> Orders:
    def step() -> None:
        daemon.told_to_stop()
        with contextlib.suppress(RuntimeError):  # the loop has closed: it ended by itself
            loop.call_soon_threadsafe(daemon.stop)

    return Orders(step)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return None
    return uvloop.new_event_loop
