"""Unique keys: how long one is held, what comes of a conflict, and what comes of a job that returns."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from jobd.client import Client
from jobd.door import Database, Link
from jobd.errors import IdTaken, Refused, Transient, UniqueKeyTaken
from jobd.job import Claimed, Enqueued, FinishedRun, JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, claim_all, make_job, make_worker, new_job, query, scalar
from tests.store.conftest import Ear, Held

HOUR = timedelta(hours=1)


def waiting(**fields: Any) -> Any:
    return new_job(**{"unique_key": "k", "unique_for": "waiting", **fields})


async def claim(door: Link, count: int = 1) -> list[Claimed]:
    worker = await make_worker(door)
    return await claim_all(Store(door), worker, rooms={"default": count})


async def retry_later(store: Store, run: Claimed) -> None:
    await store.finish([FinishedRun(run.id, run.claim_no, JobState.SCHEDULED, delay=HOUR, error="{}")])


async def go_back(store: Store, run: Claimed) -> None:
    await store.finish([FinishedRun(run.id, run.claim_no, JobState.READY)])


async def release(store: Store, run: Claimed) -> None:
    await store.release([(run.id, run.claim_no)])


async def rescue(store: Store, run: Claimed) -> None:
    await query(store.door, "delete from jobd.workers")
    await store.rescue(batch=10, crash_limit=3)


returning = pytest.mark.parametrize("back", [retry_later, go_back, release, rescue])


async def running_with_key(door: Link, **fields: Any) -> Claimed:
    await Store(door).enqueue(waiting(**fields))
    (run,) = await claim(door)
    return run


async def labels(door: Link) -> dict[UUID, str]:
    """By waiting job: for how long it holds its key."""
    rows = await query(
        door, "select id, unique_for from jobd.jobs where state in ('scheduled', 'ready') order by id"
    )
    return dict(rows)


# Held while it waits.


async def test_a_key_for_waiting_is_held_until_the_job_is_claimed(door: Link, store: Store):
    first = await store.enqueue(waiting())
    assert await store.enqueue(waiting()) == Enqueued(first.id, False)
    (run,) = await claim(door)
    second = await store.enqueue(waiting())
    assert second.created
    assert (await store.enqueue(waiting())).id == second.id
    await store.succeed([FinishedRun(run.id, run.claim_no, JobState.SUCCEEDED)])
    assert (await store.enqueue(waiting())).id == second.id


async def test_a_delayed_job_holds_the_key_before_and_after_it_is_staged(store: Store):
    now = datetime.now(UTC)
    first = await store.enqueue(waiting(delay=SECOND), now=now)
    assert (await store.enqueue(waiting())).id == first.id
    assert await store.stage(batch=10, now=now + HOUR) == 1
    assert (await store.enqueue(waiting())).id == first.id


@pytest.mark.parametrize("end", ["cancel", "delete", "expire"])
async def test_a_job_that_goes_while_it_waits_frees_the_key(door: Link, store: Store, end: str):
    past = {"deadline_policy": "drop", "delay_tolerance": SECOND} if end == "expire" else {}
    first = await store.enqueue(waiting(**past))
    if end == "cancel":
        await store.cancel(first.id, reason="x")
    elif end == "delete":
        await store.delete(first.id)
    else:
        assert (await store.expire(batch=1, now=datetime.now(UTC) + HOUR)).total() == 1
    assert (await store.enqueue(waiting())).created


@returning
async def test_a_job_that_returns_holds_its_key_again(door: Link, store: Store, back: Any):
    run = await running_with_key(door)
    await back(store, run)
    assert await labels(door) == {run.id: "waiting"}
    assert await store.enqueue(waiting()) == Enqueued(run.id, False)


@returning
async def test_a_job_whose_key_was_taken_returns_without_it(door: Link, store: Store, back: Any):
    run = await running_with_key(door)
    sibling = await store.enqueue(waiting())
    lost: list[UUID] = []
    await back(Store(door, on_key_lost=lost.append), run)
    assert await labels(door) == {run.id: "lost", sibling.id: "waiting"}
    assert lost == [run.id]
    assert (await store.enqueue(waiting())).id == sibling.id


async def test_a_loss_is_told_once_and_stays(door: Link, store: Store):
    run = await running_with_key(door)
    sibling = await store.enqueue(waiting())
    await release(store, run)
    await store.delete(sibling.id)
    lost: list[UUID] = []
    (again,) = await claim(door)
    await release(Store(door, on_key_lost=lost.append), again)
    assert await labels(door) == {run.id: "lost"}
    assert lost == []
    assert (await store.enqueue(waiting())).created


async def test_the_sibling_that_is_running_too_holds_the_key_when_it_returns(door: Link, store: Store):
    first = await running_with_key(door)
    second = await running_with_key(door)
    await release(store, first)
    await release(store, second)
    assert await labels(door) == {first.id: "lost", second.id: "waiting"}


async def test_a_batch_with_one_that_lost_its_key_ends_as_a_whole(door: Link, store: Store):
    run = await running_with_key(door)
    sibling = await store.enqueue(waiting())
    for _ in range(499):
        await store.enqueue_new(new_job())
    for number in range(100):
        await store.enqueue(waiting(unique_key=f"other {number}"))
    runs = [run, *[other for other in await claim(door, 600) if other.id != sibling.id]]
    assert len(runs) == 600
    ends = await store.finish([FinishedRun(r.id, r.claim_no, JobState.READY) for r in runs])
    assert set(ends) == {r.id for r in runs}
    found = await labels(door)
    assert [id for id, label in found.items() if label == "lost"] == [run.id]
    assert sum(label == "waiting" for label in found.values()) == 100


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_batch_waits_for_nobody_who_is_taking_a_key(door: Link, store: Store, held: Held, end: str):
    """An application's transaction may stay open for as long as it likes."""
    run = await running_with_key(door)
    for _ in range(499):
        await store.enqueue_new(new_job())
    runs = [run, *await claim(door, 499)]
    sibling = await Store(held).enqueue(waiting())
    assert sibling.created
    async with asyncio.timeout(10):
        ends = await store.finish([FinishedRun(r.id, r.claim_no, JobState.READY) for r in runs])
    assert len(ends) == 500
    await (held.commit() if end == "commit" else held.rollback())
    assert (await labels(door))[run.id] == "lost"
    answer = await store.enqueue(waiting())
    assert (answer.id == sibling.id) == (end == "commit")
    assert answer.created == (end == "rollback")


async def test_an_open_transaction_that_took_nothing_costs_a_job_nothing(
    door: Link, store: Store, held: Held
):
    first = await store.enqueue(waiting())
    assert (await Store(held).enqueue(waiting())).id == first.id
    (run,) = await claim(door)
    await release(store, run)
    assert await labels(door) == {first.id: "waiting"}
    await held.commit()
    assert (await store.enqueue(waiting())).id == first.id


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_job_that_stands_for_a_change_starts_after_the_change(
    door: Link, store: Store, held: Held, end: str
):
    """Who changes the world and then enqueues finds a job that waits: its run has to see the change."""
    first = await store.enqueue(waiting())
    other = await store.enqueue(waiting(unique_key="other"))
    await Store(held).enqueue_new(new_job(queue="the change"))
    assert await Store(held).enqueue(waiting()) == Enqueued(first.id, False)
    # Others may keep it, too, and nobody waits for anybody.
    assert await store.enqueue(waiting()) == Enqueued(first.id, False)
    assert [run.id for run in await claim(door, 10)] == [other.id]
    await (held.commit() if end == "commit" else held.rollback())
    assert [run.id for run in await claim(door, 10)] == [first.id]


async def test_a_change_while_the_waiting_job_is_being_claimed_makes_a_new_one(
    door: Link, store: Store, held: Held, database_url: str
):
    first = await store.enqueue(waiting())
    (run,) = await Store(held).claim(await make_worker(door), rooms={"default": 1})
    link = Link(Database(database_url))
    transaction = (await link.opened()).transaction()
    await transaction.start()
    await Store(link).enqueue_new(new_job(queue="the change"))
    answer = await held.commit_under(Store(link).enqueue(waiting()))
    assert answer.created
    assert answer.id != first.id
    # The run is not held up by the open transaction.
    async with asyncio.timeout(10):
        await store.succeed([FinishedRun(run.id, run.claim_no, JobState.SUCCEEDED)])
    await transaction.commit()
    await link.close()
    assert [again.id for again in await claim(door, 10)] == [answer.id]


async def test_who_waited_in_vain_for_a_key_holds_up_nobody(
    door: Link, store: Store, held: Held, database_url: str
):
    """The second took nothing when the first had committed; its own transaction stays open."""
    await running_with_key(door)
    first = await Store(held).enqueue(waiting())
    link = Link(Database(database_url))
    connection = await link.opened()
    async with connection.transaction():
        second = await held.commit_under(Store(link).enqueue(waiting()))
        assert second == Enqueued(first.id, False)
        (run,) = await claim(door)
        await release(store, run)
        assert (await labels(door))[first.id] == "waiting"
    await link.close()


async def test_an_enqueue_waits_for_a_return_that_is_under_way_and_finds_the_job(
    door: Link, store: Store, held: Held
):
    run = await running_with_key(door)
    await release(Store(held), run)
    assert await held.commit_under(store.enqueue(waiting())) == Enqueued(run.id, False)


async def test_an_old_snapshot_takes_no_key_of_a_job_that_returned(
    door: Link, store: Store, database_url: str
):
    run = await running_with_key(door)
    link = Link(Database(database_url))
    connection = await link.opened()
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    await connection.fetchval("select count(*) from jobd.jobs")
    await release(store, run)
    with pytest.raises(Transient):
        await Store(link).enqueue(waiting())
    await transaction.rollback()
    await link.close()
    assert await labels(door) == {run.id: "waiting"}


async def test_a_key_counts_per_tenant_kind_and_scope(store: Store):
    assert (await store.enqueue(waiting())).created
    assert (await store.enqueue(waiting(tenant_id="t"))).created
    assert (await store.enqueue(waiting(kind="other"))).created
    assert (await store.enqueue(waiting(unique_key="other"))).created
    assert (await store.enqueue(new_job(unique_key="k"))).created
    assert (await store.enqueue(waiting(unique_for="1 hour"))).created
    assert not (await store.enqueue(waiting(tenant_id="t"))).created


@pytest.mark.parametrize("scope", ["waiting", "1 hour"])
async def test_many_clients_with_one_key_make_one_job(crowd: list[Link], scope: str):
    now = datetime.now(UTC)
    for at in (now, now + HOUR):  # the second time, the row of the key is there
        jobs = [waiting(unique_for=scope) for _ in range(20)]
        answers = await asyncio.gather(
            *[Store(crowd[n % 4]).enqueue(job, now=at) for n, job in enumerate(jobs)]
        )
        assert sum(answer.created for answer in answers) == 1
        assert len({answer.id for answer in answers}) == 1
        await claim(crowd[0])


# An operator's retry.


async def test_a_retry_takes_the_key_of_a_waiting_job_again(door: Link, store: Store):
    run = await running_with_key(door)
    await store.finish([FinishedRun(run.id, run.claim_no, JobState.DEAD)])
    await store.retry(run.id)
    assert (await store.enqueue(waiting())).id == run.id


async def test_a_retry_is_refused_while_another_job_waits_with_the_key(door: Link, store: Store):
    run = await running_with_key(door)
    await store.finish([FinishedRun(run.id, run.claim_no, JobState.DEAD)])
    sibling = await store.enqueue(waiting())
    with pytest.raises(UniqueKeyTaken) as taken:
        await store.retry(run.id)
    assert (taken.value.job_id, taken.value.holder, taken.value.unique_key) == (run.id, sibling.id, "k")
    await claim(door)
    await store.retry(run.id)
    assert (await store.enqueue(waiting())).id == run.id


async def test_a_retry_waits_for_who_is_taking_the_key(door: Link, store: Store, held: Held):
    run = await running_with_key(door)
    await store.finish([FinishedRun(run.id, run.claim_no, JobState.DEAD)])
    await Store(held).enqueue(waiting())
    with pytest.raises(UniqueKeyTaken):
        await held.commit_under(store.retry(run.id))


# A window.


async def test_a_window_outlives_the_job(door: Link, store: Store):
    now = datetime.now(UTC)
    first = await store.enqueue(waiting(unique_for="3600 seconds"), now=now)
    (run,) = await claim(door)
    await store.succeed([FinishedRun(run.id, run.claim_no, JobState.SUCCEEDED)])
    later = now + HOUR - SECOND
    assert await store.enqueue(waiting(unique_for="1 hour"), now=later) == Enqueued(first.id, False)
    second = await store.enqueue(waiting(unique_for="1 hour"), now=now + HOUR)
    assert second.created
    assert (await store.enqueue(waiting(unique_for="1 hour"), now=now + HOUR)).id == second.id


async def test_a_window_does_not_stop_its_job_from_running_again(door: Link, store: Store, reader: Reader):
    first = await store.enqueue(waiting(unique_for="1 hour"))
    (run,) = await claim(door)
    await store.finish([FinishedRun(run.id, run.claim_no, JobState.DEAD)])
    await store.retry(first.id)
    (run,) = await claim(door)
    await release(store, run)
    assert (await reader.get(first.id)).unique_for == "1h"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("3s", "3s"), ("250ms", "250ms"), ("90m", "1h30m"), ("7d", "7d"), ("1w", "7d"), ("36525d", "36525d"),
        ("1d2h", "1d2h"), ("30h", "1d6h"), ("1 month", "1 mon"), ("waiting", "waiting"), ("unfinished", None),
    ],
)  # fmt: skip
async def test_a_window_is_shown_in_one_spelling(store: Store, reader: Reader, given: str, shown: str | None):
    job = await store.enqueue(waiting(unique_for=given))
    assert (await reader.get(job.id)).unique_for == shown


# Forgetting.


async def test_keys_that_nobody_holds_are_forgotten(door: Link, store: Store):
    now = datetime.now(UTC)
    live = await store.enqueue(waiting(unique_key="live"), now=now)
    gone = await store.enqueue(waiting(unique_key="gone"), now=now)
    await store.delete(gone.id)
    await store.enqueue(waiting(unique_key="over", unique_for="1 minute"), now=now)
    await store.enqueue(waiting(unique_key="on", unique_for="1 hour"), now=now)
    assert await store.prune_keys(batch=10, now=now) == 0
    later = now + 61 * SECOND
    assert await store.prune_keys(batch=2, now=later) == 2
    assert await store.prune_keys(batch=10, now=later) == 1
    keys = await query(door, "select unique_key from jobd.unique_keys order by 1")
    assert [row["unique_key"] for row in keys] == ["live", "on"]
    # It is not looked at again before twice the time.
    assert await store.prune_keys(batch=10, now=later + 60 * SECOND) == 0
    assert (await store.enqueue(waiting(unique_key="live"), now=later)).id == live.id
    assert (await store.enqueue(waiting(unique_key="gone"), now=later)).created


async def test_a_job_that_returns_while_keys_are_forgotten_keeps_its_own(
    door: Link, store: Store, held: Held
):
    run = await running_with_key(door)
    assert await Store(held).prune_keys(batch=10, now=datetime.now(UTC) + HOUR) == 1
    await release(store, run)
    assert await labels(door) == {run.id: "waiting"}
    await held.commit()
    assert (await store.enqueue(waiting())).id == run.id


async def test_keys_are_looked_up_by_their_index_whatever_the_statistics_say(
    door: Link, held: Held, direct_database_url: str
):
    link = Link(Database(direct_database_url))
    await query(link, "vacuum analyze jobd.unique_keys")
    await link.close()
    worker = await make_worker(door)
    inside = Store(held)
    for n in range(3):
        await inside.enqueue(waiting(unique_key=f"k{n}"))
        await inside.enqueue(waiting(unique_key="k0", on_conflict="replace"))
        runs = await inside.claim(worker, rooms={"default": 10})
        await inside.release([(run.id, run.claim_no) for run in runs])
    scans = "select seq_scan, idx_scan from pg_stat_xact_user_tables where relname = 'unique_keys'"
    (row,) = await query(held, scans)
    await held.rollback()
    assert row["seq_scan"] == 0
    assert row["idx_scan"] > 5


@pytest.mark.parametrize("tenant", [None, "tenant 7"])
async def test_a_look_for_a_key_reads_no_row_of_another_tenant(
    door: Link, held: Held, direct_database_url: str, tenant: str | None
):
    """All tenants may use one key, as a digest of each does."""
    link = Link(Database(direct_database_url))
    await query(
        link,
        """insert into jobd.unique_keys
           select 'k', 'noop', nullif('tenant ' || n, 'tenant 0'), s.scope, gen_random_uuid(), now(), now()
             from generate_series(0, 2000) n, unnest(array['waiting', 'window']) as s (scope)""",
    )
    await query(link, "vacuum analyze jobd.unique_keys")
    await link.close()
    worker = await make_worker(door)
    inside = Store(held)
    await inside.enqueue(waiting(tenant_id=tenant))
    runs = await inside.claim(worker, rooms={"default": 10})
    await inside.release([(run.id, run.claim_no) for run in runs])
    assert not (await inside.enqueue(waiting(tenant_id=tenant))).created
    await inside.enqueue(waiting(tenant_id=tenant, unique_for="1 hour"))
    reads = "select idx_tup_fetch, seq_scan from pg_stat_xact_user_tables where relname = 'unique_keys'"
    (row,) = await query(held, reads)
    await held.rollback()
    assert row["seq_scan"] == 0
    assert 5 < row["idx_tup_fetch"] < 50


# Conflicts.


@pytest.mark.parametrize("scope", ["unfinished", "waiting", "1 hour"])
async def test_replace_gives_the_waiting_job_payload_time_and_priority(
    store: Store, reader: Reader, ear: Ear, door: Link, scope: str
):
    await make_worker(door, sleeping_until=datetime.now(UTC) + HOUR)
    first = await store.enqueue(
        waiting(unique_for=scope, delay=HOUR, delay_tolerance=SECOND, payload="1", max_attempts=3)
    )
    now = datetime.now(UTC)
    change = waiting(unique_for=scope, on_conflict="replace", priority=7, payload='{"n": 2}')
    assert await store.enqueue(change, now=now) == Enqueued(first.id, False, True)
    job = await reader.get(first.id)
    assert (job.state, job.payload, job.priority, job.run_at) == (JobState.READY, {"n": 2}, 7, now)
    assert (job.deadline_at, job.max_attempts) == (now + SECOND, 3)
    assert await ear.heard() == [("jobd_wake", "default")]


async def test_replace_takes_the_concurrency_key_along_with_the_payload(store: Store, reader: Reader):
    first = await store.enqueue(waiting(delay=HOUR, concurrency_key="user:7"))
    await store.enqueue(waiting(on_conflict="replace", concurrency_key="user:8"))
    assert (await reader.get(first.id)).concurrency_key == "user:8"


async def test_replace_with_a_delay_puts_the_job_off(store: Store, reader: Reader):
    """Debounce."""
    now = datetime.now(UTC)
    first = await store.enqueue(waiting(delay=5 * SECOND, on_conflict="replace"), now=now)
    for n in range(1, 4):
        later = now + n * SECOND
        answer = await store.enqueue(waiting(delay=5 * SECOND, on_conflict="replace"), now=later)
        assert answer == Enqueued(first.id, False, True)
    job = await reader.get(first.id)
    assert (job.state, job.run_at) == (JobState.SCHEDULED, now + 8 * SECOND)


@pytest.mark.parametrize(("scope", "created"), [("unfinished", False), ("waiting", True), ("1 hour", False)])
async def test_replace_leaves_a_running_job_alone(
    door: Link, store: Store, reader: Reader, scope: str, created: bool
):
    first = await store.enqueue(waiting(unique_for=scope, payload="1"))
    await claim(door)
    answer = await store.enqueue(waiting(unique_for=scope, payload="2", on_conflict="replace"))
    assert (answer.created, answer.replaced) == (created, False)
    assert (answer.id == first.id) == (not created)
    assert (await reader.get(first.id)).payload == 1


async def test_replace_of_a_job_that_is_being_claimed_makes_a_new_one(door: Link, store: Store, held: Held):
    first = await store.enqueue(waiting())
    await Store(held).claim(await make_worker(door), rooms={"default": 1})
    answer = await held.commit_under(store.enqueue(waiting(on_conflict="replace")))
    assert answer.created
    assert answer.id != first.id


@pytest.mark.parametrize("scope", ["unfinished", "waiting", "1 hour"])
async def test_replace_holds_up_no_run_that_began_meanwhile(
    door: Link, store: Store, held: Held, database_url: str, scope: str
):
    """An update that waited in vain keeps its lock to the end of the transaction."""
    await store.enqueue(waiting(unique_for=scope))
    (run,) = await Store(held).claim(await make_worker(door), rooms={"default": 1})
    link = Link(Database(database_url))
    async with (await link.opened()).transaction():
        replacing = waiting(unique_for=scope, on_conflict="replace")
        assert not (await held.commit_under(Store(link).enqueue(replacing))).replaced
        async with asyncio.timeout(10):
            await retry_later(store, run)
    await link.close()


async def test_replace_that_waits_for_the_end_of_the_holder_makes_a_new_job(
    door: Link, store: Store, held: Held
):
    id = await make_job(door, unique_key="k")
    await Store(held).cancel(id, reason="x")
    replacing = new_job(unique_key="k", on_conflict="replace")
    assert (await held.commit_under(store.enqueue(replacing))).created


@pytest.mark.parametrize("scope", ["unfinished", "waiting", "1 hour"])
async def test_reject_names_key_and_holder_and_leaves_the_transaction_usable(
    door: Link, store: Store, held: Held, scope: str
):
    first = await store.enqueue(waiting(unique_for=scope))
    rejecting = waiting(unique_for=scope, on_conflict="reject")
    with pytest.raises(UniqueKeyTaken) as taken:
        await Store(held).enqueue(rejecting)
    assert (taken.value.job_id, taken.value.unique_key, taken.value.holder) == (None, "k", first.id)
    await Store(held).enqueue(new_job())
    await held.commit()
    assert await scalar(door, "select count(*) from jobd.jobs") == 2


@pytest.mark.parametrize("many", [False, True])
async def test_reject_holds_up_no_run_of_the_holder(
    client: Client, door: Link, store: Store, direct_database_url: str, many: bool
):
    first = await store.enqueue(waiting(kind="noop"))
    connection = await asyncpg.connect(direct_database_url)
    async with connection.transaction():
        await client.enqueue("noop", queue="the_change", connection=connection)
        options: Any = {"unique_for": "waiting", "on_conflict": "reject", "connection": connection}
        with pytest.raises(UniqueKeyTaken):
            if many:
                await client.enqueue_many("noop", [{}], unique_key=lambda payload: "k", **options)
            else:
                await client.enqueue("noop", unique_key="k", **options)
        assert [run.id for run in await claim(door, 10)] == [first.id]
    await connection.close()


async def test_reject_takes_a_key_that_is_free(store: Store):
    assert (await store.enqueue(waiting(on_conflict="reject"))).created


@pytest.mark.parametrize("scope", ["unfinished", "waiting", "1 hour"])
@pytest.mark.parametrize("policy", ["keep", "replace", "reject"])
@pytest.mark.parametrize("ended", [False, True])
async def test_a_repeat_with_its_id_is_no_conflict(
    door: Link, store: Store, scope: str, policy: str, ended: bool
):
    job = waiting(unique_for=scope, on_conflict=policy)
    assert (await store.enqueue(job)).created
    if ended:
        (run,) = await claim(door)
        await store.succeed([FinishedRun(run.id, run.claim_no, JobState.SUCCEEDED)])
    assert await store.enqueue(job) == Enqueued(job.id, False)
    assert await scalar(door, "select count(*) from jobd.all_jobs") == 1


async def test_an_id_of_another_kind_is_refused_with_any_scope(store: Store):
    job = await store.enqueue(waiting())
    with pytest.raises(IdTaken):
        await store.enqueue(waiting(id=job.id, kind="other"))


# In SQL.


async def test_sql_has_the_same_words(door: Link):
    call = """select id, created, replaced
                from jobd.enqueue('noop', unique_key => 'k', unique_for => $1, on_conflict => $2)"""
    (first,) = await query(door, call, "waiting", "keep")
    assert tuple((await query(door, call, "waiting", "replace"))[0]) == (first["id"], False, True)
    with pytest.raises(Refused, match=f"unique key 'k' is held by job {first['id']}"):
        await query(door, call, "waiting", "reject")
    (window,) = await query(door, call, "24 hours", "keep")
    assert window["created"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "unique_key => 'k', unique_for => 'while'",
            "unique_for = 'while': say 'unfinished', 'waiting', or a",
        ),
        ("unique_key => 'k', unique_for => '-1 day'", "unique_for = '-1 day'"),
        (
            "unique_key => 'k', on_conflict => 'drop'",
            "on_conflict = 'drop': say 'keep', 'replace' or 'reject'",
        ),
        ("unique_key => 'k', on_conflict => null", "on_conflict = NULL"),
        ("unique_for => 'waiting'", "unique_for = 'waiting': says how long a unique_key is held"),
        ("on_conflict => 'replace'", "on_conflict = 'replace': there is no unique_key"),
    ],
)
async def test_sql_refuses_what_means_nothing(door: Link, arguments: str, words: str):
    with pytest.raises(Refused) as refusal:
        await query(door, f"select jobd.enqueue('noop', {arguments})")
    assert str(refusal.value).startswith(words)


async def test_a_job_with_a_key_is_the_row_that_one_without_is(store: Store, door: Link):
    now = datetime.now(UTC)
    given: dict[str, Any] = {
        "queue": "mail", "kind": "send", "priority": -3, "tenant_id": "t", "use_case": "u",
        "delay_tolerance": SECOND, "deadline_policy": "drop", "max_attempts": 7, "timeout": 5 * SECOND,
        "payload": '{"a": 1}', "backoff": '{"kind": "linear"}', "headers": '{"tags": ["a"]}',
    }  # fmt: skip
    plain, keyed, many = new_job(**given), waiting(**given), waiting(**given)
    await store.enqueue(plain, now=now)
    await store.enqueue(keyed, now=now)
    await store.enqueue_keyed(many, ids=[many.id], payloads=[many.payload], unique_keys=["m"], now=now)
    text = "select to_jsonb(j) - '{id,unique_key,unique_for}'::text[] from jobd.jobs j where id = $1"
    rows = [await scalar(door, text, job.id) for job in (plain, keyed, many)]
    assert rows[0] == rows[1] == rows[2]
