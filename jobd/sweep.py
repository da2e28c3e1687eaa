"""An operation on many jobs: it looks through them by id, a page at a time, and moves those that are meant.

    extent -- begin_audit -+- matching -- move a batch, move a batch ... -+- end_audit
                           +------------- the next page ------------------+

Every statement is bounded, in what it reads as in what it changes, and is a transaction of its own. So
nothing is locked for long, and an operation may be stopped anywhere and repeated: what it has done is done,
and no longer meant. Jobs that were enqueued or ended after it began are left out, so it comes to an end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from jobd.door import Executes
from jobd.errors import PartitionMissing, Transient
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.job import FINISHED, JobState
from jobd.lifecycle import RUNNING, WAITING
from jobd.reader import Extent, Page, Reader
from jobd.selection import Selection
from jobd.sweeps import Moved, Sweeps

# Where few match, more are looked at in one statement than may be changed by one.
BATCH, LONG_PAGE = 1_000, 10_000
DAY = timedelta(days=1)
FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)
# What others have locked, or met us in a deadlock with, is tried again for two seconds.
TRIES, PAUSE_SECONDS = 20, 0.1


class Span(NamedTuple):
    """From this moment on and before that one."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What is done to jobs: to those that live, to those that have ended, or to both."""

    verb: str
    takes: frozenset[JobState]
    unless_said: frozenset[JobState]
    """The states that are meant where none is named."""
    change: Mapping[str, Any] = field(default_factory=dict)
    """What they get, for the audit."""
    live: Callable[[Sweeps, Sequence[UUID], UUID, frozenset[JobState]], Awaitable[Moved]] | None = None
    past: Callable[[Sweeps, Sequence[UUID], UUID, Span], Awaitable[Moved]] | None = None


def cancelling(reason: str) -> Act:
    """Waiting jobs end `cancelled`; the workers of running ones are asked to stop."""
    return Act(
        verb="cancel",
        takes=WAITING | RUNNING,
        unless_said=WAITING | RUNNING,
        change={"reason": reason},
        live=lambda sweeps, ids, audit_id, states: sweeps.cancel_many(
            ids, asks=JobState.RUNNING in states, reason=reason, audit_id=audit_id
        ),
    )


def retrying() -> Act:
    """Jobs that have ended are `ready` again; dead ones, unless others are named."""
    return Act(
        verb="retry",
        takes=FINISHED,
        unless_said=frozenset({JobState.DEAD}),
        past=lambda sweeps, ids, audit_id, span: sweeps.retry_many(
            ids, since=span.since, until=span.until, audit_id=audit_id
        ),
    )


def rescheduling(
    *, run_at: datetime | None = None, priority: int | None = None, now: datetime | None = None
) -> Act:
    """Waiting jobs get another time, another priority, or both."""
    change = {"run_at": run_at and run_at.isoformat(), "priority": priority}
    return Act(
        verb="reschedule",
        takes=WAITING,
        unless_said=WAITING,
        change={name: value for name, value in change.items() if value is not None},
        live=lambda sweeps, ids, audit_id, _: sweeps.reschedule_many(
            ids, run_at=run_at, priority=priority, audit_id=audit_id, now=now
        ),
    )


def moving(queue: str) -> Act:
    """Waiting jobs go into another queue."""
    return Act(
        verb="move",
        takes=WAITING,
        unless_said=WAITING,
        change={"queue": queue},
        live=lambda sweeps, ids, audit_id, _: sweeps.move_many(ids, queue=queue, audit_id=audit_id),
    )


def deleting() -> Act:
    """Jobs that do not run are gone. Tombstones stay, until their day is over."""
    return Act(
        verb="delete",
        takes=WAITING | FINISHED,
        unless_said=WAITING | FINISHED,
        live=lambda sweeps, ids, audit_id, _: sweeps.delete_many(ids, audit_id=audit_id),
        past=lambda sweeps, ids, audit_id, span: sweeps.delete_past(
            ids, since=span.since, until=span.until, audit_id=audit_id
        ),
    )


@dataclass(slots=True, kw_only=True)
class Tally:
    """What an operation on many jobs did, or would do."""

    verb: str
    jobs: int = 0
    """How many it changed; of a dry run, how many it would at most."""
    states: dict[JobState, int] = field(default_factory=dict)
    """In which states those were found that are meant."""
    asked: int = 0
    """Of the changed ones: running jobs whose worker was asked to stop."""
    held: int = 0
    """Not retried, since another job holds their unique key."""
    busy: int = 0
    """Left out, since somebody else had them locked for long. Repeat it."""
    looked: int = 0
    """How many jobs were looked at,"""
    extent: int = 0
    """of roughly how many."""
    audit_id: UUID | None = None
    """The row of jobd.audit; None for a dry run."""


class Sweep:
    """One operation on many jobs, or a count of what it would meet."""

    def __init__(
        self,
        door: Executes,
        act: Act,
        selection: Selection,
        *,
        who: str,
        sleep: Callable[[float], Awaitable[None]],
        limit: int | None = None,
        on_progress: Callable[[Tally], None] | None = None,
    ) -> None:
        """`on_progress` is called after each page. `tally` is what it came to so far."""
        self._door = door
        self._act = act
        self._selection = selection
        self._who = who
        self._sleep = sleep
        self._limit = limit
        self._on_progress = on_progress
        self._reader = Reader(door)
        self._sweeps = Sweeps(door)
        self.tally = Tally(verb=act.verb)

    async def count(self) -> Tally:
        """Change nothing; tell how many jobs are meant, in which states."""

        async def visit(page: Page, span: Span | None) -> None:
            room = len(page.ids) if self._limit is None else self._limit - self.tally.jobs
            self.tally.jobs += len(page.ids[:room])
            self._found(page.states[:room])

        await self._look_through(visit)
        return self.tally

    async def run(self) -> Tally:
        """Move the jobs that are meant, and put that down in the audit.

        What raises midway leaves done what was done, and the audit's row without an end.
        """
        audit_id = self.tally.audit_id = uuid7()
        await self._sweeps.begin_audit(
            audit_id,
            who=self._who,
            verb=self._act.verb,
            filter=json.dumps(self._selection.to_json() | ({"limit": self._limit} if self._limit else {})),
            change=json.dumps(self._act.change),
        )

        async def visit(page: Page, span: Span | None) -> None:
            start = 0
            while start < len(page.ids) and not self._full:
                room = BATCH if self._limit is None else min(BATCH, self._limit - self.tally.jobs)
                self._found(page.states[start : start + room])
                await self._move(page.ids[start : start + room], audit_id, span)
                start += room

        await self._look_through(visit)
        await self._sweeps.end_audit(audit_id)
        return self.tally

    @property
    def _full(self) -> bool:
        return self._limit is not None and self.tally.jobs >= self._limit

    def _found(self, states: Sequence[str]) -> None:
        for state, count in Counter(states).items():
            self.tally.states[JobState(state)] = self.tally.states.get(JobState(state), 0) + count

    async def _look_through(self, visit: Callable[[Page, Span | None], Awaitable[None]]) -> None:
        parts = [part for part in await self._reader.extent() if self._span(part) is not None]
        self.tally.extent = sum(part.rows for part in parts)
        for part in parts:
            span = self._span(part)
            assert span is not None
            start: UUID | None = FIRST_ID
            size = BATCH
            while start is not None and not self._full:
                page = await self._page(part, span, start, size)
                self.tally.looked += page.looked
                await visit(page, None if part.day is None else span)
                if self._on_progress is not None:
                    self._on_progress(self.tally)
                start = _after(page.last) if page.looked == size else None
                size = BATCH if len(page.ids) > page.looked / 10 else LONG_PAGE

    def _span(self, part: Extent) -> Span | None:
        """When jobs of this part have to have been enqueued, or ended; None where none can be meant."""
        wanted, older, newer = self._selection.states, self._selection.older_than, self._selection.newer_than
        until = part.now - (older or timedelta(0))
        since = datetime.min.replace(year=2, tzinfo=part.now.tzinfo) if newer is None else part.now - newer
        if part.day is None:
            return Span(since, until) if wanted - FINISHED else None
        span = Span(max(since, part.day), min(until, part.day + DAY))
        return span if wanted & FINISHED and span.since < span.until else None

    async def _page(self, part: Extent, span: Span, start: UUID, size: int) -> Page:
        look = self._reader.matching if part.day is None else self._reader.matching_past
        return await look(self._selection, start=start, page=size, since=span.since, until=span.until)

    async def _move(self, ids: Sequence[UUID], audit_id: UUID, span: Span | None) -> None:
        for attempt in range(TRIES):
            try:
                moved = await self._moved(ids, audit_id, span)
            except Transient:
                if attempt == TRIES - 1:
                    raise
            else:
                self.tally.jobs += moved.changed
                self.tally.asked += moved.asked
                self.tally.held += moved.held
                ids = moved.busy
            if not ids:
                return
            await self._sleep(PAUSE_SECONDS)
        self.tally.busy += len(ids)

    async def _moved(self, ids: Sequence[UUID], audit_id: UUID, span: Span | None) -> Moved:
        async def once() -> Moved:
            if span is None:
                assert self._act.live is not None
                return await self._act.live(self._sweeps, ids, audit_id, self._selection.states)
            assert self._act.past is not None
            return await self._act.past(self._sweeps, ids, audit_id, span)

        try:
            return await once()
        except PartitionMissing:
            await Fleet(self._door).ensure_partitions()
            return await once()


def _after(last: UUID | None) -> UUID | None:
    return None if last is None or last == LAST_ID else UUID(int=last.int + 1)
