"""The places that are kept filled with children, and how they are together.

A place is a number, from 1 to `processes`; one child after the other may have it. Answers what
`jobd.api.probes` asks of a daemon (`Condition`) for all of them at once: not ready while one is not.
Their numbers are on `page`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from jobd import __version__
from jobd.logs import line
from jobd.supervision.child import Child, Unanswered
from jobd.supervision.ends import FAILED, End, Pauses, Verdict, judge, whole
from jobd.supervision.handover import Plan
from jobd.supervision.page import ASK_SECONDS, Page
from jobd.supervision.tether import HURRY, STOP

logger = logging.getLogger("jobd.supervisor")

LAST_SECONDS: Final = 60.0
"""How long a child may go on after its grace: cancelled handlers and an outage of the database take their
time, but it ends by itself well before."""

GONE_SECONDS: Final = 10.0
"""How soon a killed process is gone, unless the kernel itself holds it."""


class Place:
    """One of the places of a crew."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child | None = None
        self.vacancy = "is starting"
        """Why it is not ready while no child of its is."""
        self.filled = asyncio.Event()
        """Whether any child of its ever started."""
        self.pauses = Pauses()
        self.loss: int | None = None
        """How its last child ended, when no other one comes."""


class Crew:
    """N places and their children."""

    def __init__(
        self,
        plan: Plan,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        last_seconds: float = LAST_SECONDS,
    ) -> None:
        """`command` starts a child; `environment` is what it is to find besides our own.

        A child that was told to end is killed `last_seconds` after its grace.
        """
        self._plan = plan
        self._environment = dict(environment)
        self._command = list(command)
        self._last_seconds = last_seconds
        self._began = time.monotonic()
        self._told = 0
        self._ending = asyncio.Event()
        self._end_by: float | None = None
        self._fatal: int | None = None
        self.places = [Place(number) for number in range(1, plan.processes + 1)]
        self.page = Page(self._children, wanted=plan.processes)

    async def run(self, *, complete: Callable[[], None]) -> int:
        """Keep all places filled until told to end; return the exit code of the whole.

        The first child starts alone. `complete` is called once, when every place has had a child that works.
        """
        first, *others = self.places
        async with asyncio.TaskGroup() as tasks:
            keeping = [tasks.create_task(self._keep(first), name="place 1")]
            filled = tasks.create_task(first.filled.wait())
            await asyncio.wait({keeping[0], filled}, return_when=asyncio.FIRST_COMPLETED)
            if first.filled.is_set() and not keeping[0].done():
                keeping += [
                    tasks.create_task(self._keep(place), name=f"place {place.number}") for place in others
                ]
                telling = tasks.create_task(self._tell(complete))
                await asyncio.wait(keeping)
                telling.cancel()
            filled.cancel()
        if self._fatal is not None:
            return self._fatal
        return whole([place.loss for place in self.places if place.loss is not None])

    def stop(self) -> None:
        """Begin to end, as SIGTERM does; called again, cut the grace."""
        self._told = min(self._told + 1, HURRY)
        grace = self._plan.grace_seconds if self._told == STOP else 0.0
        due = time.monotonic() + grace + self._last_seconds
        self._end_by = due if self._end_by is None else min(due, self._end_by)
        self._ending.set()
        for child in self._children():
            child.stop(self._told)

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._told > 0

    def retire(self, place: Place, reason: str, *, kill: bool = False) -> None:
        """End the child of this place, so that another one comes."""
        child = place.child
        if child is None or child.retired_at is not None or self.stopping:
            return
        child.retired_at = time.monotonic()
        logger.error(
            line("process does not work, ending it", process=place.number, pid=child.pid, detail=reason)
        )
        if kill:
            child.kill()
        else:
            child.stop(STOP)

    def kill_overdue(self) -> None:
        """kill -9 those that were told to end too long ago."""
        now = time.monotonic()
        longest = self._plan.grace_seconds + self._last_seconds
        for place in self.places:
            child = place.child
            if child is None or child.killed_at is not None:
                continue
            late = self._end_by is not None and now > self._end_by
            if late or (child.retired_at is not None and now > child.retired_at + longest):
                logger.critical(line("process does not end, killing it", process=place.number, pid=child.pid))
                child.kill()

    # What probes ask.

    def stalled(self) -> str | None:
        """Why a restart of the whole is due: a child that even kill -9 does not end."""
        for place in self.places:
            child = place.child
            if child is not None and child.killed_at is not None:
                seconds = time.monotonic() - child.killed_at
                if seconds > GONE_SECONDS:
                    who = f"process {place.number} (pid {child.pid})"
                    return f"{who} was killed {seconds:.0f} s ago and is not gone"
        return None

    async def unready(self) -> list[str]:
        """Why not every child could run a job now, by place."""
        if self.stopping:
            return ["shutting down"]
        found = await asyncio.gather(*[self._unready(place) for place in self.places])
        return [
            f"process {place.number}: {reason}"
            for place, reasons in zip(self.places, found, strict=True)
            for reason in reasons
        ]

    async def depths(self) -> Collection[Child | None]:
        """Ask the children for their numbers; return those that answered, for the page."""
        return await self.page.asked()

    def gauges(self) -> Mapping[str, float]:
        """None besides those of the children."""
        return {}

    def describe(self) -> Mapping[str, Any]:
        """Who answers: the supervisor, and who works for it."""
        about = next((child.about for child in self._children() if child.about), {})
        return {
            "version": __version__,
            "roles": about.get("roles", []),
            "queues": about.get("queues", []),
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "scheduler": _together([child.about.get("scheduler") for child in self._children()]),
            "pid": os.getpid(),
            "processes": [
                {
                    "process": place.number,
                    "pid": place.child.pid if place.child else None,
                    "worker": place.child.about.get("worker") if place.child else None,
                }
                for place in self.places
            ],
        }

    # The places.

    async def _keep(self, place: Place) -> None:
        while not self.stopping:
            end, lived = await self._fill(place)
            verdict = judge(
                end,
                until_idle=self._plan.until_idle,
                any_started=any(place.filled.is_set() for place in self.places),
                place_started=place.filled.is_set(),
            )
            if verdict is Verdict.DONE:
                place.loss = end.loss
                place.vacancy = f"has ended ({end})"
                return
            if verdict is Verdict.FATAL:
                self._fatal = end.exit_code
                if not self.stopping:
                    self.stop()
                return
            pause = place.pauses.after(lived)
            self.page.replaced += 1
            place.vacancy = f"has ended ({end}) and is being replaced"
            logger.error(
                line(
                    "process ended, replacing it",
                    process=place.number,
                    detail=str(end),
                    lived_seconds=round(lived, 1),
                    pause_seconds=pause,
                )
            )
            try:
                async with asyncio.timeout(pause):
                    await self._ending.wait()
            except TimeoutError:
                pass

    async def _fill(self, place: Place) -> tuple[End, float]:
        """Start a child in a place and wait for its end."""
        try:
            child = place.child = await Child.start(
                place.number,
                self._command,
                self._environment,
                told=lambda child, message: self._heard(place, child, message),
            )
        except OSError as error:  # no memory, no process, no descriptor
            logger.error(line("process could not be started", process=place.number, detail=str(error)))
            return End(code=FAILED, started=False, told=self.stopping), 0.0
        if self.stopping:  # told while it was being started
            child.stop(self._told)
        code = await child.run()
        place.child = None
        self.page.ended(child)
        end = End(code=code, started=child.started, told=self.stopping, retired=child.retired_at is not None)
        return end, child.lived

    def _heard(self, place: Place, child: Child, message: Mapping[str, Any]) -> None:
        match message["say"]:
            case "started":
                place.filled.set()
                worker = child.about.get("worker")
                logger.info(line("process started", process=place.number, pid=child.pid, worker=worker))
            case "ended":
                self.page.last(child, message["metrics"])

    async def _tell(self, complete: Callable[[], None]) -> None:
        for place in self.places:
            await place.filled.wait()
        complete()

    def _children(self) -> list[Child]:
        return [place.child for place in self.places if place.child is not None]

    async def _unready(self, place: Place) -> list[str]:
        child = place.child
        if child is None or not child.started:
            # A child that starts in the place of one that died shows as the death until it works.
            return [place.vacancy]
        try:
            reasons = list(await child.ask("unready", seconds=ASK_SECONDS))
            child.about = await child.ask("describe", seconds=ASK_SECONDS) or child.about
            return reasons
        except Unanswered:
            return [f"does not answer (pid {child.pid})"]


def _together(told: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """What the processes tell of their schedulers: it runs if it does in one, and leads if one does."""
    known = [each for each in told if each is not None]
    leads = [each["lead"] for each in known if each["running"]]
    return {
        "running": bool(leads),
        "lead": "leader" if "leader" in leads else next(iter(leads), None),
        "schedules": max(
            (each["schedules"] for each in known if each["schedules"] is not None), default=None
        ),
        "reason": None if leads else next((each["reason"] for each in known), "no process has told yet"),
    }
