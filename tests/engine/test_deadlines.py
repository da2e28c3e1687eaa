"""Deadlines at work: who is told, who is late, who starts first."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jobd import JobContext, Jobs
from jobd.door import Link
from jobd.events import JobFinished, JobStarted
from jobd.ids import uuid7
from tests.factories import SECOND, make_job
from tests.signals import expect


@pytest.mark.parametrize(("ago", "late"), [(5, False), (120, True)], ids=["met", "late"])
async def test_a_handler_knows_its_deadline_and_a_late_start_is_told(
    jobs: Jobs, link: Link, ago: int, late: bool
):
    seen: list[datetime | None] = []

    @jobs.handler("noop")
    async def noop(ctx: JobContext) -> None:
        seen.append(ctx.deadline)

    now, id = datetime.now(UTC), uuid7()
    async with jobs.running(), expect(jobs.events, JobStarted, id=id) as started:
        await make_job(link, id=id, run_at=now - ago * SECOND, delay_tolerance=60 * SECOND)
    assert seen == [now + (60 - ago) * SECOND]
    assert started.event.late == late


async def test_a_job_without_a_tolerance_is_neither_in_time_nor_late(jobs: Jobs, link: Link):
    @jobs.handler("noop")
    async def noop() -> None: ...

    id = uuid7()
    async with jobs.running(), expect(jobs.events, JobStarted, id=id) as started:
        await make_job(link, id=id, run_at=datetime.now(UTC) - timedelta(days=3))
    assert started.event.late is None


async def test_the_deadline_that_drops_a_job_ends_its_attempt(jobs: Jobs):
    @jobs.handler("stays", timeout="1h")
    async def stays() -> None:
        await asyncio.Event().wait()

    id = uuid7()
    async with jobs.running(), expect(jobs.events, JobFinished, id=id) as finished:
        await jobs.enqueue("stays", id=id, delay_tolerance="3s", deadline_policy="drop", max_attempts=1)
    assert finished.event.outcome == "timed_out"
