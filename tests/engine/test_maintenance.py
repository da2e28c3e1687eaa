"""The chores that every process does: due jobs become ready, late ones expire, orphans are rescued."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta

import pytest

from jobd.door import Link
from jobd.engine import maintenance
from jobd.engine.lease import Lease
from jobd.engine.maintenance import Maintenance
from jobd.events import Events, JobsExpired, JobsRescued, JobsStaged
from jobd.fleet import Fleet
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_jobs, make_worker, query
from tests.signals import expect


class Chores:
    def __init__(self, link: Link, *, crash_limit: int = 3, poll_seconds: float = 1.0) -> None:
        self.events = Events()
        self.lease = Lease(period=timedelta(seconds=30))
        self.woken = 0
        self.maintenance = Maintenance(
            Store(link),
            Fleet(link),
            lease=self.lease,
            crash_limit=crash_limit,
            poll_interval=timedelta(seconds=poll_seconds),
            events=self.events,
            rng=random.Random(4),
            on_staged=self._on_staged,
        )

    def _on_staged(self) -> None:
        self.woken += 1


@pytest.fixture
async def chores(link: Link) -> Chores:
    """Of a worker that was confirmed for long enough to judge others; the server is older than its lease."""
    chores = Chores(link)
    chores.lease.period = timedelta(0)
    chores.lease._confirmed = time.monotonic() + 1000
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    await make_worker(link, id=chores.lease.worker_id, confirmed_since=long_ago)
    return chores


async def test_due_jobs_are_staged_and_the_producer_is_told(chores: Chores, link: Link):
    due = await make_job(link, state="scheduled", run_at=datetime.now(UTC) - SECOND)
    later = await make_job(link, state="scheduled")
    async with expect(chores.events, JobsStaged, count=1):
        await chores.maintenance.once()
    assert chores.woken == 1
    assert (await Reader(link).get(due)).state == "ready"
    assert (await Reader(link).get(later)).state == "scheduled"


async def test_it_sleeps_no_longer_than_until_the_next_job_is_due(
    link: Link, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(maintenance, "LONGEST_SLEEP", 60.0)
    chores = Chores(link, poll_seconds=60)
    assert 40 < await chores.maintenance.once() <= 60
    await make_job(link, state="scheduled", run_at=datetime.now(UTC) + 24 * SECOND)
    assert await chores.maintenance.once() <= 24


async def test_jobs_whose_deadline_passed_expire(chores: Chores, link: Link):
    late = await make_job(
        link, deadline_policy="drop", delay_tolerance=SECOND, run_at=datetime.now(UTC) - 10 * SECOND
    )
    async with expect(chores.events, JobsExpired, count=1):
        await chores.maintenance.once()
    assert (await Reader(link).get(late)).state == "dead"


async def test_jobs_of_a_worker_whose_lease_lapsed_are_rescued(chores: Chores, link: Link):
    lapsed = await make_worker(link, lease=-SECOND)
    alive = await make_worker(link)
    orphan = await make_job(link, state="running", worker_id=lapsed)
    fine = await make_job(link, state="running", worker_id=alive)
    async with expect(chores.events, JobsRescued, count=1):
        await chores.maintenance.once()
    row = await Reader(link).get(orphan)
    assert (row.state, row.crashes, row.attempt, row.claim_no) == ("ready", 1, 0, 2)
    assert (await Reader(link).get(fine)).state == "running"
    assert chores.woken == 1


async def test_a_job_at_its_crash_limit_goes_dead(chores: Chores, link: Link):
    gone = await make_worker(link, lease=-SECOND)
    id = await make_job(link, state="running", worker_id=gone, crashes=2)
    async with expect(chores.events, JobsRescued) as rescued:
        await chores.maintenance.once()
    assert (rescued.event.count, rescued.event.dead) == (1, 1)
    row = await Reader(link).get(id)
    assert row.state == "dead"
    assert (row.reason or "").startswith("crashed")


async def test_who_has_no_lease_takes_nobody_for_dead(chores: Chores, link: Link):
    chores.lease._confirmed = None
    gone = await make_worker(link, lease=-SECOND)
    await make_job(link, state="running", worker_id=gone)
    await chores.maintenance.once()
    assert await query(link, "select from jobd.workers where id = $1::uuid", gone)


async def test_a_missing_partition_is_made_and_the_chore_done_again(chores: Chores, link: Link):
    await query(link, "drop table if exists " + ", ".join(await todays(link)))
    await make_job(
        link, deadline_policy="drop", delay_tolerance=SECOND, run_at=datetime.now(UTC) - 10 * SECOND
    )
    async with expect(chores.events, JobsExpired):
        working = asyncio.ensure_future(chores.maintenance.run())
    working.cancel()
    await asyncio.wait({working})


async def todays(link: Link) -> list[str]:
    rows = await query(
        link,
        "select inhrelid::regclass::text as name from pg_inherits"
        " where inhparent = 'jobd.job_history'::regclass",
    )
    return [row["name"] for row in rows]


async def test_more_than_a_batch_is_done_without_a_pause(chores: Chores, link: Link):
    await query(
        link,
        "select count(*) from jobd.enqueue_many(kind => 'noop', delay => '1h',"
        " payloads => array_fill('{}'::jsonb, array[1500]))",
    )
    await query(link, "update jobd.jobs set run_at = now() - interval '1 minute'")
    assert await chores.maintenance.once() == 0
    assert await chores.maintenance.once() > 0
    assert len(await query(link, "select from jobd.jobs where state = 'ready'")) == 1500


async def test_ten_at_once_stage_each_job_once(database_url: str, link: Link):
    from jobd.door import Database

    await make_jobs(link, 50, state="scheduled", run_at=datetime.now(UTC) - SECOND)
    links = [Link(Database(database_url)) for _ in range(10)]
    crew = [Chores(one) for one in links]
    staged: list[int] = []
    for one in crew:
        one.events.subscribe(JobsStaged, lambda event: staged.append(event.count))
    await asyncio.gather(*[one.maintenance.once() for one in crew])
    for one_link in links:
        await one_link.close()
    assert sum(staged) == 50
