"""Of a tenant with an exact limit no more jobs wait than may, at any commit, however many enqueue at once.

While nothing leaves, the number of waiting jobs only grows: what it is at the end of a storm is the most
that it was.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from jobd.client import Client
from jobd.door import Link
from jobd.errors import TenantFull
from tests.factories import query, scalar

CLIENTS = 16
LIMIT = 50
WAITING = "select count(*) from jobd.jobs where tenant_id = 't' and state in ('scheduled', 'ready')"
KEYED = "select jobd.enqueue('greet', tenant_id => 't', unique_key => $1)"


@pytest.fixture
async def connections(direct_database_url: str) -> AsyncIterator[list[asyncpg.Connection]]:
    async with AsyncExitStack() as stack:
        opened = [await asyncpg.connect(direct_database_url) for _ in range(CLIENTS)]
        for connection in opened:
            stack.push_async_callback(connection.close)
        yield opened


async def enqueue_until_full(
    client: Client, connection: asyncpg.Connection, rng: random.Random, said: Counter[str]
) -> None:
    """Transactions of some jobs, by all doors, until one is refused; one of four is rolled back."""
    while not said["full"]:
        transaction = connection.transaction()
        await transaction.start()
        try:
            for _ in range(rng.randint(1, 3)):
                match rng.randrange(4):
                    case 0:
                        await client.enqueue_many(
                            "greet", [{}] * rng.randint(1, 3), tenant_id="t", connection=connection
                        )
                    case 1:
                        await connection.fetch(
                            "select jobd.enqueue('greet', tenant_id => 't', unique_key => $1)",
                            f"{rng.randrange(99)}",
                        )
                    case _:
                        await client.enqueue(
                            "greet", tenant_id="t", delay=rng.choice([None, "1h"]), connection=connection
                        )
        except (TenantFull, asyncpg.PostgresError) as refusal:
            assert isinstance(refusal, TenantFull) or refusal.sqlstate == "JD001"
            said["full"] += 1
            await transaction.rollback()
            continue
        if rng.random() < 0.25:
            said["rolled back"] += 1
            await transaction.rollback()
        else:
            said["committed"] += 1
            await transaction.commit()


@pytest.mark.parametrize("seed", range(4))
async def test_sixteen_clients_never_exceed_the_limit(
    client: Client, door: Link, connections: list[asyncpg.Connection], seed: int
):
    rng = random.Random(seed)
    await query(door, "insert into jobd.tenants (id, max_pending) values ('t', $1)", LIMIT)
    for _ in range(5):
        said: Counter[str] = Counter()
        await asyncio.gather(
            *[enqueue_until_full(client, each, random.Random(rng.random()), said) for each in connections]
        )
        # All of them stop at the first refusal, which may have been one of many jobs at once.
        assert LIMIT - 9 < await scalar(door, WAITING) <= LIMIT
        assert said["committed"] and said["full"]
        # To the brim, one by one.
        while (await scalar(door, WAITING)) < LIMIT:
            await client.enqueue("greet", tenant_id="t")
        results = await asyncio.gather(
            *[client.enqueue("greet", tenant_id="t") for _ in range(CLIENTS)], return_exceptions=True
        )
        assert all(isinstance(result, TenantFull) for result in results)
        await query(door, "delete from jobd.jobs where random() < 0.5")


async def test_no_look_ever_sees_more_while_others_make_room(
    client: Client, door: Link, connections: list[asyncpg.Connection]
):
    await query(door, "insert into jobd.tenants (id, max_pending) values ('t', $1)", LIMIT)
    done = 0

    async def producing(connection: asyncpg.Connection) -> None:
        nonlocal done
        while done < 2_000:
            try:
                await client.enqueue("greet", tenant_id="t", connection=connection)
                done += 1
            except TenantFull:
                await asyncio.sleep(0)

    async def clearing(connection: asyncpg.Connection) -> None:
        while done < 2_000:
            await connection.execute(
                "delete from jobd.jobs where id in (select id from jobd.jobs limit 5 for update skip locked)"
            )

    producers = [asyncio.create_task(producing(each)) for each in connections[1:]]
    clearer = asyncio.create_task(clearing(connections[0]))
    most = 0
    while not clearer.done():
        most = max(most, await scalar(door, WAITING))
    await asyncio.gather(clearer, *producers)
    assert 0 < most <= LIMIT
