"""All moves at once: eight workers, some of which die and go on writing, never disagree about a job."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest

from jobd.door import Database, Link
from jobd.errors import JobNotFound, Transient, UniqueKeyTaken, WrongState
from jobd.fleet import Fleet
from jobd.job import FINISHED, FinishedRun, JobState
from jobd.store import Store
from tests.factories import claim_all, end_runs, make_worker, new_job, scalar

HOUR = timedelta(hours=1)
MOMENT = timedelta(milliseconds=10)
ENDS = [*sorted(FINISHED), JobState.SCHEDULED, JobState.READY]
STEPS = 150

Claim = tuple[UUID, int]


class Worker:
    """Does one thing after the other, as its dice say; what it claimed it never forgets, dead or not."""

    def __init__(self, link: Link, dice: random.Random, *, jobs: list[UUID], runs: Counter[Claim]) -> None:
        self.link = link
        self.store = Store(link)
        self.dice = dice
        self.jobs = jobs
        self.runs = runs
        self.held: list[Claim] = []
        self.ended: list[Claim] = []

    async def run(self) -> None:
        self.id = await make_worker(self.link, lease=HOUR)
        steps = (self.enqueue, self.claim, self.finish) * 3 + (
            self.release,
            self.die,
            self.rescue,
            self.stage,
            self.cancel,
            self.retry,
            self.reschedule,
            self.delete,
        )
        for _ in range(STEPS):
            with contextlib.suppress(
                WrongState, JobNotFound, UniqueKeyTaken, Transient
            ):  # others were faster
                await self.dice.choice(steps)()

    def some_job(self) -> UUID:
        return self.dice.choice(self.jobs[-50:])

    def some_claims(self) -> list[Claim]:
        chosen = self.dice.sample(self.held, self.dice.randint(0, len(self.held)))
        self.held = [claim for claim in self.held if claim not in chosen]
        return chosen

    async def enqueue(self) -> None:
        key = self.dice.choice([None, "a", "b"])
        delay = self.dice.choice([None, MOMENT])
        enqueued = await self.store.enqueue(
            new_job(unique_key=key, priority=self.dice.randint(0, 2), delay=delay)
        )
        if enqueued.created:
            self.jobs.append(enqueued.id)

    async def claim(self) -> None:
        for claim in await claim_all(self.store, self.id, rooms={"default": self.dice.randint(1, 9)}):
            self.runs[claim.id, claim.claim_no] += 1
            self.held.append((claim.id, claim.claim_no))

    async def finish(self) -> None:
        runs = [
            FinishedRun(id=id, claim_no=claim_no, state=self.dice.choice(ENDS), delay=MOMENT, error="{}")
            for id, claim_no in self.some_claims()
        ]
        ours = await end_runs(self.store, runs)
        self.ended += [(run.id, run.claim_no) for run in runs if run.id in ours]

    async def release(self) -> None:
        claims = self.some_claims()
        ours = await self.store.release(claims)
        self.ended += [claim for claim in claims if claim[0] in ours]

    async def die(self) -> None:
        await Fleet(self.link).resign(self.id)
        self.id = await make_worker(self.link, lease=HOUR)

    async def rescue(self) -> None:
        await self.store.rescue(batch=20, crash_limit=5)

    async def stage(self) -> None:
        await self.store.stage(batch=10)

    async def cancel(self) -> None:
        await self.store.cancel(self.some_job(), reason="stop")

    async def retry(self) -> None:
        await self.store.retry(self.some_job())

    async def reschedule(self) -> None:
        await self.store.reschedule(self.some_job(), priority=self.dice.randint(0, 5))

    async def delete(self) -> None:
        if self.dice.random() < 0.2:
            await self.store.delete(self.some_job())


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_claim_is_given_once_and_ends_once(database_url: str, door: Link, seed: int):
    """That each job is in one place, with the right claim_no, is what `door` checks in the end."""
    first = await Store(door).enqueue(new_job())
    jobs, runs = [first.id], Counter[Claim]()
    links = [Link(Database(database_url)) for _ in range(8)]
    workers = [
        Worker(link, random.Random(f"{seed}.{number}"), jobs=jobs, runs=runs)
        for number, link in enumerate(links)
    ]
    await asyncio.gather(*[worker.run() for worker in workers])
    for link in links:
        await link.close()
    ended = Counter(claim for worker in workers for claim in worker.ended)
    assert set(runs.values()) == {1}
    assert set(ended.values()) == {1}
    assert await scalar(door, "select count(*) from jobd.all_jobs") <= len(jobs)
    assert len(ended) > 100
