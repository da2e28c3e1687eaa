"""Limits that code, settings and people say, as a daemon that runs takes them up."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter

import pytest

from jobd import JobContext, Jobs
from jobd.door import Link
from jobd.events import JobFinished, LeaseLost, LeaseRenewed
from jobd.quotas import Quotas
from tests.engine.running import ran
from tests.factories import query
from tests.signals import eventually, expect


async def test_a_limit_that_is_set_holds_within_a_second_however_seldom_a_daemon_polls(jobs: Jobs):
    @jobs.handler("tick")
    async def tick() -> None: ...

    # Where notifications do not pass, polls are all there is.
    deaf = os.environ.get("JOBD_NOTIFY") == "off" or "JOBD_TEST_POOLER" in os.environ
    async with jobs.running(poll_interval="0.2s" if deaf else "1h"):
        await jobs.queues.set("default", max_running=0)
        await jobs.enqueue("tick")
        await jobs.enqueue("tick", queue="default", concurrency_key="a")
        begun = time.monotonic()
        async with expect(jobs.events, JobFinished, count=2, timeout=20):
            await jobs.queues.set("default", max_running=None)
        # A poll would have taken an hour; how fast it is on a busy machine is nobody's promise.
        assert time.monotonic() - begun < 20


async def test_the_limits_of_a_handlers_key_are_in_force_before_its_first_job_runs(jobs: Jobs):
    running, worst = Counter[int](), Counter[int]()

    @jobs.handler("sync", concurrency_key="user:{user_id}", key_limit=2)
    async def sync(user_id: int) -> None:
        running[user_id] += 1
        worst[user_id] = max(worst[user_id], running[user_id])
        await asyncio.sleep(0.01)
        running[user_id] -= 1

    async with jobs.running(), expect(jobs.events, JobFinished, count=60, timeout=30):
        await jobs.enqueue_many("sync", [{"user_id": n % 3} for n in range(60)])
    assert worst == {0: 2, 1: 2, 2: 2}


async def test_jobs_of_an_ordered_key_run_in_the_order_in_which_they_were_enqueued(jobs: Jobs):
    seen: list[int] = []

    @jobs.handler("sync", concurrency_key="user:{user_id}", ordered=True)
    async def sync(user_id: int, n: int) -> None:
        seen.append(n)

    async with jobs.running(), expect(jobs.events, JobFinished, count=20, timeout=30):
        await jobs.enqueue_many("sync", [{"user_id": 7, "n": n} for n in range(20)])
    assert seen == list(range(20))


async def test_what_was_changed_at_run_time_survives_a_start_with_the_same_settings(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JOBD_QUEUES", '{"mail": {"max_running": 10, "rate": "100/m"}}')
    monkeypatch.setenv("ASYNC_JOBS_PER_TENANT_QUOTAS", '{"t1": {"max_pending_jobs": 5}}')

    @jobs.handler("tick")
    async def tick() -> None: ...

    async with jobs.running():
        # Whoever may claim has said it before.
        await ran(jobs, "tick")
        assert (await jobs.queues.get("mail")).max_running == 10
        assert (await jobs.tenants.get("t1")).max_pending == 5
        await jobs.queues.set("mail", max_running=3)
    async with jobs.running():
        await ran(jobs, "tick")
        assert (await jobs.queues.get("mail")).max_running == 3
    monkeypatch.setenv("JOBD_QUEUES", '{"mail": {"max_running": 11}}')
    monkeypatch.delenv("ASYNC_JOBS_PER_TENANT_QUOTAS")
    async with jobs.running():
        await ran(jobs, "tick")
        found = await jobs.queues.get("mail")
        assert (found.max_running, found.rate) == (11, None)
        assert (await jobs.tenants.get("t1")).max_pending is None


async def test_a_daemon_that_begins_anew_does_not_bring_its_old_limits_back(
    jobs: Jobs, link: Link, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JOBD_QUEUES", '{"mail": {"max_running": 10}}')
    async with jobs.running(heartbeat="0.1s"):
        await eventually(jobs.queues.list, until=lambda found: any(q.max_running == 10 for q in found))
        # As a newer daemon of the same application would.
        said = {"queues": {"mail": {"max_running": 20}}}
        await Quotas(link).declare_limits(f"file:{jobs.module}", said)
        async with expect(jobs.events, LeaseLost), expect(jobs.events, LeaseRenewed, count=3, timeout=20):
            await query(link, "delete from jobd.workers")
        assert (await jobs.queues.get("mail")).max_running == 20


async def test_a_queue_of_weight_starts_more_and_starves_no_other(jobs: Jobs):
    started: list[str] = []

    @jobs.handler("tick")
    async def tick(ctx: JobContext) -> None:
        started.append(ctx.queue)
        await asyncio.sleep(0.002)

    await jobs.queues.set("heavy", weight=4)
    for queue in ("heavy", "light"):
        await jobs.enqueue_many("tick", [{}] * 400, queue=queue)
    daemon = jobs.running(concurrency=2, queues=("heavy", "light"))
    async with daemon, expect(jobs.events, JobFinished, count=400, timeout=30):
        pass
    first = Counter(started[:300])
    # By weight 240 to 60; the first claims were made before it was known.
    assert 150 < first["heavy"] < 290
    assert first["light"] > 10
