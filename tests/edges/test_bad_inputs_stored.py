"""The table of bad inputs, row by row: what only the database, or a worker at run time, can refuse."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest

from jobd import JobContext, Jobs, Snooze
from jobd.door import Database, Link
from jobd.job import FinishedRun, JobState
from jobd.store import Store
from tests.edges.bad_inputs import read_rows
from tests.factories import make_job
from tests.signals import eventually

ROWS = read_rows()

ID = UUID("0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10")
OTHER = UUID("0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f11")


@pytest.fixture
async def door(direct_database_url: str) -> AsyncIterator[Link]:
    link = Link(Database(direct_database_url))
    yield link
    await link.close()


@pytest.fixture
async def jobs(database_url: str) -> AsyncIterator[Jobs]:
    async with Jobs(database_url) as jobs:
        yield jobs


async def id_of_another_kind(jobs: Jobs, door: Link) -> Any:
    await jobs.enqueue("resize", {}, id=ID)
    return await jobs.enqueue("report", {}, id=ID)


async def cancel_ended(jobs: Jobs, door: Link) -> Any:
    return await jobs.cancel(await make_job(door, id=ID, state="succeeded"))


async def retry_waiting(jobs: Jobs, door: Link) -> Any:
    return await jobs.retry(await make_job(door, id=ID, state="scheduled"))


async def retry_not_kept(jobs: Jobs, door: Link) -> Any:
    await make_job(door, id=ID, state="running", queue="pings")
    await Store(door).succeed_tersely([FinishedRun(ID, 1, JobState.SUCCEEDED)])
    return await jobs.retry(ID)


async def reschedule_running(jobs: Jobs, door: Link) -> Any:
    return await jobs.reschedule(await make_job(door, id=ID, state="running"), priority=3)


async def delete_running(jobs: Jobs, door: Link) -> Any:
    return await jobs.delete(await make_job(door, id=ID, state="running"))


async def move_running(jobs: Jobs, door: Link) -> Any:
    return await jobs.move(await make_job(door, id=ID, state="running"), "slow")


async def retry_with_taken_key(jobs: Jobs, door: Link) -> Any:
    await make_job(door, id=ID, state="dead", unique_key="order-17")
    await make_job(door, id=OTHER, state="ready", unique_key="order-17")
    return await jobs.retry(ID)


async def enqueue_with_held_key(jobs: Jobs, door: Link) -> Any:
    await make_job(door, id=OTHER, state="running", unique_key="order-17")
    return await jobs.enqueue("noop", {}, unique_key="order-17", on_conflict="reject")


async def enqueue_one_key_twice(jobs: Jobs, door: Link) -> Any:
    return await jobs.enqueue_many(
        "noop", [{}, {}], unique_key=lambda payload: "order-17", on_conflict="reject"
    )


async def wait_too_short(jobs: Jobs, door: Link) -> Any:
    return await jobs.wait(await make_job(door, id=ID, state="scheduled"), timeout="1ms")


async def tenant_full(jobs: Jobs, door: Link) -> Any:
    connection = await door.opened()
    await connection.execute("insert into jobd.tenants (id, max_pending) values ('acme', 2)")
    await jobs.enqueue("noop", {}, tenant_id="acme")
    return await jobs.enqueue_many("noop", [{}] * 3, tenant_id="acme")


async def sql_tenant_full(jobs: Jobs, door: Link) -> Any:
    connection = await door.opened()
    await connection.execute("insert into jobd.tenants (id, max_pending) values ('acme', 0)")
    return await connection.fetch("select * from jobd.enqueue('noop', tenant_id => 'acme')")


async def sql_kind(jobs: Jobs, door: Link) -> Any:
    connection = await door.opened()
    return await connection.fetch("select * from jobd.enqueue('send mail')")


async def sql_concurrency_key(jobs: Jobs, door: Link) -> Any:
    connection = await door.opened()
    return await connection.fetch("select * from jobd.enqueue('noop', concurrency_key => '')")


async def sql_drop(jobs: Jobs, door: Link) -> Any:
    connection = await door.opened()
    return await connection.fetch("select * from jobd.enqueue('noop', deadline_policy => 'drop')")


Act = Callable[[Jobs, Link], Awaitable[Any]]

REFUSED: dict[str, tuple[Act, tuple[str, ...]]] = {
    "id-of-another-kind": (id_of_another_kind, (str(ID), "another kind", "leave id out")),
    "job-unknown": (lambda jobs, door: jobs.get(ID), (str(ID), "history_retention")),
    "cancel-ended": (cancel_ended, (str(ID), "succeeded", "a job that has not ended")),
    "retry-waiting": (retry_waiting, (str(ID), "scheduled", "a job that has ended")),
    "retry-not-kept": (retry_not_kept, (str(ID), "succeeded", "'pings'", "queues.pings.keep", "anew")),
    "reschedule-running": (reschedule_running, (str(ID), "running", "a waiting job")),
    "delete-running": (delete_running, (str(ID), "running", "cancel it first")),
    "move-running": (move_running, (str(ID), "running", "a waiting job")),
    "unique-key-rejected": (enqueue_with_held_key, ("'order-17'", str(OTHER), "on_conflict='keep'")),
    "unique-key-twice": (enqueue_one_key_twice, ("'order-17'", "twice in this call", "leave one out")),
    "unique-key-taken": (retry_with_taken_key, (str(ID), "'order-17'", str(OTHER), "cancel that one")),
    "wait-timeout": (wait_too_short, (str(ID), "scheduled", "wait again")),
    "tenant-full": (tenant_full, ("'acme'", "max_pending is 2", "1 job waiting", "2 of the new ones")),
    "sql-tenant-full": (sql_tenant_full, ("'acme'", "0 jobs waiting", "max_pending")),
    "sql-concurrency-key": (sql_concurrency_key, ("concurrency_key", "0 characters", "1 to 500")),
    "sql-drop": (sql_drop, ("deadline_policy", "'default'", "late by how much")),
    "sql-kind": (sql_kind, ("kind", "'send mail'", "at most 99 letters")),
}


@pytest.mark.parametrize("row", REFUSED)
async def test_it_is_refused_in_words_that_name_job_state_and_remedy(row: str, jobs: Jobs, door: Link):
    act, names = REFUSED[row]
    with pytest.raises(Exception) as refusal:
        await act(jobs, door)
    ROWS[row].check(refusal.type.__name__, str(refusal.value), *names)


@pytest.mark.parametrize("row", ["schema-missing"])
async def test_an_enqueue_before_the_migration_says_what_to_run(row: str, empty_database_url: str):
    async with Jobs(empty_database_url) as jobs:
        with pytest.raises(Exception) as refusal:
            await jobs.enqueue("noop", {})
    ROWS[row].check(refusal.type.__name__, str(refusal.value), "no jobd schema", "jobd migrate")


@pytest.mark.parametrize("row", ["unique-key-held"])
async def test_a_unique_key_that_is_held_names_the_job_that_stands_for_the_new_one(row: str, jobs: Jobs):
    await jobs.enqueue("noop", {}, unique_key="order-17", id=ID)
    answer = await jobs.enqueue("noop", {}, unique_key="order-17")
    ROWS[row].check(type(answer).__name__, str(answer), str(ID))


@pytest.mark.parametrize("row", ["connection-blocking"])
async def test_a_blocking_connection_is_sent_to_the_sync_client(
    row: str, jobs: Jobs, direct_database_url: str
):
    with psycopg.connect(direct_database_url) as connection, pytest.raises(Exception) as refusal:
        await jobs.enqueue("noop", {}, connection=connection)
    ROWS[row].check(refusal.type.__name__, str(refusal.value), "psycopg.Connection", "use jobs.sync")


@pytest.mark.parametrize("row", ["connection-asyncio"])
async def test_an_asyncio_connection_is_sent_to_the_client_that_awaits(
    row: str, jobs: Jobs, direct_database_url: str
):
    connection = await asyncpg.connect(direct_database_url)
    with pytest.raises(Exception) as refusal:
        jobs.sync.enqueue("noop", {}, connection=connection)
    await connection.close()
    ROWS[row].check(refusal.type.__name__, str(refusal.value), "asyncpg.Connection", "await jobs.enqueue")


async def resize(key: str) -> str:
    return key


async def returns_nul() -> dict[str, str]:
    return {"name": "a\0b"}


async def returns_much() -> str:
    return "x" * 2_000_000


async def two_transactions(ctx: JobContext) -> None:
    for _ in range(2):
        ctx.transaction()


async def snoozes_badly() -> None:
    raise Snooze("soon")


RUNS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "payload-misfit-at-run": (resize, {"kee": "a.png"}, ("$.kee", "did you mean 'key'?")),
    "result-nul": (returns_nul, {}, ("a␀b",)),
    "result-too-large": (returns_much, {}, ("truncated", "2000002")),
    "transaction-twice": (two_transactions, {}, ("two_transactions", "one block")),
    "snooze-nonsense": (snoozes_badly, {}, ("Snooze", "'soon'", '"15m"')),
}


@pytest.mark.parametrize("row", RUNS)
async def test_a_run_records_what_was_wrong_and_ends_in_a_state(row: str, database_url: str):
    function, payload, names = RUNS[row]
    async with Jobs(database_url) as jobs:
        # Enqueued before the handler is known here, so that nothing refuses the payload earlier.
        job = await jobs.enqueue(function.__name__, payload, max_attempts=1)
        jobs.handler(function)
        async with jobs.running(concurrency=1, migrate="off"):
            ended = await jobs.wait(job.id, timeout=20)
    said = ended.reason or json.dumps(ended.result, ensure_ascii=False)
    ROWS[row].check(ended.state.value, said, *names)


@pytest.mark.parametrize("row", ["kind-unregistered"])
async def test_a_job_without_a_handler_here_goes_back_unburned(row: str, database_url: str):
    async with Jobs(database_url) as jobs:
        job = await jobs.enqueue("newer", {})
        async with jobs.running(migrate="off"):
            found = await eventually(lambda: jobs.get(job.id), until=lambda job: job.state == "scheduled")
    ROWS[row].check(found.state.value, f"attempt {found.attempt}")
