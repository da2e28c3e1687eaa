"""A claim under limits is two statements: what the second one could not read is read with the next claim."""

from __future__ import annotations

import asyncio
from typing import Any

from jobd.door import Database, Link, Record
from jobd.errors import Transient
from jobd.sql import Block
from tests.engine.hands import hands_on, producer_on
from tests.factories import scalar
from tests.signals import eventually


class Lossy(Link):
    """Loses the first answers to the reading of claimed jobs."""

    def __init__(self, database: Database, *, losses: int) -> None:
        super().__init__(database)
        self.losses = losses

    async def fetch(self, block: Block, *args: Any) -> list[Record]:
        if block.name == "claimed" and self.losses:
            self.losses -= 1
            raise Transient("the answer was lost")
        return await super().fetch(block, *args)


async def test_claimed_jobs_whose_reading_failed_run_once_with_the_next_claim(database_url: str):
    async with hands_on(database_url, total=5) as hands:
        link = Lossy(Database(database_url), losses=2)
        await hands.make("a", concurrency_key="k")
        producer = producer_on(link, hands)
        working = asyncio.create_task(producer.run())

        async def began() -> list[str]:
            return hands.began

        assert await eventually(began) == ["a"]
        assert link.losses == 0
        assert await scalar(link, "select attempt from jobd.jobs") == 1
        hands.end("a")
        producer.stop()
        await working
        await link.close()
