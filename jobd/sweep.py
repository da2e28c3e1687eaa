"""An operation on many jobs: it looks through them by id, a page at a time, and moves those that are meant.

    extent -- begin_audit -+- matching -- move a batch, move a batch ... -+- end_audit
                           +------------- the next page ------------------+

Every statement is bounded, in what it reads as in what it changes, and is a transaction of its own. So
nothing is locked for long, and an operation may be stopped anywhere and repeated: what it has done is done,
and no longer meant. Jobs that were enqueued or ended after it began are left out, so it comes to an end.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from jobd.acts import Act, Span
from jobd.door import Executes
from jobd.errors import CallTimeout, Locked, PartitionMissing, Transient
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.job import FINISHED, JobState
from jobd.reader import Extent, Page, Reader
from jobd.selection import Selection
from jobd.stride import Stride
from jobd.sweeps import Moved, Sweeps

# Where few match, more are looked at in one statement than may be changed by one.
BATCH, LONG_PAGE = 1_000, 10_000
DAY = timedelta(days=1)
FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)
# What others have locked, or met us in a deadlock with, is tried again for two seconds.
TRIES, PAUSE_SECONDS = 20, 0.1


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
    running: int = 0
    """Left out, since they run and the verb takes none that do: where no states were named."""
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_progress` is called after each page. `tally` is what it came to so far."""
        self._door = door
        self._act = act
        self._selection = selection
        self._who = who
        self._sleep = sleep
        self._limit = limit
        self._on_progress = on_progress
        self._stride = Stride(BATCH, clock=clock)
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
                most = self._stride.size
                room = most if self._limit is None else min(most, self._limit - self.tally.jobs)
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
            size, longest = BATCH, LONG_PAGE
            while start is not None and not self._full:
                try:
                    page = await self._page(part, span, start, size)
                except (CallTimeout, Transient):
                    if size == 1:
                        raise
                    size = longest = size // 2
                    await self._sleep(PAUSE_SECONDS)
                    continue
                self.tally.looked += page.looked
                if self._selection.states == self._act.unless_said:
                    self.tally.running += page.running
                await visit(page, None if part.day is None else span)
                if self._on_progress is not None:
                    self._on_progress(self.tally)
                start = _after(page.last) if page.looked == size else None
                size = min(longest, BATCH if len(page.ids) > page.looked / 10 else LONG_PAGE)

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
        if part.day is not None:
            return await self._reader.matching_past(self._selection, start=start, page=size, **span._asdict())
        already = self._act.already
        return await self._reader.matching(
            self._selection, already=already, start=start, page=size, **span._asdict()
        )

    async def _move(self, ids: Sequence[UUID], audit_id: UUID, span: Span | None) -> None:
        for _ in range(TRIES):
            busy: list[UUID] = []
            while ids:
                moved, ids = await self._move_some(ids, audit_id, span)
                self.tally.jobs += moved.changed
                self.tally.asked += moved.asked
                self.tally.held += moved.held
                busy += moved.busy
            if not busy:
                return
            ids = busy
            await self._sleep(PAUSE_SECONDS)
        self.tally.busy += len(ids)

    async def _move_some(
        self, ids: Sequence[UUID], audit_id: UUID, span: Span | None
    ) -> tuple[Moved, Sequence[UUID]]:
        """Move the first of them, as many as can be moved in time; return the rest, too."""
        for attempt in range(TRIES):
            some = ids[: self._stride.size]
            try:
                with self._stride.step(len(some)):
                    return await self._moved(some, audit_id, span), ids[len(some) :]
            except CallTimeout as timeout:
                if len(some) == 1:
                    remedy = "look at the audit and at the jobs, and repeat the operation"
                    raise CallTimeout(timeout.what, timeout.seconds, remedy=remedy) from timeout
            except Transient as conflict:
                if isinstance(conflict, Locked) and len(some) == 1:
                    # Waited for, each time, and there may be many.
                    self.tally.busy += 1
                    return Moved(0, busy=()), ids[1:]
                if attempt == TRIES - 1:
                    raise
            await self._sleep(PAUSE_SECONDS)
        raise AssertionError("a batch of one either ends or raises")

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
