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
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from jobd.engine.recovery import Recovery
from jobd.errors import ConfigError, JobdError, JobNotFound, Refused, WrongState
from jobd.events import Events, ScheduleDropped, ScheduleFaulty, ScheduleFired
from jobd.ids import uuid7
from jobd.occurrences import Fire, Stretch, pass_over, plan
from jobd.schedule import Schedule
from jobd.terms import parsed
from jobd.timetable import Decision, DueSchedule, Occurrence, ScheduleEntry, Terms, Timetable

BATCH = 500
LONGEST_SLEEP = 1.0
SHORTEST_SLEEP = 0.005
# How long to wait where nothing that was decided held.
REFUSED_PAUSE = 0.1
# How soon to look again where an occurrence waits for the one before it.
QUEUE_LOOK = timedelta(seconds=1)
# How often to note which of the schedules' jobs have ended.
SETTLE_SECONDS = 60.0
# Parsed schedules that are kept.
REMEMBERED = 20_000


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
        self._declared = dict(declared)
        self._lead = lead
        self._worker_id = worker_id
        self._term = term
        self._cancel = cancel
        self._events = events
        self._recovery = Recovery("scheduler", events=events, rng=rng)
        self._now = now
        self._woken = asyncio.Event()
        self._parsed: dict[tuple[object, ...], Schedule] = {}
        self._settled_at = -SETTLE_SECONDS
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
                await self._declare()
                if (term := self._term()) is not None:
                    pause = await self.once(term)
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

    async def _declare(self) -> None:
        """Once: put what code and file declare into the database, and pause what they no longer do."""
        for owner, schedules in list(self._declared.items()):
            await self._timetable.put(schedules, replace=True, now=self._now())
            gone = await self._timetable.disown(owner, [terms.id for terms in schedules], now=self._now())
            del self._declared[owner]
            for id in gone:
                self._events.emit(ScheduleDropped(id, owner))

    async def once(self, term: int) -> float:
        """Decide about everything that is due; return for how many seconds there is nothing to do."""
        if time.monotonic() - self._settled_at >= SETTLE_SECONDS:
            await self._timetable.settle()
            self._settled_at = time.monotonic()
        while True:
            due = await self._timetable.due(count=BATCH, now=self._now())
            if due and not await self._decide(due, term):
                # All of them changed meanwhile, or another process leads.
                return REFUSED_PAUSE
            if len(due) < BATCH:
                break
        seconds = await self._timetable.next_fire(now=self._now())
        return LONGEST_SLEEP if seconds is None else min(max(seconds, SHORTEST_SLEEP), LONGEST_SLEEP)

    async def _decide(self, due: Sequence[DueSchedule], term: int) -> bool:
        # In a thread: years of missed minutes take seconds, and leases are beaten on this loop.
        decisions = await asyncio.to_thread(lambda: [self._decision(each) for each in due])
        decisions, held = await self._fire(due, decisions, term)
        for each, decision in zip(due, decisions, strict=True):
            if decision.id not in held:
                continue
            await self._replace(each, decision)
            if decision.fault is not None:
                self._events.emit(ScheduleFaulty(decision.id, decision.fault))
            for run in decision.occurrences:
                late = max((each.moment - run.last_at).total_seconds(), 0.0)
                self._events.emit(ScheduleFired(decision.id, run.outcome, run.number, late))
        return bool(held)

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

    def _decision(self, due: DueSchedule) -> Decision:
        entry = due.entry
        try:
            schedule = self._schedule(entry)
            first = schedule.next_after(entry.decided_until)
        except ConfigError as error:
            return due.decided(entry.decided_until, due_at=None, fault=str(error))
        runs_left = None if entry.max_runs is None else entry.max_runs - entry.runs
        ended = entry.ends_at is not None and first is not None and first > entry.ends_at
        if first is None or ended or (runs_left is not None and runs_left <= 0):
            return due.decided(entry.decided_until, due_at=None)
        if entry.passed_until is not None and first <= entry.passed_until:
            passed = pass_over(schedule, first, entry.passed_until, ends_at=entry.ends_at, reason="paused")
            # What is due since then is decided by the next look, at once.
            return _decided(due, passed.missed, [], due_at=passed.next_fire_at)
        if first > due.moment:
            return due.decided(entry.decided_until, due_at=first)
        made = plan(schedule, entry.policy, first, due.moment, runs_left=runs_left)
        room = entry.max_instances - len(due.unfinished)
        if entry.overlap == "replace":
            room = entry.max_instances
        runs = [_run(entry, fire, due.last_success_at) for fire in made.fires[: max(room, 0)]]
        over = made.fires[len(runs) :]
        if over and entry.overlap == "queue":
            # The others stay undecided until there is room.
            return _decided(due, made.missed if runs else None, runs, due_at=due.moment + QUEUE_LOOK)
        skipped = [Occurrence(fire.fire_at, fire.fire_at, 1, "skipped", "overlap") for fire in over]
        last = runs_left is not None and len(runs) >= runs_left
        due_at = None if last else made.next_fire_at
        return _decided(due, made.missed, [*runs, *skipped], due_at=due_at)

    def _schedule(self, entry: ScheduleEntry) -> Schedule:
        key = (entry.id, entry.expression, entry.time_zone, entry.dst, entry.seconds, entry.anchor)
        schedule = self._parsed.get(key)
        if schedule is None:
            if len(self._parsed) >= REMEMBERED:
                self._parsed.clear()
            schedule = self._parsed[key] = parsed(entry)
        return schedule


def _decided(
    due: DueSchedule, missed: Stretch | None, occurrences: list[Occurrence], *, due_at: datetime | None
) -> Decision:
    if missed is not None:
        outcome = "skipped" if missed.reason == "paused" else "missed"
        occurrences = [
            Occurrence(missed.first, missed.last, missed.number, outcome, missed.reason),
            *occurrences,
        ]
    until = max((run.last_at for run in occurrences), default=due.entry.decided_until)
    return due.decided(until, due_at=due_at, occurrences=occurrences)


def _run(entry: ScheduleEntry, fire: Fire, last_success_at: datetime | None) -> Occurrence:
    fire_at, run_at = fire
    headers = {"schedule": entry.id, "fire_at": fire_at.isoformat()}
    if last_success_at is not None:
        headers["last_success_at"] = last_success_at.isoformat()
    return Occurrence(
        fire_at, fire_at, 1, "ran", None, uuid7(), run_at + _jitter(entry, fire_at), json.dumps(headers)
    )


def _jitter(entry: ScheduleEntry, fire_at: datetime) -> timedelta:
    """The same for an occurrence whoever computes it."""
    if not entry.jitter:
        return timedelta(0)
    digest = hashlib.blake2b(f"{entry.id} {fire_at.isoformat()}".encode(), digest_size=8).digest()
    return entry.jitter * (int.from_bytes(digest, "big") / 2**64)
