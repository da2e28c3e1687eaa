"""Jobs under limits, run by real daemons' parts."""

from __future__ import annotations

import asyncio
from collections import Counter

from jobd import JobContext, Jobs
from jobd.door import Link
from jobd.events import JobFinished
from tests.factories import query
from tests.signals import expect


async def test_jobs_with_a_key_run_one_at_a_time_and_all_of_them(jobs: Jobs):
    running, worst = Counter[str](), Counter[str]()

    @jobs.handler("sync")
    async def sync(ctx: JobContext, user: str) -> None:
        running[user] += 1
        worst[user] = max(worst[user], running[user])
        await asyncio.sleep(0.01)
        running[user] -= 1

    async with jobs.running(), expect(jobs.events, JobFinished, count=30, timeout=20):
        for n in range(30):
            await jobs.enqueue("sync", {"user": f"u{n % 3}"}, concurrency_key=f"user:{n % 3}")
    assert worst == {"u0": 1, "u1": 1, "u2": 1}


async def test_a_limit_that_comes_while_a_daemon_runs_holds(jobs: Jobs, link: Link):
    running = worst = 0

    @jobs.handler("tick")
    async def tick() -> None:
        nonlocal running, worst
        running += 1
        worst = max(worst, running)
        await asyncio.sleep(0.02)
        running -= 1

    async with jobs.running():
        async with expect(jobs.events, JobFinished, timeout=20):
            await jobs.enqueue("tick")
        await query(link, "update jobd.queues set max_running = 2 where name = 'default'")
        worst = 0
        async with expect(jobs.events, JobFinished, count=20, timeout=20):
            await jobs.enqueue_many("tick", [{}] * 20)
    assert 1 <= worst <= 2
