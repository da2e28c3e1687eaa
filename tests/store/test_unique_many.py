"""enqueue_many with unique keys: all or nothing, in any order at the same time, and never by COPY."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobd.client import Client
from jobd.door import Link
from jobd.errors import ConfigError, PayloadError, Refused, UniqueKeyTaken
from jobd.events import JobEnqueued
from jobd.ids import uuid7
from jobd.store import Store
from tests.factories import claim_all, make_worker, new_job, query, scalar
from tests.store.conftest import Held


def key_of(payload: Any) -> str | None:
    return None if payload["n"] is None else f"k{payload['n']}"


def numbers(*given: int | None) -> list[dict[str, int | None]]:
    return [{"n": n} for n in given]


async def count(door: Link) -> int:
    return int(await scalar(door, "select count(*) from jobd.jobs"))


scopes = pytest.mark.parametrize("scope", ["unfinished", "waiting", "1h"])


@scopes
async def test_the_ids_that_stand_for_the_jobs_come_in_the_payloads_order(
    client: Client, door: Link, scope: str
):
    told: list[JobEnqueued] = []
    client._events.subscribe(JobEnqueued, told.append)
    first = await client.enqueue_many("noop", numbers(3, 1, 2), unique_key=key_of, unique_for=scope)
    second = await client.enqueue_many("noop", numbers(1, 5, 3), unique_key=key_of, unique_for=scope)
    assert (second[0], second[2]) == (first[1], first[0])
    assert await count(door) == 4
    assert [event.count for event in told] == [3, 1]
    rows = await query(door, "select id, payload->>'n' as n from jobd.jobs order by id")
    assert [row["n"] for row in rows] == ["3", "1", "2", "5"]


@scopes
async def test_of_equal_keys_in_one_call_the_first_payload_counts(client: Client, door: Link, scope: str):
    payloads = [{"n": 1, "at": 0}, {"n": 2}, {"n": 1, "at": 1}]
    ids = await client.enqueue_many("noop", payloads, unique_key=key_of, unique_for=scope)
    assert ids[0] == ids[2] != ids[1]
    assert await scalar(door, "select payload->>'at' from jobd.jobs where id = $1", ids[0]) == "0"


@scopes
async def test_replace_lets_the_last_payload_count(client: Client, door: Link, scope: str):
    payloads = [{"n": 1, "at": 0}, {"n": 2}, {"n": 1, "at": 1}]
    ids = await client.enqueue_many(
        "noop", payloads, unique_key=key_of, unique_for=scope, on_conflict="replace"
    )
    assert await count(door) == 2
    assert await scalar(door, "select payload->>'at' from jobd.jobs where id = $1", ids[0]) == "1"


@scopes
async def test_reject_leaves_nothing_behind(client: Client, door: Link, scope: str):
    held = await client.enqueue("noop", unique_key="k7", unique_for=scope)
    with pytest.raises(UniqueKeyTaken) as taken:
        await client.enqueue_many(
            "noop",
            numbers(*range(10)),
            unique_key=key_of,
            unique_for=scope,
            on_conflict="reject",
        )
    assert (taken.value.unique_key, taken.value.holder) == ("k7", held.id)
    assert await count(door) == 1


@scopes
async def test_reject_names_no_holder_of_a_key_that_is_twice_in_the_call(
    client: Client, door: Link, scope: str
):
    """The first of them is gone with the refusal."""
    with pytest.raises(UniqueKeyTaken, match="'k1' is twice in this call; leave one out") as taken:
        await client.enqueue_many(
            "noop", numbers(1, 1), unique_key=key_of, unique_for=scope, on_conflict="reject"
        )
    assert (taken.value.unique_key, taken.value.holder) == ("k1", None)
    assert await count(door) == 0


async def test_a_payload_without_a_key_is_always_a_job(client: Client, door: Link):
    for _ in range(2):
        await client.enqueue_many("noop", numbers(None, 1, None), unique_key=key_of, unique_for="waiting")
    assert await count(door) == 5
    assert await scalar(door, "select count(*) from jobd.jobs where unique_for is not null") == 1


async def test_thousands_are_one_unit_out_of_any_iterable(client: Client, door: Link):
    async def stream() -> AsyncIterator[dict[str, int]]:
        for n in range(2_500):
            yield {"n": n % 2_000}

    ids = await client.enqueue_many("noop", stream(), unique_key=key_of)
    assert (len(ids), len(set(ids)), await count(door)) == (2_500, 2_000, 2_000)
    assert ids[:500] == ids[2_000:]


async def test_nothing_is_nothing(client: Client):
    assert list(await client.enqueue_many("noop", [], unique_key=key_of)) == []


async def test_what_is_wrong_with_a_payload_or_its_key_is_told_before_anything_is_sent(
    client: Client, door: Link
):
    with pytest.raises(PayloadError, match=r"payload \$\[1\]"):
        await client.enqueue_many("noop", [{"n": 1}, {"n": object()}], unique_key=lambda payload: "k")
    with pytest.raises(ConfigError, match=r"unique_key = 'x+': must be 1 to 500"):
        await client.enqueue_many("noop", numbers(1, 2), unique_key=lambda payload: "x" * 501)
    with pytest.raises(ConfigError, match="unique_key = 'k': must be a function here"):
        await client.enqueue_many("noop", numbers(1), unique_key="k")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unique_for = 'waiting': says how long"):
        await client.enqueue_many("noop", numbers(1), unique_for="waiting")
    assert await count(door) == 0


@scopes
async def test_many_calls_with_the_same_keys_in_any_order_never_wait_for_each_other(
    crowd: list[Link], door: Link, scope: str
):
    """Each in one transaction over several calls, as a bulk of thousands is."""
    span = "1 hour" if scope == "1h" else scope

    async def enqueue(link: Link, keys: list[str]) -> None:
        job = new_job(unique_for=span, on_conflict="replace")
        connection = await link.opened()
        async with connection.transaction():
            for half in (sorted(keys)[:50], sorted(keys)[50:]):
                await Store(link).enqueue_keyed(
                    job, ids=[uuid7() for _ in half], payloads=["{}"] * len(half), unique_keys=half
                )

    keys = [f"{n:03}" for n in range(100)]
    for _ in range(5):
        await asyncio.gather(*[enqueue(link, keys[n:] + keys[:n]) for n, link in enumerate(crowd)])
        await claim_all(Store(door), await make_worker(door), rooms={"default": 30})
    waiting = "select count(*) from jobd.jobs where state = 'ready' group by unique_key having count(*) > 1"
    assert not await query(door, waiting)


async def test_the_keys_of_one_call_are_taken_in_the_order_of_their_bytes(store: Store, held: Held):
    """Another call that holds the first of them has none of the others to wait for."""
    await Store(held).enqueue(new_job(unique_key="B"))
    ids = [uuid7(), uuid7()]
    call = store.enqueue_keyed(new_job(), ids=ids, payloads=["1", "2"], unique_keys=["a", "B"])
    task = await held.until_it_blocks(call)
    # "a" comes after "B": it is not taken yet.
    assert (await Store(held).enqueue(new_job(unique_key="a"))).created
    await held.commit()
    assert not [answer for answer in await task if answer.created]


async def test_in_sql_keys_stand_beside_the_payloads(door: Link):
    call = """select jobd.enqueue_many('noop', array['1', '2', '3']::jsonb[],
                                       unique_keys => array['a', null, 'a'], unique_for => 'waiting') as id"""
    first = [row["id"] for row in await query(door, call)]
    assert first[0] == first[2] != first[1]
    again = [row["id"] for row in await query(door, call)]
    assert again[0] == again[2] == first[0]
    assert await count(door) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("unique_keys => array['a']", "enqueue_many got 1 unique_keys for 2 payloads"),
        ("unique_for => 'waiting'", "unique_for = 'waiting': says how long"),
        ("unique_keys => array['a', repeat('b', 501)]", "unique_key is 501 characters long"),
        ("unique_keys => array['a', '']", "unique_key is 0 characters long"),
        ("concurrency_keys => array['a', repeat('b', 501)]", "concurrency_key is 501 characters long"),
        ("concurrency_keys => array['', 'a']", "concurrency_key is 0 characters long"),
        ("use_case => repeat('x', 256)", "use_case is 256 bytes long: use 1 to 255"),
        ("tenant_id => ''", "tenant_id is 0 bytes long: use 1 to 255"),
        ("deadline_policy => 'drop'", "deadline_policy = 'drop': needs a delay_tolerance"),
        ("unique_keys => array['a', 'a'], on_conflict => 'reject'", "unique key 'a' is held by job"),
        (
            "unique_keys => array['a', 'b'], ids => array['{id}', '{id}']::uuid[]",
            "there is a job {id} already",
        ),
    ],
)
async def test_sql_refuses_what_means_nothing(door: Link, arguments: str, words: str):
    id = str(uuid7())
    with pytest.raises(Refused) as refusal:
        await query(
            door,
            f"select jobd.enqueue_many('noop', array['1', '2']::jsonb[], {arguments.replace('{id}', id)})",
        )
    assert str(refusal.value).startswith(words.replace("{id}", id))
    assert await count(door) == 0
