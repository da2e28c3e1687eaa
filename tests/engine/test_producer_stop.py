"""A turn of the producer is several statements: stopped between two of them, it sends no further claim."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobd.door import Database, Link, Record
from jobd.sql import Block
from tests.engine.hands import hands_on, producer_on


class Halting(Link):
    """Keeps the answer to the first statement of this name until it may go on."""

    def __init__(self, database: Database, *, at: str) -> None:
        super().__init__(database)
        self.at = at
        self.halted = asyncio.Event()
        self.go_on = asyncio.Event()

    async def fetch(self, block: Block, *args: Any) -> list[Record]:
        answer = await super().fetch(block, *args)
        if block.name == self.at and not self.halted.is_set():
            self.halted.set()
            await self.go_on.wait()
        return answer


@pytest.mark.parametrize(
    ("at", "begun"),
    [("governing", []), ("claim_victims", ["victim"]), ("claim_governed", ["victim", "keyed"])],
    ids=["governing", "claim_victims", "claim_governed"],
)
async def test_stopped_during_a_turn_it_sends_no_further_claim(database_url: str, at: str, begun: list[str]):
    async with hands_on(database_url, total=5) as hands:
        link = Halting(Database(database_url), at=at)
        await hands.make("victim", crashes=1)
        await hands.make("keyed", concurrency_key="k")
        await hands.make("plain", queue="other")
        producer = producer_on(link, hands, queues=["default", "other"])
        working = asyncio.create_task(producer.run())
        await link.halted.wait()
        producer.stop()
        link.go_on.set()
        await working
        await link.close()
        # What came of the claim that was under way is started, and no other one is made.
        assert hands.began == begun
        rows = await hands.rows()
        assert {name: row["claim_no"] for name, row in rows.items()} == {
            name: int(name in begun) for name in ("victim", "keyed", "plain")
        }
        hands.end(*begun)
