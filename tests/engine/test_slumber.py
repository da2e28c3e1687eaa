"""How a producer asks for notifications before it sleeps."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from jobd.door import Link
from jobd.engine.lease import Lease
from jobd.engine.slumber import LINGER, LONG_LOOK, LOOK, Slumber
from jobd.fleet import Fleet
from tests.factories import make_worker, scalar


@pytest.fixture
def lease() -> Lease:
    return Lease(period=timedelta(seconds=30))


def slumber_of(link: Link, lease: Lease) -> Slumber:
    return Slumber(
        Fleet(link),
        lease=lease,
        poll_interval=timedelta(seconds=10),
        notified=lambda: True,
        rng=random.Random(1),
    )


ASLEEP = "select sleeping_until > clock_timestamp() from jobd.workers where id = $1"


async def test_who_became_another_worker_asks_for_notifications_again(link: Link, lease: Lease):
    slumber = slumber_of(link, lease)
    first = await make_worker(link, id=lease.worker_id)
    assert await slumber.nod(found=0)
    assert await scalar(link, ASLEEP, first)
    # One notice lasts for several sleeps.
    assert not await slumber.nod(found=0)

    second = await make_worker(link, id=lease.renew_identity())
    assert not await scalar(link, ASLEEP, second)
    assert await slumber.nod(found=0)
    assert await scalar(link, ASLEEP, second)


async def test_under_load_it_looks_the_less_often_the_more_comes(link: Link, lease: Lease):
    now = 100.0
    waited: list[float] = []

    class Watched(Slumber):
        async def rest(self, seconds: float, woken: asyncio.Event) -> None:
            waited.append(seconds)

    slumber = Watched(
        Fleet(link),
        lease=lease,
        poll_interval=timedelta(seconds=10),
        notified=lambda: True,
        rng=random.Random(1),
        clock=lambda: now,
    )
    worker = await make_worker(link, id=lease.worker_id)
    woken = asyncio.Event()
    assert await slumber.nod(found=0)
    assert await scalar(link, ASLEEP, worker)
    woken.set()
    for _ in range(4):  # woken at once again and again
        await slumber.sleep(woken, at_most=60)
    woken.clear()
    waited.clear()
    for after, found in ((LOOK, 1), (LOOK, 3), (LOOK, 20), (LONG_LOOK, 60), (LONG_LOOK, 3), (LOOK, 3)):
        now += after
        assert not await slumber.nod(found=found)
        await slumber.sleep(woken, at_most=60)
    assert waited == [LOOK, LOOK, LONG_LOOK, LONG_LOOK, LOOK, LOOK]
    assert not await scalar(link, ASLEEP, worker)
    now += LINGER * 2
    assert await slumber.nod(found=0)
    assert await scalar(link, ASLEEP, worker)
