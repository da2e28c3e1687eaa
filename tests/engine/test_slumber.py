"""How a producer asks for notifications before it sleeps."""

from __future__ import annotations

import random
from datetime import timedelta

from jobd.door import Link
from jobd.engine.lease import Lease
from jobd.engine.slumber import Slumber
from jobd.fleet import Fleet
from tests.factories import make_worker, scalar

ASLEEP = "select sleeping_until > clock_timestamp() from jobd.workers where id = $1"


async def test_who_became_another_worker_asks_for_notifications_again(link: Link):
    lease = Lease(period=timedelta(seconds=30))
    slumber = Slumber(
        Fleet(link),
        lease=lease,
        poll_interval=timedelta(seconds=10),
        notified=lambda: True,
        rng=random.Random(1),
    )
    first = await make_worker(link, id=lease.worker_id)
    assert await slumber.nod(found=False)
    assert await scalar(link, ASLEEP, first)
    # One notice lasts for several sleeps.
    assert not await slumber.nod(found=False)

    second = await make_worker(link, id=lease.renew_identity())
    assert not await scalar(link, ASLEEP, second)
    assert await slumber.nod(found=False)
    assert await scalar(link, ASLEEP, second)
