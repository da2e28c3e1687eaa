"""Governing: what a producer believes of limits, and how often it looks because of them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest

from jobd.door import Database, Link
from jobd.engine.governing import KEYED_SECONDS, LOOK_SECONDS, REFRESH_SECONDS, Governing
from jobd.fleet import Fleet
from tests.factories import make_job, query


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def door(database_url: str) -> AsyncIterator[Link]:
    link = Link(Database(database_url))
    yield link
    await link.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def governing(door: Link, clock: Clock, **options: list[str]) -> Governing:
    return Governing(Fleet(door), queues=["default", "mail"], clock=clock, **options)


RATES = {
    "10/s": (0.25, '{"rate": "10/s"}'),
    "one at a time": (0.1, '{"rate": "10/s", "burst": 1}'),
    "a small burst": (0.02, '{"rate": "100/s", "burst": 4}'),
    "quicker than worth a look": (0.005, '{"rate": "1000/s", "burst": 1}'),
    "slow": (0.25, '{"rate": "1/m"}'),
}


@pytest.mark.parametrize("seconds, limits", RATES.values(), ids=RATES.keys())
async def test_it_looks_before_a_rate_has_saved_up_its_burst(
    door: Link, clock: Clock, seconds: float, limits: str
):
    await query(door, "select jobd.set_queue('mail', $1::text::jsonb)", limits)
    ours = governing(door, clock)
    await ours.refresh()
    assert ours.patience == math.inf
    await make_job(door, queue="mail")
    ours.changed()
    await ours.refresh()
    assert ours.patience == pytest.approx(seconds)


@pytest.mark.parametrize(
    "said",
    [
        'select jobd.set_kind(\'noop\', \'{"key_rate": "20/s", "key_burst": 1}\')',
        'select jobd.set_tenant(\'t\', \'{"rate": "20/s", "burst": 1}\')',
    ],
    ids=["of a key", "of a tenant"],
)
async def test_so_it_does_for_other_rates(door: Link, clock: Clock, said: str):
    await query(door, said)
    await make_job(door, queue="mail", tenant_id="t", concurrency_key="k")
    ours = governing(door, clock)
    await ours.refresh()
    assert ours.patience == pytest.approx(0.05)


async def test_claims_that_bring_nothing_come_less_and_less_often(door: Link, clock: Clock):
    await query(door, 'select jobd.set_queue(\'mail\', \'{"rate": "100/s", "burst": 1}\')')
    await make_job(door, queue="mail")
    ours = governing(door, clock)
    await ours.refresh()
    looks = []
    for found in (1, 0, 0, 0, 0, 0, 0, 1):
        ours.found(found)
        looks.append(ours.patience)
    assert looks == pytest.approx([0.01, 0.01, 0.02, 0.04, 0.08, 0.16, LOOK_SECONDS, 0.01])


async def test_an_answer_of_before_is_not_believed_for_a_poll_interval(door: Link, clock: Clock):
    ours = governing(door, clock, keyed=["default"])
    await ours.refresh()
    assert ours.patience == math.inf
    clock.now += REFRESH_SECONDS / 2
    await ours.refresh()
    assert ours.patience == REFRESH_SECONDS


async def test_of_a_paused_queue_nobody_waits(door: Link, clock: Clock):
    await make_job(door, queue="mail", concurrency_key="k")
    ours = governing(door, clock)
    await ours.refresh()
    assert ours.patience == LOOK_SECONDS
    await query(door, "select jobd.pause_queue('mail')")
    ours.changed()
    await ours.refresh()
    assert ours.patience == math.inf


async def test_jobs_that_crashed_wait_for_a_limit_as_others_do(door: Link, clock: Clock):
    await query(door, "select jobd.set_queue('mail', '{\"max_running\": 1}')")
    await make_job(door, queue="mail", crashes=1)
    ours = governing(door, clock)
    await ours.refresh()
    assert ours.patience == LOOK_SECONDS


async def test_a_queue_that_had_jobs_with_a_key_is_claimed_from_as_before_a_while_later(
    door: Link, clock: Clock
):
    await make_job(door, queue="mail", concurrency_key="k")
    ours = governing(door, clock, keyed=["default"])
    assert "mail" not in ours
    await ours.refresh()
    assert "mail" in ours
    await query(door, "delete from jobd.jobs")
    clock.now += REFRESH_SECONDS
    await ours.refresh()
    assert "mail" in ours
    clock.now += KEYED_SECONDS
    await ours.refresh()
    assert "mail" not in ours
    # A handler says that its jobs have one.
    assert "default" in ours
