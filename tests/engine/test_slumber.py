"""How a producer asks for notifications before it sleeps."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from uuid import UUID

import pytest

from jobd.door import Link
from jobd.engine.lease import Lease
from jobd.engine.slumber import LINGER, LONG_LOOK, LOOK, Slumber
from jobd.fleet import Fleet
from tests.factories import make_worker, scalar


@pytest.fixture
def lease() -> Lease:
    return Lease(period=timedelta(seconds=30))


class Sleeper(Slumber):
    """A slumber whose clock the test sets; it waits for nothing, and tells how long it would have."""

    def __init__(self, link: Link, lease: Lease) -> None:
        self.now = 100.0
        self.told = True
        self.waited: list[float] = []
        self.slept = 0.0
        super().__init__(
            Fleet(link),
            lease=lease,
            poll_interval=timedelta(seconds=10),
            notified=lambda: self.told,
            rng=random.Random(1),
            clock=lambda: self.now,
        )

    async def rest(self, seconds: float, woken: asyncio.Event) -> None:
        self.waited.append(seconds)
        self.now += self.slept

    async def woken_after(self, seconds: float, *, times: int) -> None:
        """Sleep, and be woken by a notification, again and again."""
        woken = asyncio.Event()
        woken.set()
        self.slept = seconds
        for _ in range(times):
            await self.sleep(woken, at_most=60)
        self.slept = 0.0

    async def look(self, *, after: float, found: int = 0) -> float:
        """Sleep for so long, and claim so many; in how many seconds would it look again?"""
        self.now += after
        await self.nod(found=found)
        await self.sleep(asyncio.Event(), at_most=60)
        return self.waited[-1]


@pytest.fixture
def sleeper(link: Link, lease: Lease) -> Sleeper:
    return Sleeper(link, lease)


@pytest.fixture
async def worker(link: Link, lease: Lease) -> UUID:
    return await make_worker(link, id=lease.worker_id)


ASLEEP = "select sleeping_until > clock_timestamp() from jobd.workers where id = $1"
A_POLL = pytest.approx(8.75, abs=1.25)  # with its jitter


async def test_who_became_another_worker_asks_for_notifications_again(
    link: Link, lease: Lease, sleeper: Sleeper, worker: UUID
):
    assert await sleeper.nod(found=0)
    assert await scalar(link, ASLEEP, worker)
    second = await make_worker(link, id=lease.renew_identity())
    assert not await scalar(link, ASLEEP, second)
    assert await sleeper.nod(found=0)
    assert await scalar(link, ASLEEP, second)


async def test_one_notice_lasts_for_several_sleeps_and_never_ends_within_one(sleeper: Sleeper, worker: UUID):
    assert await sleeper.nod(found=0)
    for after, ends_before_the_next_look in ((0, False), (29, False), (2, True), (1, False)):
        sleeper.now += after
        assert await sleeper.nod(found=0) is ends_before_the_next_look


async def test_where_notifications_do_not_arrive_it_asks_for_none(link: Link, sleeper: Sleeper, worker: UUID):
    sleeper.told = False
    assert not await sleeper.nod(found=0)
    assert not await scalar(link, ASLEEP, worker)
    assert await sleeper.look(after=0) == A_POLL


async def test_it_sleeps_no_longer_than_it_is_told(sleeper: Sleeper, worker: UUID):
    await sleeper.nod(found=0)
    await sleeper.sleep(asyncio.Event(), at_most=0.5)
    assert sleeper.waited == [0.5]


@pytest.mark.parametrize(
    ("naps", "awake"),
    [
        ([(0.0, 3)], False),
        ([(0.0, 4)], True),
        ([(1.0, 9)], False),
        ([(0.0, 3), (1.0, 1), (0.0, 3)], False),
        ([(0.0, 3), (1.0, 1), (0.0, 4)], True),
    ],
)
async def test_it_stays_awake_when_four_naps_in_a_row_were_cut_short(
    link: Link, sleeper: Sleeper, worker: UUID, naps: list[tuple[float, int]], awake: bool
):
    await sleeper.nod(found=0)
    for seconds, times in naps:
        await sleeper.woken_after(seconds, times=times)
    assert await sleeper.look(after=0, found=1) == (LOOK if awake else A_POLL)
    assert await scalar(link, ASLEEP, worker) is not awake


async def test_under_load_it_looks_the_less_often_the_more_comes(link: Link, sleeper: Sleeper, worker: UUID):
    await sleeper.nod(found=0)
    await sleeper.woken_after(0.0, times=4)
    for after, found, again in (
        (LOOK, 1, LOOK),
        (LOOK, 3, LOOK),
        (LOOK, 20, LONG_LOOK),
        (LONG_LOOK, 60, LONG_LOOK),
        (LONG_LOOK, 10, LOOK),
        (LOOK, 9, LONG_LOOK),
        (LONG_LOOK, 3, LOOK),
    ):
        assert await sleeper.look(after=after, found=found) == again
    assert not await scalar(link, ASLEEP, worker)


async def test_it_falls_asleep_again_when_nothing_came_for_a_while(
    link: Link, sleeper: Sleeper, worker: UUID
):
    await sleeper.nod(found=0)
    await sleeper.woken_after(0.0, times=4)
    assert await sleeper.look(after=LOOK, found=1) == LOOK
    assert await sleeper.look(after=LINGER * 0.9) == LOOK
    sleeper.now += LINGER * 0.2
    assert await sleeper.nod(found=0)
    assert await scalar(link, ASLEEP, worker)
    # And it takes four short naps again to keep it awake, whatever it finds.
    await sleeper.woken_after(0.0, times=3)
    assert await sleeper.look(after=0, found=1) == A_POLL


async def test_who_is_awake_when_notifications_end_asks_anew_when_they_are_back(
    link: Link, sleeper: Sleeper, worker: UUID
):
    await sleeper.nod(found=0)
    await sleeper.woken_after(0.0, times=4)
    assert await sleeper.look(after=LOOK, found=1) == LOOK
    sleeper.told = False
    assert await sleeper.look(after=LOOK, found=1) == A_POLL
    sleeper.told = True
    assert await sleeper.nod(found=0)
    assert await scalar(link, ASLEEP, worker)
