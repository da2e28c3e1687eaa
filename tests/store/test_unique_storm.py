"""64 clients and one key, while jobs are staged, run, retried, given back and rescued.

A trigger of the test judges every commit: it lets them pass one at a time, and counts who holds the key of
each row that was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from jobd.door import Database, Link
from jobd.errors import JobNotFound, UniqueKeyTaken, WrongState
from jobd.fleet import Fleet
from jobd.ids import uuid7
from jobd.job import FinishedRun, JobState
from jobd.store import Store
from tests.factories import claim_all, end_runs, make_worker, new_job, query, scalar

pytestmark = pytest.mark.timeout(180)

CLIENTS = 64
CALLS = 12
WORKERS = 4
OTHERS = 400
HOUR = timedelta(hours=1)
MOMENT = timedelta(milliseconds=5)
ENDS = [JobState.SUCCEEDED, JobState.DEAD, JobState.SCHEDULED, JobState.READY]

JUDGE = """
    create table judged (scope text, state text, unfinished bigint, waiting bigint);
    create function judge() returns trigger language plpgsql as $$
    begin
        perform pg_advisory_xact_lock(1);
        insert into judged
        select coalesce(new.unique_for, 'unfinished'), new.state,
               count(*) filter (where unique_for is null),
               count(*) filter (where unique_for = 'waiting' and state in ('scheduled', 'ready'))
          from jobd.jobs where unique_key = new.unique_key;
        return null;
    end $$;
    create constraint trigger judge after insert or update on jobd.jobs deferrable initially deferred
        for each row when (new.unique_key is not null) execute function judge();
"""


@pytest.fixture
async def judged(direct_database_url: str) -> AsyncIterator[Link]:
    """A link to a database whose every commit is judged."""
    link = Link(Database(direct_database_url))
    await (await link.opened()).execute(JUDGE)
    yield link
    await link.close()


class Storm:
    """What goes on at the same time, with one set of dice each."""

    def __init__(self, url: str, *, scope: str, seed: int) -> None:
        self.database = Database(url)
        self.scope = scope
        self.seed = seed
        self.answers: set[UUID] = set()
        self.others: set[UUID] = set()
        self.lost: list[UUID] = []
        self.calling = CLIENTS

    async def client(self, number: int) -> None:
        """Enqueues with the key, alone, within a larger transaction, or among other keys; some roll back."""
        dice = random.Random(f"{self.seed}.client.{number}")
        link = Link(self.database)
        connection = await link.opened()
        calls = 0
        # Until something has happened, besides.
        while calls < CALLS or (self.scope == "waiting" and not self.lost and calls < 50 * CALLS):
            calls += 1
            job = new_job(
                unique_key="k",
                unique_for=self.scope,
                on_conflict=dice.choice(["keep", "keep", "replace", "reject"]),
                delay=dice.choice([None, MOMENT]),
            )
            with contextlib.suppress(UniqueKeyTaken):
                match dice.randrange(4):
                    case 0:
                        transaction = connection.transaction()
                        await transaction.start()
                        await Store(link).enqueue_new(new_job(queue="aside"))
                        try:
                            await Store(link).enqueue(job)
                            await connection.fetch("select")
                        finally:
                            await (transaction.rollback() if dice.random() < 0.3 else transaction.commit())
                    case 1:
                        keys = [f"{dice.randrange(20)}", "k", f"{dice.randrange(20)}"]
                        ids = [uuid7() for _ in keys]
                        async with connection.transaction():
                            await Store(link).enqueue_keyed(
                                job, ids=ids, payloads=["{}"] * 3, unique_keys=keys
                            )
                    case _:
                        self.answers.add((await Store(link).enqueue(job)).id)
        await link.close()
        self.calling -= 1

    async def worker(self, number: int) -> None:
        """Works until the clients are through and all other jobs have ended; dies now and then."""
        dice = random.Random(f"{self.seed}.worker.{number}")
        link = Link(self.database)
        store, fleet = Store(link, on_key_lost=self.lost.append), Fleet(link)
        id = await make_worker(link, lease=HOUR)
        while self.calling or self.others:
            runs = await claim_all(store, id, rooms={"default": 20})
            await store.stage(batch=100)
            if dice.random() < 0.15:
                await fleet.resign(id)
                id = await make_worker(link, lease=HOUR)
            elif dice.random() < 0.2:
                await store.release([(run.id, run.claim_no) for run in runs])
            else:
                ends = [
                    FinishedRun(
                        run.id,
                        run.claim_no,
                        JobState.SUCCEEDED if run.id in self.others else dice.choice(ENDS),
                        delay=MOMENT,
                    )
                    for run in runs
                ]
                self.others.difference_update(await end_runs(store, ends))
            await store.rescue(batch=100, crash_limit=0)
            await store.prune_keys(batch=10)
            if self.answers:
                # What may be asked for too late, or refused since another one holds the key.
                with contextlib.suppress(WrongState, JobNotFound, UniqueKeyTaken):
                    await store.retry(dice.choice(sorted(self.answers)))
        await link.close()


async def snapshots(link: Link, storm: Storm) -> set[tuple[Any, ...]]:
    """Which counts of holders were ever seen, by somebody who only looks."""
    seen: set[tuple[Any, ...]] = set()
    while storm.calling:
        for row in await query(
            link,
            """select count(*) filter (where unique_for is null),
                      count(*) filter (where unique_for = 'waiting' and state in ('scheduled', 'ready'))
                 from jobd.jobs where unique_key is not null group by unique_key""",
        ):
            seen.add(tuple(row))
    return seen


@pytest.mark.parametrize("scope", ["unfinished", "waiting"])
@pytest.mark.parametrize("judging", [True, False])
async def test_at_every_commit_a_key_has_one_holder(
    judged: Link, direct_database_url: str, scope: str, judging: bool
):
    if not judging:  # Commits that do not pass one at a time meet each other in other ways.
        await query(judged, "alter table jobd.jobs disable trigger judge")
    storm = Storm(direct_database_url, scope=scope, seed=1)
    for _ in range(OTHERS):
        job = new_job(priority=-1)
        await Store(judged).enqueue_new(job)
        storm.others.add(job.id)
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(storm.client(number))
        for number in range(WORKERS):
            group.create_task(storm.worker(number))
        looked = group.create_task(snapshots(judged, storm))
    holders = "unfinished" if scope == "unfinished" else "waiting"
    place = 0 if scope == "unfinished" else 1
    assert max(row[place] for row in looked.result()) == 1
    assert not await scalar(
        judged, "select deadlocks from pg_stat_database where datname = current_database()"
    )
    if judging:
        assert await scalar(judged, f"select max({holders}) from judged") == 1
        assert await scalar(judged, "select count(*) from judged") > CLIENTS * 2
    if scope == "waiting":
        # It did happen: jobs came back and found their key taken, and others had it again.
        labels = "select unique_for from jobd.all_jobs where id = any ($1::uuid[])"
        assert {row[0] for row in await query(judged, labels, sorted(set(storm.lost)))} == {"lost"}


async def test_the_judge_sees_two_holders(judged: Link):
    """That the check above can fail."""
    await Store(judged).enqueue(new_job(unique_key="k", unique_for="waiting"))
    await query(judged, "update jobd.unique_keys set job_id = gen_random_uuid()")
    await Store(judged).enqueue(new_job(unique_key="k", unique_for="waiting"))
    assert await scalar(judged, "select max(waiting) from judged") == 2
