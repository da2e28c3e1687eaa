"""What code and files declare of limits: when it is set, and whose it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from jobd.client import Client
from jobd.door import Link
from jobd.errors import QueueUnknown, Refused
from jobd.limits import Kinds, Queues, Tenants, UseCases
from jobd.quotas import Quotas
from tests.factories import query


@pytest.fixture
def queues(client: Client) -> Queues:
    return Queues(client)


@pytest.fixture
def quotas(door: Link) -> Quotas:
    return Quotas(door)


MAIL = {"queues": {"mail": {"max_running": 10, "rate": "100/m"}}}


async def test_what_is_declared_holds_and_a_change_at_run_time_stays_until_that_changes(
    quotas: Quotas, queues: Queues
):
    async def holds() -> tuple[int | None, str, bool]:
        found = await queues.get("mail")
        return found.max_running, str(found.rate), found.fair

    assert await quotas.declare_limits("file:shop", MAIL) == 1
    assert await holds() == (10, "100/m", False)
    assert (await queues.get("mail")).changed_by == "file:shop"
    await queues.set("mail", max_running=3, fair=True)
    # Another start with the same file.
    assert await quotas.declare_limits("file:shop", MAIL) == 0
    assert await holds() == (3, "100/m", True)
    # What the file says of something else leaves it alone, too.
    await quotas.declare_limits("file:shop", {"queues": {"mail": {"max_running": 10, "rate": "9/s"}}})
    assert await holds() == (3, "9/s", True)
    await quotas.declare_limits("file:shop", {"queues": {"mail": {"max_running": 11, "rate": "9/s"}}})
    assert await holds() == (11, "9/s", True)


async def test_a_declared_burst_brings_its_rate_back(quotas: Quotas, queues: Queues):
    await quotas.declare_limits("file:shop", {"queues": {"mail": {"rate": "10/s", "burst": 5}}})
    await queues.set("mail", rate=None)
    await quotas.declare_limits("file:shop", {"queues": {"mail": {"rate": "10/s", "burst": 6}}})
    found = await queues.get("mail")
    assert (str(found.rate), found.burst) == ("10/s", 6)
    await quotas.declare_limits("file:shop", {"queues": {"mail": {"rate": "10/s"}}})
    found = await queues.get("mail")
    assert (str(found.rate), found.burst) == ("10/s", None)


async def test_daemons_that_start_together_declare_without_a_deadlock(crowd: list[Link]):
    said = {"queues": {f"q{n}": {"max_running": n} for n in range(20)}}
    for _ in range(3):
        await asyncio.gather(
            *(Quotas(link).declare_limits(f"file:{n % 2}", said) for n, link in enumerate(crowd))
        )
    assert len(await Quotas(crowd[0]).queues()) == 20


async def test_what_is_declared_no_more_is_taken_away_by_who_declared_it(quotas: Quotas, queues: Queues):
    await quotas.declare_limits("file:shop", MAIL)
    await queues.set("mail", weight=3)
    await quotas.declare_limits("file:other", {"queues": {"bulk": {"max_running": 1}}})
    await quotas.declare_limits("code:shop", {})
    assert (await queues.get("mail")).max_running == 10
    await quotas.declare_limits("file:shop", {"queues": {"mail": {"rate": "100/m"}}})
    assert (await queues.get("mail")).max_running is None
    await quotas.declare_limits("file:shop", {})
    found = await queues.get("mail")
    assert (found.rate, found.weight) == (None, 3)
    assert (await queues.get("bulk")).max_running == 1


async def test_all_that_can_be_limited_can_be_declared(quotas: Quotas):
    said: dict[str, dict[str, Any]] = {
        "queues": {"mail": {"fair": True}},
        "tenants": {"t1": {"max_pending": 100}},
        "kinds": {"sync": {"key_limit": 3}},
        "use_cases": {"labels": {"max_running": 2}},
    }
    assert await quotas.declare_limits("file:shop", said) == 4
    assert (await quotas.tenants())[0].max_pending == 100
    assert (await quotas.kinds())[0].key_limit == 3
    assert (await quotas.use_cases())[0].max_running == 2
    assert await quotas.declare_limits("file:shop", {}) == 4
    assert (await quotas.tenants())[0].max_pending is None
    assert (await quotas.kinds())[0].key_limit == 1
    assert (await quotas.use_cases())[0].max_running == 10


async def test_who_says_nothing_of_a_limit_leaves_another_ones_alone(quotas: Quotas, queues: Queues):
    await quotas.declare_limits("file:a", MAIL)
    assert await quotas.declare_limits("file:b", {"queues": {"mail": {}}}) == 0
    assert (await queues.get("mail")).max_running == 10
    assert await quotas.declare_limits("file:b", {"queues": {"mail": {"weight": 3}}}) == 1
    found = await queues.get("mail")
    assert (found.max_running, str(found.rate), found.weight) == (10, "100/m", 3)
    # Both may start again, and each may take back what it said.
    assert await quotas.declare_limits("file:a", MAIL) == 0
    assert await quotas.declare_limits("file:b", {}) == 1
    found = await queues.get("mail")
    assert (found.max_running, str(found.rate), found.weight) == (10, "100/m", 1)
    assert await quotas.declare_limits("file:a", {}) == 1
    assert (await queues.get("mail")).max_running is None


@pytest.mark.parametrize("first", ["file:a", "file:b"])
async def test_of_two_that_say_different_things_the_later_name_counts_whoever_starts_first(
    quotas: Quotas, queues: Queues, first: str
):
    twenty = {"queues": {"mail": {"max_running": 20}}}
    said: dict[str, dict[str, dict[str, Any]]] = {"file:a": MAIL, "file:b": twenty}
    for owner in sorted(said, key=lambda owner: owner != first):
        await quotas.declare_limits(owner, said[owner])
    assert (await queues.get("mail")).max_running == 20
    # A start says nothing new.
    assert await quotas.declare_limits("file:a", MAIL) == 0
    assert (await queues.get("mail")).max_running == 20
    await queues.set("mail", max_running=7)
    assert await quotas.declare_limits("file:b", twenty) == 0
    assert (await queues.get("mail")).max_running == 7
    # What one takes back is what the other says.
    await quotas.declare_limits("file:b", {})
    assert (await queues.get("mail")).max_running == 10


async def test_limits_that_belong_together_come_from_one_owner(quotas: Quotas, queues: Queues):
    await quotas.declare_limits("file:a", {"queues": {"mail": {"rate": "10/s", "burst": 5}}})
    await quotas.declare_limits("file:b", {"queues": {"mail": {"rate": "20/s"}}})
    found = await queues.get("mail")
    assert (str(found.rate), found.burst) == ("20/s", None)
    await quotas.declare_limits("file:b", {})
    found = await queues.get("mail")
    assert (str(found.rate), found.burst) == ("10/s", 5)


async def test_code_that_says_in_order_does_not_stumble_over_a_key_limit_from_run_time(
    quotas: Quotas, client: Client
):
    kinds = Kinds(client)
    await kinds.set("sync", key_limit=3)
    await quotas.declare_limits("code:shop", {"kinds": {"sync": {"ordered": True}}})
    found = await kinds.get("sync")
    assert (found.key_limit, found.ordered) == (1, True)
    await quotas.declare_limits("code:shop", {"kinds": {"sync": {"key_limit": 2}}})
    found = await kinds.get("sync")
    assert (found.key_limit, found.ordered) == (2, False)


async def test_what_was_put_down_for_one_owner_is_still_that_ones(door: Link, quotas: Quotas, queues: Queues):
    await quotas.declare_limits("file:shop", MAIL)
    said = json.dumps(MAIL["queues"]["mail"])
    await query(door, "update jobd.queues set declared = $1::jsonb, declared_by = 'file:shop'", said)
    assert await quotas.declare_limits("file:shop", MAIL) == 0
    assert await quotas.declare_limits("file:other", {}) == 0
    assert await quotas.declare_limits("file:shop", {}) == 1
    assert (await queues.get("mail")).max_running is None


async def test_the_way_back_is_to_what_is_declared(quotas: Quotas, queues: Queues):
    await quotas.declare_limits("file:shop", MAIL)
    await quotas.declare_limits("file:other", {"queues": {"mail": {"weight": 2}}})
    await queues.set("mail", max_running=None, rate="5/s", burst=3, fair=True, paused=True)
    assert (await queues.get("mail")).declared == {"max_running": 10, "rate": "100/m", "weight": 2}
    await queues.reset("mail", by="kim")
    found = await queues.get("mail")
    assert (found.max_running, str(found.rate), found.burst, found.fair) == (10, "100/m", None, False)
    assert (found.weight, found.changed_by, found.paused_at is not None) == (2, "kim", True)
    with pytest.raises(QueueUnknown):
        await queues.reset("nowhere")


async def test_where_nothing_is_declared_a_reset_takes_all_limits_away(client: Client):
    tenants, kinds, use_cases = Tenants(client), Kinds(client), UseCases(client)
    places: list[tuple[Any, dict[str, Any]]] = [
        (tenants, {"max_pending": 5, "on_full": "shed", "exact": False, "rate": "5/s", "burst": 2}),
        (kinds, {"key_limit": 3, "key_rate": "5/s", "key_burst": 2}),
        (use_cases, {"max_running": 3}),
    ]
    for each, limits in places:
        assert not await each.reset("x")
        await each.set("x", **limits)
        assert await each.reset("x")
    tenant, kind = await tenants.get("x"), await kinds.get("x")
    assert (tenant.max_pending, tenant.on_full, tenant.exact, tenant.rate) == (None, "refuse", True, None)
    assert (kind.key_limit, kind.key_rate, kind.key_burst) == (1, None, None)
    assert (await use_cases.get("x")).max_running == 10


async def test_there_is_nothing_else_to_reset(door: Link):
    with pytest.raises(Refused, match="place = 'workers': queues, tenants, kinds or use_cases"):
        await query(door, "select jobd.reset_limits('workers', 'x')")
