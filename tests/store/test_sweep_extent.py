"""Operations on many jobs: what they count and leave out, in what order, and where statements are slow."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobd import acts
from jobd.client import Client
from jobd.door import Link, Record
from jobd.errors import CallTimeout, Transient
from jobd.job import JobState
from jobd.reader import Reader
from jobd.selection import Selection
from jobd.sql import Block
from jobd.sweep import Sweep
from tests.factories import make_job, make_jobs, make_worker, query

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


async def test_a_move_neither_counts_nor_limits_by_those_that_are_there_already(client: Client, door: Link):
    await make_jobs(door, 3, queue="slow", kind="a")
    await make_jobs(door, 2, queue="mail", kind="a")
    for limit in (None, 2):
        counted = await client.move_many(kind="a", to="slow", dry_run=True, limit=limit)
        assert (counted.jobs, counted.states) == (2, {JobState.READY: 2})
    moved = await client.move_many(kind="a", to="slow", limit=2)
    assert (moved.jobs, moved.states) == (2, {JobState.READY: 2})


async def test_a_cancel_does_not_count_those_that_were_asked_already(client: Client, door: Link):
    worker = await make_worker(door)
    now = datetime.now(UTC)
    await make_job(door, state="running", worker_id=worker, cancel_requested_at=now)
    await make_job(door, state="running", worker_id=worker)
    assert (await client.cancel_many(all=True, dry_run=True)).jobs == 1
    assert (await client.cancel_many(all=True)).jobs == 1
    assert (await client.cancel_many(all=True, dry_run=True)).jobs == 0


async def test_another_time_or_priority_is_not_counted_where_it_is_none(client: Client, door: Link):
    run_at = datetime.now(UTC) + HOUR
    await make_job(door, priority=3, state="scheduled", run_at=run_at)
    await make_job(door, priority=3)
    await make_job(door, priority=4)
    for change, jobs in (
        ({"priority": 3}, 1),
        ({"run_at": run_at}, 2),
        ({"run_at": run_at, "priority": 3}, 2),
        ({"run_at": run_at, "priority": 4}, 3),
    ):
        options: dict[str, Any] = {"all": True, **change}
        assert (await client.reschedule_many(**options, dry_run=True)).jobs == jobs, change
    assert (await client.reschedule_many(all=True, run_at=run_at, priority=3)).jobs == 2


@pytest.mark.parametrize(
    ("verb", "change"), [("move", {"to": "other"}), ("delete", {}), ("reschedule", {"priority": 5})]
)
async def test_running_jobs_that_stay_behind_are_counted(
    client: Client, door: Link, verb: str, change: dict[str, Any]
):
    worker = await make_worker(door)
    await make_jobs(door, 2, queue="mail", state="running", worker_id=worker)
    await make_job(door, queue="web", state="running", worker_id=worker)
    await make_job(door, queue="mail")
    call = getattr(client, f"{verb}_many")
    assert (await call(queue="mail", dry_run=True, **change)).running == 2
    tally = await call(queue="mail", **change)
    assert (tally.jobs, tally.running) == (1, 2)
    # Who names states knows that these are others.
    assert (await call(queue="mail", state="ready", **change)).running == 0


async def test_a_cancel_leaves_no_running_job_behind(client: Client, door: Link):
    await make_job(door, state="running", worker_id=await make_worker(door))
    assert (await client.cancel_many(all=True)).running == 0


async def test_a_delete_takes_what_has_ended_before_what_waits_the_oldest_day_first(
    client: Client, door: Link, reader: Reader
):
    await query(door, "select jobd.ensure_partitions(0, now() - interval '1 day')")
    now = datetime.now(UTC)
    waiting = await make_job(door)
    today = await make_job(door, state="succeeded", finished_at=now - SECOND)
    yesterday = await make_job(door, state="dead", finished_at=now - DAY)
    for gone in (yesterday, today, waiting):
        assert (await client.delete_many(all=True, limit=1)).jobs == 1
        assert not await query(door, "select from jobd.all_jobs where id = $1", gone)


class Slow:
    """A door through which so many jobs at once take too long."""

    def __init__(self, door: Link, most: int, error: Exception, *, block: str = "cancel_many") -> None:
        self.door, self.most, self.error, self.block = door, most, error, block
        self.sizes: list[int] = []

    async def fetch(self, block: Block, *args: Any) -> list[Record]:
        if block.name == self.block:
            size = args[1] if block.name == "matching" else len(args[0])
            self.sizes.append(size)
            if size > self.most:
                raise self.error
        return await self.door.fetch(block, *args)


TOO_SLOW = [CallTimeout("cancel_many", 5), Transient("canceling statement due to statement timeout")]


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


def cancel(door: Slow) -> Sweep:
    states = frozenset({JobState.READY})
    return Sweep(door, acts.cancelling("x"), Selection(states=states), who="me", sleep=no_sleep)


@pytest.mark.parametrize("error", TOO_SLOW, ids=lambda error: type(error).__name__)
async def test_a_batch_that_takes_too_long_is_tried_in_parts(door: Link, reader: Reader, error: Exception):
    await make_jobs(door, 150)
    slow = Slow(door, 10, error)
    assert (await cancel(slow).run()).jobs == 150
    assert slow.sizes[:5] == [100, 50, 25, 12, 6]
    (entry,) = await reader.audits()
    assert entry.jobs == 150 and entry.ended_at is not None


async def test_one_job_that_takes_too_long_ends_it_with_words_of_what_to_do(door: Link, reader: Reader):
    await make_jobs(door, 3)
    with pytest.raises(CallTimeout, match="look at the audit and at the jobs, and repeat the operation"):
        await cancel(Slow(door, 0, TOO_SLOW[0])).run()
    assert (await reader.audits())[0].ended_at is None


@pytest.mark.parametrize("error", TOO_SLOW, ids=lambda error: type(error).__name__)
async def test_a_page_that_takes_too_long_is_read_in_parts(door: Link, error: Exception):
    await make_jobs(door, 30)
    slow = Slow(door, 10, error, block="matching")
    assert (await cancel(slow).run()).jobs == 30
    assert slow.sizes[:8] == [1000, 500, 250, 125, 62, 31, 15, 7]
    assert max(slow.sizes[8:]) == 7


async def test_a_page_of_one_that_takes_too_long_ends_it(door: Link):
    await make_jobs(door, 3)
    with pytest.raises(CallTimeout):
        await cancel(Slow(door, 0, TOO_SLOW[0], block="matching")).run()
