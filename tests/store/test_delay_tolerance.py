"""A queue's tolerance holds for the jobs that say none, where their door knows of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from jobd import Jobs
from jobd.client import Client
from jobd.door import Link
from jobd.errors import ConfigError, Refused
from jobd.quotas import Quotas
from jobd.served import declared_limits
from jobd.settings import load_settings
from jobd.store import Store
from tests.factories import SECOND, new_job, query, scalar

TOLERANCE = timedelta(minutes=10)


@pytest.fixture
async def jobs(database_url: str) -> AsyncIterator[Jobs]:
    async with Jobs(database_url, queues={"images": {"delay_tolerance": "10m"}}) as jobs:
        yield jobs


async def stored(door: Link) -> list[Any]:
    """(tolerance, deadline after its time), of all jobs."""
    text = "select delay_tolerance as own, deadline_at - run_at as after from jobd.jobs order by id"
    rows = await query(door, text)
    return [(row["own"], row["after"]) for row in rows]


async def test_the_process_that_enqueues_takes_it_from_its_settings(jobs: Jobs, door: Link):
    await jobs.enqueue("noop", queue="images")
    await jobs.enqueue("noop", queue="images", delay_tolerance="1s")
    await jobs.enqueue("noop", queue="images", delay_tolerance=0)
    await jobs.enqueue("noop")
    nothing = timedelta(0)
    assert await stored(door) == [
        (TOLERANCE, TOLERANCE),
        (SECOND, SECOND),
        (nothing, nothing),
        (None, nothing),
    ]
    await jobs.enqueue_many("noop", [{}], queue="images", tenant_id="t")
    await jobs.enqueue("noop", queue="images", tenant_id="t")
    await jobs.enqueue("noop", queue="images", unique_key="k", deadline_policy="drop")
    assert (await stored(door))[4:] == [(TOLERANCE, TOLERANCE)] * 3


async def test_enqueues_in_sql_find_it_in_the_database(door: Link, store: Store):
    await query(door, """select jobd.set_queue('images', '{"delay_tolerance": "10m"}')""")
    await query(door, "select jobd.enqueue('noop', queue => 'images')")
    await query(door, "select jobd.enqueue('noop', queue => 'images', delay_tolerance => '1 s')")
    await query(door, "select jobd.enqueue('noop')")
    await query(door, "select jobd.enqueue_many('noop', array['{}']::jsonb[], queue => 'images')")
    await store.enqueue(new_job(queue="images"))
    own = [tolerance for tolerance, _ in await stored(door)]
    assert own == [TOLERANCE, SECOND, None, TOLERANCE, TOLERANCE]


async def test_what_was_set_at_run_time_stays_until_the_file_says_something_else(door: Link, jobs: Jobs):
    quotas = Quotas(door)

    async def declare(**queue: Any) -> timedelta | None:
        said = declared_limits(Jobs(), load_settings(queues={"images": queue}))
        for owner, limits in said.items():
            await quotas.declare_limits(owner, limits)
        return (await jobs.queues.get("images")).delay_tolerance

    assert await declare(delay_tolerance="10m") == TOLERANCE
    assert (await jobs.queues.get("images")).declared == {"delay_tolerance": "10m"}
    await jobs.queues.set("images", delay_tolerance=SECOND)
    assert await declare(delay_tolerance="600s") == SECOND
    await jobs.queues.reset("images")
    assert (await jobs.queues.get("images")).delay_tolerance == TOLERANCE
    assert await declare(delay_tolerance="1h") == 6 * TOLERANCE
    assert await declare(concurrency=3) is None


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("null", None),
        ('"0s"', timedelta(0)),
        ('"1h30m"', timedelta(hours=1.5)),
        ('"250ms"', timedelta(seconds=0.25)),
        ('"36525d"', timedelta(days=36525)),
        ('"1 hour"', timedelta(hours=1)),
        ("90", timedelta(seconds=90)),
    ],
)
async def test_sql_reads_what_python_writes(door: Link, written: str, means: timedelta | None):
    await query(door, """select jobd.set_queue('images', '{"delay_tolerance": "10m"}')""")
    await query(door, f"""select jobd.set_queue('images', '{{"delay_tolerance": {written}}}')""")
    assert await scalar(door, "select delay_tolerance from jobd.queues") == means


@pytest.mark.parametrize("written", ['"soon"', '"-1s"', '"36526d"', "true", "[]", '"infinity"', '"9e99 s"'])
async def test_sql_refuses_what_is_no_tolerance(door: Link, written: str):
    with pytest.raises(Refused, match=r"^delay_tolerance = .*: a duration of at most 36525 days"):
        await query(door, f"""select jobd.set_queue('images', '{{"delay_tolerance": {written}}}')""")


async def test_a_schedule_may_leave_the_tolerance_of_what_it_drops_to_the_queue(jobs: Jobs, door: Link):
    await jobs.schedules.add("s", "@daily", "noop", queue="images", deadline_policy="drop")
    row = "select delay_tolerance, deadline_policy from jobd.schedules"
    assert [tuple(found) for found in await query(door, row)] == [(None, "drop")]
    with pytest.raises(ConfigError, match="needs a delay_tolerance"):
        await jobs.schedules.add("t", "@daily", "noop", deadline_policy="drop")


async def test_a_process_without_the_file_finds_it_only_where_it_looks_anyway(client: Client, door: Link):
    await Quotas(door).set_queue("images", {"delay_tolerance": "10m"}, by=None)
    await client.enqueue("noop", queue="images")
    await client.enqueue("noop", queue="images", unique_key="k")
    await client.enqueue_many("noop", [{}], queue="images")
    assert [own for own, _ in await stored(door)] == [None, TOLERANCE, TOLERANCE]
