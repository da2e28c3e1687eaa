"""The supervisor's own program: a port, signals, a crew.

    SIGTERM, SIGINT, SIGHUP   passed on to every child; a second one cuts the grace of all
    exit                      70, 1 or 0: the worst of the children's last ends; what a first child that
                              could not start ended with

Small on purpose: it imports neither the application nor what a worker needs, and has no connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from typing import Final

from jobd.logs import line, write_lines
from jobd.supervision.child import Unanswered
from jobd.supervision.crew import Crew, Place
from jobd.supervision.handover import Plan, command

logger = logging.getLogger("jobd.supervisor")

WATCH_SECONDS: Final = 5.0
PATIENCE: Final = 12
"""Questions in a row that a child may leave unanswered: two minutes, as a blocked loop may take."""


def supervise(plan: Plan, *, environment: Mapping[str, str] | None = None) -> int:
    """Run until told to end, or until nothing is left to do; return the exit code.

    `environment` is given to the children besides our own. Raises ConfigError when the port is taken.
    """
    write_lines(plan.log_level)
    return asyncio.run(_supervise(plan, environment or {}))


async def _supervise(plan: Plan, environment: Mapping[str, str]) -> int:
    crew = Crew(plan, command=command(plan.arguments), environment=environment)
    server = None
    if plan.http_host is not None:
        from jobd.api.probes import create_app
        from jobd.api.server import HttpServer

        server = HttpServer(create_app(crew, crew.page), host=plan.http_host, port=plan.http_port)
        server.bind()
    address = server.address if server else None

    def told() -> None:
        if not crew.stopping:
            logger.info(line("stopping", processes=plan.processes, grace_seconds=plan.grace_seconds))
        crew.stop()

    def complete() -> None:
        logger.info(line("started", processes=plan.processes, pid=os.getpid(), address=address))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, told)
    async with asyncio.TaskGroup() as tasks:
        services = [tasks.create_task(Watch(crew).run(), name="watch")]
        if server is not None:
            services.append(tasks.create_task(server.run(), name="http"))
        code = await crew.run(complete=complete)
        for service in services:
            service.cancel()
    logger.info(line("stopped", exit_code=code))
    return code


class Watch:
    """Finds children that live and do not work, and those that do not end."""

    def __init__(self, crew: Crew, *, every: float = WATCH_SECONDS, patience: int = PATIENCE) -> None:
        """Ask every so many seconds; so many questions in a row may be left unanswered."""
        self._crew = crew
        self._every = every
        self._patience = patience

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            self._crew.kill_overdue()
            await asyncio.gather(*[self._look(place) for place in self._crew.places])

    async def _look(self, place: Place) -> None:
        child = place.child
        if child is None or not child.started or self._crew.stopping:
            return
        try:
            reason = await child.ask("stalled", seconds=self._every)
        except Unanswered:
            # Counted, not timed: when the whole machine slept, nobody was slow.
            child.missed += 1
            if child.missed >= self._patience:
                self._crew.retire(place, "its control thread does not answer", kill=True)
            return
        child.missed = 0
        if reason is not None:
            self._crew.retire(place, reason)
