"""Schedulers on a real database and a clock that the test sets."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from jobd.door import Link
from jobd.engine.leader import NAME
from jobd.engine.scheduler import Scheduler
from jobd.events import Events, ScheduleDropped, ScheduleFaulty, ScheduleFired, ScheduleTaken
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.schedule_rows import Terms
from jobd.store import Store
from jobd.terms import terms
from jobd.timetable import Timetable
from tests.factories import query

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Clockwork:
    """One process's scheduler. `now` is set by hand."""

    def __init__(self, link: Link, *, declared: dict[str, list[Terms]] | None = None) -> None:
        self.link = link
        self.timetable = Timetable(link)
        self.fleet = Fleet(link)
        self.worker_id = uuid7()
        self.now = BEGIN
        self.term: int | None = None
        self.told: list[object] = []
        events = Events()
        for type_ in (ScheduleFired, ScheduleFaulty, ScheduleDropped, ScheduleTaken):
            events.subscribe(type_, self.told.append)
        store = Store(link)

        async def cancel(id: UUID) -> None:
            await store.cancel(id, reason="replaced")

        self.scheduler = Scheduler(
            self.timetable,
            declared=declared or {},
            lead=NAME,
            worker_id=lambda: self.worker_id,
            term=lambda: self.term,
            cancel=cancel,
            events=events,
            rng=random.Random(1),
            now=lambda: self.now,
        )

    async def lead(self) -> bool:
        """Stand for election; whether this one leads now."""
        self.term = await self.fleet.elect(NAME, self.worker_id, lease=timedelta(seconds=5), now=self.now)
        return self.term is not None

    async def add(self, when: str, id: str = "s", **options: Any) -> None:
        """Put a schedule, of jobs of kind `tick`."""
        made = terms(id, when, "tick", owner="api", now=self.now, **options)
        assert await self.timetable.put([made], replace=True, now=self.now)

    async def at(self, moment: datetime) -> None:
        """It is that time now, and the scheduler looks."""
        self.now = moment
        if await self.lead():
            assert self.term is not None
            await self.scheduler.once(self.term)

    async def after(self, passed: timedelta) -> None:
        """So much time passed, and the scheduler looks."""
        await self.at(self.now + passed)

    async def history(self, id: str = "s") -> list[tuple[Any, ...]]:
        """(minutes since BEGIN of the first and of the last, count, outcome, reason), in order."""
        rows = await self.timetable.occurrences(id, count=100_000)
        return [
            (
                (row.fire_at - BEGIN) / MINUTE,
                (row.last_at - BEGIN) / MINUTE,
                row.count,
                row.outcome,
                row.reason,
            )
            for row in reversed(rows)
        ]

    async def fired(self, id: str = "s") -> list[float]:
        """Minutes since BEGIN of the occurrences that ran."""
        return [first for first, _, _, outcome, _ in await self.history(id) if outcome == "ran"]

    async def jobs(self) -> list[Any]:
        """The jobs that are there, in the order of their occurrences."""
        text = (
            "select *, headers ->> 'fire_at' as fire_at from jobd.all_jobs order by headers ->> 'fire_at', id"
        )
        return await query(self.link, text)

    async def end_jobs(self, state: str = "succeeded", *, but: UUID | None = None) -> None:
        """All jobs end now, except one."""
        text = (
            "with gone as (delete from jobd.jobs j where j.id is distinct from $2 returning j)"
            " insert into jobd.job_history"
            " select h.* from gone g, jobd.ended(g.j, $1, null, null, null, now()) h"
        )
        await query(self.link, text, state, but)
