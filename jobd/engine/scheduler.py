"""Turns occurrences of schedules into jobs, on the one process that leads.

    due -> plan (pure) -> fire: jobs, history and the schedule's advance in one transaction -> sleep

It sleeps until the next occurrence or until it hears of a change, and looks at the clock at least once a
second, so that a clock that steps or a host that sleeps costs a second at most. A decision holds only
while this process leads in its term and the schedule is as it was read: two schedulers, or a crash
anywhere, neither lose nor double an occurrence.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from jobd.engine.decider import Decider
from jobd.engine.recovery import Recovery
from jobd.errors import JobdError, JobNotFound, Refused, Transient, WrongState
from jobd.events import Events, ScheduleDropped, ScheduleFaulty, ScheduleFired, ScheduleTaken
from jobd.schedule_rows import Decision, DueSchedule, Standing, Terms
from jobd.timetable import Timetable

BATCH = 500
LONGEST_SLEEP = 1.0
SHORTEST_SLEEP = 0.005
# How long to wait where nothing that was decided held.
REFUSED_PAUSE = 0.1
# How often to note which of the schedules' jobs have ended.
SETTLE_SECONDS = 60.0
# How long to decide before what was decided is written.
SLICE_SECONDS = 0.2


class Scheduler:
    """Lives on the control thread."""

    def __init__(
        self,
        timetable: Timetable,
        *,
        declared: Mapping[str, Sequence[Terms]],
        lead: str,
        worker_id: Callable[[], UUID],
        term: Callable[[], int | None],
        cancel: Callable[[UUID], Awaitable[object]],
        events: Events,
        rng: random.Random,
        now: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        """`declared` are the schedules of code and file, by owner. `term` is that of the lead `lead`, as long
        as this process holds it. `cancel` stops a job that is being replaced. `now` is for the simulator."""
        self._timetable = timetable
        self._declared = declared
        self._lead = lead
        self._worker_id = worker_id
        self._term = term
        self._cancel = cancel
        self._events = events
        self._recovery = Recovery("scheduler", events=events, rng=rng)
        self._now = now
        self._woken = asyncio.Event()
        self._decider = Decider()
        self._settled_at = -SETTLE_SECONDS
        # In what term it was last declared, 0 where another process led.
        self._declared_as: int | None = None
        # For probes: when it last looked at everything (monotonic), and why it could not since then.
        self.turned_at = time.monotonic()
        self.problem: str | None = None

    def wake(self) -> None:
        """A schedule was added or changed, or this process leads now."""
        self._woken.set()

    async def run(self) -> None:
        """Fire what is due until cancelled."""
        while True:
            self._woken.clear()
            pause = LONGEST_SLEEP
            try:
                term = self._term()
                await self.declare(term)
                if term is not None:
                    pause = await self.once(term)
                elif self._recovery.lost:
                    # A round without a statement says nothing of the database.
                    await self._timetable.due(count=1, now=self._now())
                self._recovery.succeeded()
                self.turned_at, self.problem = time.monotonic(), None
            except JobdError as outage:
                self.problem = f"its last look at the schedules failed ({type(outage).__name__})"
                pause = self._recovery.failed(outage)
                await asyncio.sleep(pause)
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def declare(self, term: int | None) -> None:
        """Put what code and file declare into the database, and pause what they no longer do.

        At the start, and again whenever this process begins to lead: an older version that started
        meanwhile had declared what this one does not know. What somebody holds locked is put the next time.
        """
        if self._declared_as is not None and term in (None, self._declared_as):
            return
        complete = True
        for owner, schedules in self._declared.items():
            stands, whole = await self._put(schedules)
            complete &= whole
            for id, (_, before) in stands.items():
                if before is not None and before not in self._declared:
                    self._events.emit(ScheduleTaken(id, owner, before))
        for owner, schedules in self._declared.items():
            ids = [terms.id for terms in schedules]
            for id in await self._timetable.disown(owner, ids, now=self._now()):
                self._events.emit(ScheduleDropped(id, owner))
        if complete:
            self._declared_as = term or 0

    async def _put(self, schedules: Sequence[Terms]) -> tuple[dict[str, Standing], bool]:
        """Declare them; return those that stand, and whether each has been seen to."""
        try:
            return await self._timetable.put(schedules, replace=True, now=self._now()), True
        except Refused as refusal:
            if len(schedules) == 1:
                self._events.emit(ScheduleFaulty(schedules[0].id, str(refusal)))
                return {}, True
        except Transient:
            if len(schedules) == 1:
                return {}, False
        # One that the database refuses, or that somebody holds, holds up no other.
        stands, complete = dict[str, Standing](), True
        for each in schedules:
            some, whole = await self._put([each])
            stands |= some
            complete &= whole
        return stands, complete

    async def once(self, term: int) -> float:
        """Decide about everything that is due; return for how many seconds there is nothing to do."""
        while True:
            due = await self._timetable.due(count=BATCH, now=self._now())
            decided, held = await self._decide(due, term) if due else (0, 0)
            if held < decided:
                # Somebody else is changing them just now, or leads.
                return REFUSED_PAUSE
            if decided == len(due) < BATCH:
                break
        if time.monotonic() - self._settled_at >= SETTLE_SECONDS:
            await self._timetable.settle()
            self._settled_at = time.monotonic()
        seconds = await self._timetable.next_fire(now=self._now())
        return LONGEST_SLEEP if seconds is None else min(max(seconds, SHORTEST_SLEEP), LONGEST_SLEEP)

    async def _decide(self, due: Sequence[DueSchedule], term: int) -> tuple[int, int]:
        """Decide about the first of these, as many as time allows; return how many, and how many hold."""
        begun = time.monotonic()
        # In a thread: years of missed minutes take seconds, and leases are beaten on this loop.
        decisions = await asyncio.to_thread(self._decisions, due)
        decisions, held = await self._fire(due[: len(decisions)], decisions, term)
        passed = time.monotonic() - begun
        for each, decision in zip(due, decisions, strict=False):
            if decision.id not in held:
                continue
            if decision.fault is not None:
                self._events.emit(ScheduleFaulty(decision.id, decision.fault))
            for run in decision.occurrences:
                late = max((each.moment - run.last_at).total_seconds() + passed, 0.0)
                self._events.emit(ScheduleFired(decision.id, run.outcome, run.number, late))
        for each, decision in zip(due, decisions, strict=False):
            if decision.id in held:
                await self._replace(each, decision)
        return len(decisions), len(held)

    def _decisions(self, due: Sequence[DueSchedule]) -> list[Decision]:
        """Some at least; what was missed over weeks by many schedules is decided in slices."""
        begun, decisions = time.monotonic(), list[Decision]()
        for each in due:
            decisions.append(self._decider.decision(each))
            if time.monotonic() - begun > SLICE_SECONDS:
                break
        return decisions

    async def _fire(
        self, due: Sequence[DueSchedule], decisions: list[Decision], term: int
    ) -> tuple[list[Decision], set[str]]:
        """Write what was decided; return it as it was written, and the ids of what holds."""

        async def write(some: Sequence[Decision]) -> set[str]:
            return await self._timetable.fire(
                some, name=self._lead, worker_id=self._worker_id(), term=term, now=self._now()
            )

        try:
            return decisions, await write(decisions)
        except Refused as refusal:
            if len(decisions) == 1:
                rests = due[0].decided(due[0].entry.decided_until, due_at=None, fault=str(refusal))
                return [rests], await write([rests])
        # One schedule that cannot become a job, as somebody wrote it by hand, holds up no other.
        written, held = [], set[str]()
        for each, decision in zip(due, decisions, strict=True):
            as_written, holds = await self._fire([each], [decision], term)
            written += as_written
            held |= holds
        return written, held

    async def _replace(self, due: DueSchedule, decision: Decision) -> None:
        """Cancel the oldest jobs that leave no room for those that begin.

        After these are certain, so that none is cancelled for nothing; what a crash in between leaves goes
        with the next occurrence.
        """
        if due.entry.overlap == "replace" and len(decision.open_jobs) > len(due.unfinished):
            surplus = max(len(decision.open_jobs) - due.entry.max_instances, 0)
            for id in due.unfinished[:surplus]:
                # It may have ended meanwhile.
                with contextlib.suppress(JobNotFound, WrongState):
                    await self._cancel(id)
