"""Two schedulers on one database and a clock that is set, killed and restarted, for as long as one likes.

    uv run python -m tests.engine.schedule_simulation --days 365

They die before a statement is sent, after it has committed, or somewhere in between; they race, come back
with a term that is over, declare everything anew; the clock leaps and steps back; somebody pauses, resumes,
triggers and changes schedules meanwhile. In the end the history has to be what `schedule_oracle` says, each
occurrence once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from jobd.door import Database
from jobd.ids import uuid7
from jobd.schedule_rows import Terms
from jobd.terms import terms
from tests.engine.clockwork import Clockwork
from tests.engine.fragile import Fate, FragileLink, Killed
from tests.engine.schedule_oracle import Sample, fires
from tests.engine.schedule_samples import MOST_FIRES_A_YEAR, samples
from tests.factories import query
from tests.postgres import running_server

# The fortnight in which most zones change their offset.
BEGIN = datetime.fromisoformat("2026-03-22T00:07:30+00:00")
SECOND = timedelta(seconds=1)
LEASE = 5 * SECOND


class Process:
    """One of the two, in all its lives."""

    def __init__(self, database: Database, declared: Sequence[Terms]) -> None:
        self.link = FragileLink(database)
        self._declared = declared
        self.begin(declaring=True)

    def begin(self, *, declaring: bool) -> None:
        """A new life, which knows nothing of the one before."""
        declared = {"code": list(self._declared)} if declaring else {}
        self.clockwork = Clockwork(self.link, declared=declared)

    async def look(self, now: datetime, *, stale: bool) -> None:
        """What a scheduler does when it wakes. A stale one does not hear that another one leads."""
        self.clockwork.now = now
        await self.clockwork.scheduler.declare(None)
        if stale and self.clockwork.term is not None:
            await self.clockwork.scheduler.once(self.clockwork.term)
        else:
            await self.clockwork.at(now)


class Simulation:
    """Runs the two until the end, and compares."""

    def __init__(self, url: str, *, seed: int, days: int) -> None:
        self.rng = random.Random(seed)
        self.samples = samples(seed, BEGIN, days)
        self.declared = [_terms(sample) for sample in self.samples]
        self.end = BEGIN + timedelta(days=days)
        self.now = BEGIN
        self.tally: Counter[str] = Counter()
        database = Database(url)
        self.watch = Clockwork(FragileLink(database))
        self.peers = [Process(database, self.declared) for _ in range(2)]

    async def run(self) -> None:
        """Raises AssertionError for an occurrence that is lost, doubled, or told wrongly."""
        await self.watch.timetable.put(self.declared, replace=True, now=BEGIN)
        while self.now < self.end:
            await self._pass_time()
            await asyncio.gather(self._look(), self._meddle())
            if self.rng.random() < 0.2:
                await self.watch.end_jobs()
        await self._settle()
        await self._compare(fires(self.samples, BEGIN, self.now))

    async def close(self) -> None:
        for link in (self.watch.link, *(peer.link for peer in self.peers)):
            await link.close()

    async def _pass_time(self) -> None:
        """To the next occurrence, or past some of them while nobody looks."""
        self.tally["looks"] += 1
        seconds = await self.watch.timetable.next_fire(now=self.now)
        until_next = self.end - self.now if seconds is None else timedelta(seconds=seconds)
        if self.rng.random() < 0.004:
            self.tally["downtimes"] += 1
            until_next += timedelta(hours=26 * self.rng.random() ** 2)
        # One that is overdue waits for somebody who leads.
        self.now += max(until_next, self.rng.choice([SECOND, LEASE + SECOND])) + SECOND * self.rng.random()

    async def _look(self) -> None:
        rng = self.rng
        moment = self.now
        if rng.random() < 0.01:
            self.tally["clock steps back"] += 1
            moment -= timedelta(hours=rng.random())
        looks = []
        for peer in rng.sample(self.peers, 2):
            chance = rng.random()
            if chance < 0.05:
                self.tally["absent"] += 1
                continue
            # Somebody else's lease lapses while the other one is at it.
            late = LEASE + SECOND if rng.random() < 0.1 else timedelta(0)
            looks.append(self._live(peer, moment + late, stale=chance < 0.1))
        await asyncio.gather(*looks)

    async def _meddle(self) -> None:
        """Somebody does something to a schedule while the two are at it."""
        if self.rng.random() >= 0.05:
            return
        sample = self.rng.choice([sample for sample in self.samples if not sample.faithful])
        timetable, id = self.watch.timetable, sample.id
        deed = self.rng.choice(["pause", "resume", "resume", "trigger", "change"])
        self.tally[deed] += 1
        match deed:
            case "pause":
                await timetable.pause_schedule(id, by="somebody", now=self.now)
            case "resume":
                await timetable.resume_schedule(id, now=self.now)
            case "trigger":
                await timetable.trigger(id, job_id=uuid7(), now=self.now)
            case _:
                changed = replace(_terms(sample), priority=self.rng.randrange(100))
                await timetable.put([changed], replace=True, now=self.now)

    async def _live(self, peer: Process, moment: datetime, *, stale: bool) -> None:
        """Let one look, or die meanwhile."""
        left = self.rng.randint(1, 5) if self.rng.random() < 0.03 else 0
        fate: Fate = self.rng.choice(["before", "after"])
        cut = self.rng.random() < 0.01

        def fate_of(_: str) -> Fate:
            nonlocal left
            left -= 1
            return fate if left == 0 else None

        peer.link.fate = fate_of
        self.tally["stale looks"] += stale
        try:
            if cut:
                self.tally["cut off"] += 1
                async with asyncio.timeout(self.rng.random() * 0.01):
                    await peer.look(moment, stale=stale)
            else:
                await peer.look(moment, stale=stale)
        except (Killed, TimeoutError) as death:
            self.tally[f"killed {death}" if isinstance(death, Killed) else "killed within"] += 1
            peer.begin(declaring=self.rng.random() < 0.25)

    async def _settle(self) -> None:
        """Let everybody live, and everything that waits for its turn have it."""
        for sample in self.samples:
            await self.watch.timetable.resume_schedule(sample.id, now=self.now)
        for _ in range(1000):
            self.now += 2 * LEASE
            await self.watch.end_jobs()
            for peer in self.peers:
                peer.link.fate = lambda _: None
                await peer.look(self.now, stale=False)
            seconds = await self.watch.timetable.next_fire(now=self.now)
            # What waits for room is looked at each second.
            if seconds is None or seconds > 2:
                return
        raise AssertionError("some occurrences were never decided")

    async def _compare(self, expected: Mapping[str, Sequence[datetime]]) -> None:
        self.tally["occurrences"] = sum(map(len, expected.values()))
        rows = await query(self.watch.link, "select * from jobd.schedule_runs order by schedule_id, fire_at")
        of: dict[str, list[Any]] = {sample.id: [] for sample in self.samples}
        for row in rows:
            if row["reason"] != "triggered":
                of[row["schedule_id"]].append(row)
            self.tally[f"{row['outcome']} {row['reason'] or ''}".strip()] += row["count"]
        for sample in self.samples:
            _compare_one(sample, of[sample.id], expected[sample.id])
        await self._compare_jobs(rows)

    async def _compare_jobs(self, rows: Sequence[Any]) -> None:
        """Each occurrence that ran has one job, made when it was due, and there is no other."""
        jobs = await query(self.watch.link, "select id, created_at, headers from jobd.all_jobs")
        ran = {row["job_id"]: (row["schedule_id"], row["fire_at"]) for row in rows if row["outcome"] == "ran"}
        assert len(jobs) == len(ran)
        for job in jobs:
            id, fire_at = ran[job["id"]]
            headers = json.loads(job["headers"])
            assert (headers["schedule"], datetime.fromisoformat(headers["fire_at"])) == (id, fire_at)
            assert job["created_at"] >= fire_at


def _compare_one(sample: Sample, rows: Sequence[Any], expected: Sequence[datetime]) -> None:
    """The rows cover the expected occurrences, one after the other, and nothing else."""
    ran = sum(row["outcome"] == "ran" for row in rows)
    place = 0
    for row in rows:
        where = f"{sample}: {dict(row)}, expected {expected[place : place + 3]}"
        assert expected[place : place + 1] == [row["fire_at"]], where
        place += row["count"]
        assert expected[place - 1] == row["last_at"], where
        assert row["outcome"] == "ran" or row["reason"], where
        assert row["outcome"] != "ran" or (row["count"], row["reason"]) == (1, None), where
        if sample.faithful and "max_runs" not in sample.options:
            assert row["outcome"] == "ran", where
    most = sample.options.get("max_runs")
    assert place == len(expected) or ran == most, f"{sample}: lost {expected[place:]}"
    assert most is None or ran <= most


def _terms(sample: Sample) -> Terms:
    return terms(
        sample.id,
        sample.when,
        "tick",
        owner="code",
        now=BEGIN,
        tz=sample.tz,
        dst=sample.dst,
        **sample.options,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.engine.schedule_simulation", description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun = time.monotonic()
    with running_server() as server:
        server.execute("create database simulated")
        server.migrate("simulated")
        tally = asyncio.run(_simulated(server.dsn("simulated"), options.seed, options.days))
    print(*(f"{number:>9,}  {what}" for what, number in sorted(tally.items())), sep="\n")
    print(f"{time.monotonic() - begun:>9,.0f}  seconds; nothing lost, nothing doubled")
    if tally["occurrences"] > MOST_FIRES_A_YEAR * max(options.days, 365) / 365:
        sys.exit("more occurrences than meant")


async def _simulated(url: str, seed: int, days: int) -> Counter[str]:
    simulation = Simulation(url, seed=seed, days=days)
    try:
        await simulation.run()
    finally:
        await simulation.close()
    return simulation.tally


if __name__ == "__main__":
    main()
