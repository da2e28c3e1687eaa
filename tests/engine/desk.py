"""A finisher without a daemon: verdicts are put, and it writes. Its queue `terse` keeps no success."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from jobd import JobState
from jobd.door import Link
from jobd.engine.finisher import Finisher
from jobd.engine.holdings import Holdings, Run
from jobd.events import Events
from jobd.job import FinishedRun
from jobd.store import Store
from tests.factories import claimed


class Desk:
    """A finisher on a connection of its own, and what it holds."""

    def __init__(self, link: Link) -> None:
        self.events = Events()
        self.holdings = Holdings()
        self.flushes = self.returns = 0
        self.finisher = Finisher(
            Store(link),
            holdings=self.holdings,
            events=self.events,
            rng=random.Random(1),
            terse_queues=("terse",),
            durable=self._durable,
            returned=self._returned,
        )

    def _durable(self) -> None:
        self.flushes += 1

    def _returned(self) -> None:
        self.returns += 1

    def put(
        self,
        id: UUID,
        *,
        queue: str = "default",
        claim_no: int = 1,
        state: JobState = JobState.SUCCEEDED,
        outcome: str = "succeeded",
        task: asyncio.Task[None] | None = None,
        **fields,
    ) -> None:
        run = Run(claimed(id=id, claim_no=claim_no, queue=queue))
        run.task = task
        self.holdings.add(run)
        self.finisher.put(run, FinishedRun(id=id, claim_no=claim_no, state=state, **fields), outcome)


@asynccontextmanager
async def running(desk: Desk) -> AsyncIterator[Desk]:
    writing = asyncio.ensure_future(desk.finisher.run())
    try:
        yield desk
    finally:
        writing.cancel()
        await asyncio.wait({writing})
