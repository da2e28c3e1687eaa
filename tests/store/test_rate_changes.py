"""What was started at a rate: it is no obstacle to another rate, and is forgotten in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from jobd.door import Link
from jobd.quotas import Quotas
from jobd.store import Store
from tests.factories import SECOND, make_jobs, make_worker, query, scalar
from tests.store.conftest import Held

HOUR = timedelta(hours=1)


@pytest.fixture
def quotas(door: Link) -> Quotas:
    return Quotas(door)


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door, lease=2 * HOUR)


@pytest.fixture
def start(store: Store, worker: UUID) -> Callable[..., Awaitable[int]]:
    """Claims all that may start at this moment; how many those are."""

    async def claim(now: datetime | None = None) -> int:
        claims = await store.claim_governed(
            worker, rooms={"default": 1000}, kind_rooms={}, suspects=1, suspect_from=2, now=now
        )
        return len(claims)

    return claim


async def spent(door: Link, scope: str, name: str) -> timedelta | None:
    text = "select max(spent_until) - clock_timestamp() from jobd.rates where scope = $1 and name = $2"
    found: timedelta | None = await scalar(door, text, scope, name)
    return found


# What has the rate, by which jobs it is reached, and how it is set.
PLACES: dict[str, tuple[str, str, str, dict[str, Any], str]] = {
    "queue": ("queue", "default", "set_queue", {}, "rate"),
    "tenant": ("tenant", "t1", "set_tenant", {"tenant_id": "t1"}, "rate"),
    "key": ("key", "k", "set_kind", {"concurrency_key": "k"}, "key_rate"),
}


class Place:
    def __init__(self, quotas: Quotas, of: str) -> None:
        self.scope, self.name, function, self.job, self.rate = PLACES[of]
        self._set = getattr(quotas, function)
        self._burst = self.rate.replace("rate", "burst")
        self._target = "noop" if of == "key" else self.name

    async def set(self, rate: str | None, **more: Any) -> None:
        limits = {self._burst if name == "burst" else name: value for name, value in more.items()}
        if self.scope == "key":
            limits["key_limit"] = 1000
        await self._set(self._target, {self.rate: rate, **limits}, by="me")


@pytest.fixture(params=PLACES)
def place(quotas: Quotas, request: pytest.FixtureRequest) -> Place:
    return Place(quotas, request.param)


async def test_a_raised_rate_is_not_behind_what_the_old_one_started(
    door: Link, place: Place, start: Callable[..., Awaitable[int]]
):
    await place.set("100/h")
    await make_jobs(door, 130, **place.job)
    assert await start() == 100
    await place.set("100/s")
    assert await start(datetime.now(UTC) + 2 * SECOND) == 30


async def test_a_rate_that_was_taken_away_begins_anew(
    door: Link, place: Place, start: Callable[..., Awaitable[int]]
):
    await place.set("10/h")
    await make_jobs(door, 40, **place.job)
    assert await start() == 10
    await place.set(None)
    await place.set("10/s")
    assert await start(datetime.now(UTC) + 2 * SECOND) == 10


async def test_a_lowered_rate_holds_at_once(door: Link, place: Place, start: Callable[..., Awaitable[int]]):
    await place.set("20/h")
    await make_jobs(door, 30, **place.job)
    assert await start() == 20
    await place.set("5/h")
    assert await start() == 0
    assert await start(datetime.now(UTC) + 13 * timedelta(minutes=1)) == 1


async def test_a_smaller_burst_is_not_behind_what_the_larger_one_let_through(
    door: Link, place: Place, start: Callable[..., Awaitable[int]]
):
    await place.set("60/h")
    await make_jobs(door, 70, **place.job)
    assert await start() == 60
    await place.set("60/h", burst=1)
    assert await start() == 1
    assert await start() == 0
    assert await start(datetime.now(UTC) + 61 * SECOND) == 1


async def test_the_longest_rates_and_bursts_can_be_set(
    door: Link, place: Place, start: Callable[..., Awaitable[int]]
):
    await place.set("1000000/s")
    await make_jobs(door, 3, **place.job)
    assert await start() == 3
    await place.set("1/366d", burst=1_000_000)
    await place.set("1000000/ms", burst=1)


async def test_a_key_that_waits_for_nobody_is_not_behind_its_old_rate_either(
    door: Link, quotas: Quotas, store: Store, start: Callable[..., Awaitable[int]]
):
    await quotas.set_kind("noop", {"key_rate": "1/d"}, by="me")
    await make_jobs(door, 1, concurrency_key="k")
    assert await start() == 1
    await query(door, "delete from jobd.jobs")
    await quotas.set_kind("noop", {"key_rate": "10/s"}, by="me")
    await make_jobs(door, 1, concurrency_key="k")
    assert await start(datetime.now(UTC) + 2 * SECOND) == 1


async def test_what_was_spent_long_ago_is_forgotten_and_what_somebody_has_locked_left(
    door: Link, store: Store, held: Held
):
    text = "insert into jobd.rates (scope, name, spent_until) values ('key', $1, $2)"
    now = datetime.now(UTC)
    for name, ago in (("locked", 3), ("b", 2), ("c", 2), ("d", 0)):
        await query(door, text, name, now - ago * HOUR)
    await query(held, "select from jobd.rates where name = 'locked' for update")
    assert await store.prune_rates(batch=1, now=now) == 1
    assert await store.prune_rates(batch=10, now=now) == 1
    assert await store.prune_rates(batch=10, now=now) == 0
    await held.rollback()
    assert await store.prune_rates(batch=10) == 1
    assert await scalar(door, "select array_agg(name) from jobd.rates") == ["d"]
