"""Which deadline goes first, and how many are met: on a set clock, with a producer's statements and floors.

Time passes only where the test lets it. A claim takes CLAIM, longer than one of so few jobs takes; what it
brings waits for a slot up to LONGEST_HOLD, as in `engine/prefetch.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import pytest

from benchmarks.workloads.deadlines import met_by_earliest_deadline_first
from jobd.door import Link
from jobd.engine.floors import Floors
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.job import Claimed, FinishedRun, JobState
from jobd.store import Store
from tests.factories import make_worker, new_job

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
CLAIM = 0.005
LONGEST_HOLD = 0.025


class Arrival(NamedTuple):
    at: float
    tolerance: float
    id: UUID

    @property
    def deadline(self) -> float:
        return self.at + self.tolerance


class Shop:
    """A producer with its floors and slots, on a clock in seconds after BEGIN."""

    def __init__(self, link: Link, worker_id: UUID, *, slots: int, service: float) -> None:
        self.store = Store(link)
        self.worker_id = worker_id
        self.service = service
        self.now = 0.0
        self.floors = Floors(clock=lambda: self.now)
        self.free = [0.0] * slots  # When each slot comes free.
        self.held: list[Claimed] = []
        self.claims: list[tuple[float, list[Claimed]]] = []
        self.begun: dict[UUID, float] = {}

    def moment(self, after: float | None = None) -> datetime:
        return BEGIN + timedelta(seconds=self.now if after is None else after)

    async def arrive(self, arrivals: list[Arrival]) -> None:
        for each in arrivals:
            job = new_job(
                id=each.id, delay_tolerance=timedelta(seconds=each.tolerance), deadline_policy="drop"
            )
            await self.store.enqueue_new(job, now=self.moment(each.at))

    async def claim(self) -> None:
        """As Producer does: as many as there are slots in the next moment, and what is held for a moment."""
        soon = self.now + LONGEST_HOLD
        room = sum(int((soon - free) // self.service + 1) for free in self.free if free <= soon) - len(
            self.held
        )
        asked_at = self.now
        if room > 0:
            asked = {"default": room}
            used = self.floors.of(asked)
            claims = await self.store.claim(self.worker_id, rooms=asked, floors=used, now=self.moment())
            self.claims.append((asked_at, claims))
            self.held += claims
            self.now += CLAIM
            self.floors.learn(asked, used, claims)
        else:
            self.now += CLAIM

    async def work(self) -> None:
        """Begin what is held in slots that came free up to now; its end is written at once."""
        ended = []
        self.free.sort()
        for number, first in enumerate(self.free):
            free = first
            while free <= self.now and self.held:
                claim = self.held.pop(0)
                begin = max(free, (claim.claimed_at - BEGIN).total_seconds() + CLAIM)
                if begin > self.now:
                    self.held.insert(0, claim)
                    break
                ended.append(FinishedRun(claim.id, claim.claim_no, JobState.SUCCEEDED))
                # Else the executor gives it back, and it expires.
                if self.moment(begin) <= claim.deadline_at:
                    self.begun[claim.id] = begin
                    free = begin + self.service
            self.free[number] = free
        if ended:
            await self.store.succeed(ended, now=self.moment())


def arrivals(
    rng: random.Random, *, rate: float, seconds: float, tolerances: list[float]
) -> Iterator[Arrival]:
    at = 0.0
    while (at := at + rng.expovariate(rate)) < seconds:
        yield Arrival(at, rng.choice(tolerances) * rng.uniform(0.5, 1.5), uuid7())


async def run(link: Link, jobs: list[Arrival], *, slots: int, service: float, seconds: float) -> Shop:
    await Fleet(link).ensure_partitions(now=BEGIN)
    shop = Shop(link, await make_worker(link, lease=timedelta(days=9_000)), slots=slots, service=service)
    left = sorted(jobs)
    while shop.now < seconds or shop.held:
        here = [job for job in left if job.at <= shop.now]
        left = left[len(here) :]
        await shop.arrive(here)
        await shop.store.expire(batch=1_000, now=shop.moment())
        await shop.work()
        await shop.claim()
    return shop


@pytest.mark.parametrize("seed", range(3))
async def test_of_two_jobs_ready_50_ms_before_a_claim_the_earlier_deadline_starts_first(
    link: Link, seed: int
):
    rng = random.Random(seed)
    jobs = list(arrivals(rng, rate=300, seconds=3, tolerances=[0.2, 2, 20]))
    shop = await run(link, jobs, slots=4, service=0.02, seconds=3)
    known = {job.id: job for job in jobs}
    claimed_at = {claim.id: at for at, claims in shop.claims for claim in claims}
    assert len(shop.claims) > 50
    compared = 0
    for at, claims in shop.claims:
        ready = [job for job in jobs if job.at <= at - 0.05 and claimed_at.get(job.id, at + 1) > at]
        waiting = [job for job in ready if job.deadline >= at]
        last = max((known[claim.id].deadline for claim in claims), default=0.0)
        assert not [job for job in waiting if job.deadline < last]
        assert [claim.deadline_at for claim in claims] == sorted(claim.deadline_at for claim in claims)
        compared += len(waiting)
    assert compared > 1_000


@pytest.mark.parametrize("load", [1.2, 2.0])
async def test_under_overload_drop_meets_nine_of_ten_that_could_be_met(link: Link, load: float):
    slots, service, seconds = 8, 0.02, 5.0
    rng = random.Random(load)
    jobs = list(arrivals(rng, rate=load * slots / service, seconds=seconds, tolerances=[0.1, 0.5, 2]))
    shop = await run(link, jobs, slots=slots, service=service, seconds=seconds + 3)
    met = sum(shop.begun.get(job.id, 1e9) <= job.deadline for job in jobs)
    possible = met_by_earliest_deadline_first(
        [(job.at, job.deadline) for job in jobs], slots=slots, service=service
    )
    assert 0.5 * len(jobs) < possible
    assert met >= 0.9 * possible
