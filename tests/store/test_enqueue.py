"""enqueue: nowhere -> scheduled | ready, once for an id and once for a unique key."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.errors import IdTaken, Refused
from jobd.ids import uuid7
from jobd.job import FinishedRun, JobState
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import SECOND, make_job, make_worker, new_job, query, scalar
from tests.store.conftest import Ear, Held


async def test_a_job_for_now_is_ready_at_once(store: Store, reader: Reader):
    now = datetime.now(UTC)
    enqueued = await store.enqueue(new_job(payload='{"n": 1}'), now=now)
    job = await reader.get(enqueued.id)
    assert enqueued.created
    assert (job.state, job.run_at, job.deadline_at, job.created_at) == (JobState.READY, now, now, now)
    assert (job.queue, job.kind, job.payload, job.priority) == ("default", "noop", {"n": 1}, 0)
    assert (job.attempt, job.crashes, job.generation, job.claim_no, job.errors) == (0, 0, 0, 0, [])


@pytest.mark.parametrize("when", [{"delay": 60 * SECOND}, {"run_at": datetime.now(UTC) + timedelta(days=1)}])
async def test_a_job_for_later_is_scheduled(store: Store, reader: Reader, when: dict[str, Any]):
    now = datetime.now(UTC)
    enqueued = await store.enqueue(new_job(**when), now=now)
    job = await reader.get(enqueued.id)
    assert (job.state, job.run_at) == (JobState.SCHEDULED, when.get("run_at", now + 60 * SECOND))


async def test_a_job_for_a_time_that_has_passed_is_ready(store: Store, reader: Reader):
    past = datetime.now(UTC) - timedelta(days=400)
    enqueued = await store.enqueue(new_job(run_at=past))
    job = await reader.get(enqueued.id)
    assert (job.state, job.run_at, job.deadline_at) == (JobState.READY, past, past)


async def test_everything_that_is_given_is_stored(store: Store, reader: Reader):
    given: dict[str, Any] = {
        "queue": "mail",
        "kind": "send",
        "priority": -3,
        "tenant_id": "t",
        "use_case": "u",
        "unique_key": "k",
        "concurrency_key": "c",
        "delay_tolerance": 60 * SECOND,
        "deadline_policy": "drop",
        "max_attempts": 7,
        "timeout": 5 * SECOND,
    }
    enqueued = await store.enqueue(new_job(backoff='{"kind": "linear"}', headers='{"tags": ["a"]}', **given))
    job = await reader.get(enqueued.id)
    for name, value in given.items():
        assert getattr(job, name) == value
    assert (job.backoff, job.headers) == ({"kind": "linear"}, {"tags": ["a"]})
    assert job.deadline_at == job.run_at + 60 * SECOND


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"delay": 60 * SECOND},
        {"run_at": datetime(2001, 2, 3, tzinfo=UTC), "delay_tolerance": 5 * SECOND},
        {"run_at": datetime(2101, 2, 3, tzinfo=UTC), "deadline_policy": "drop", "delay_tolerance": SECOND},
        {"queue": "mail", "kind": "send", "priority": -3, "tenant_id": "t", "use_case": "u"},
        {"concurrency_key": "c", "max_attempts": 7, "timeout": 5 * SECOND, "payload": '{"a": [1, "\u00e9"]}'},
        {"backoff": '{"kind": "linear"}', "headers": '{"tags": ["a"]}'},
    ],
    ids=lambda given: "-".join(given) or "defaults",
)
async def test_a_new_job_is_the_same_row_by_the_short_way(store: Store, door: Link, given: dict[str, Any]):
    now = datetime.now(UTC)
    long, short = new_job(**given), new_job(**given)
    await store.enqueue(long, now=now)
    await (store.enqueue_of_tenant if short.tenant_id else store.enqueue_new)(short, now=now)
    rows = "select to_jsonb(j) - 'id' as row from jobd.jobs j where id = $1"
    ((by_function,), (by_insert,)) = [*await query(door, rows, long.id), *await query(door, rows, short.id)]
    assert by_insert == by_function


async def test_repeating_an_enqueue_with_its_id_makes_nothing_new(store: Store, door: Link):
    job = new_job()
    first, second = await store.enqueue(job), await store.enqueue(job)
    assert (first.id, first.created) == (job.id, True)
    assert (second.id, second.created, second.duplicate) == (job.id, False, True)
    assert await scalar(door, "select count(*) from jobd.all_jobs") == 1


@pytest.mark.parametrize("state", ["running", "succeeded", "dead", "cancelled"])
async def test_repeating_an_enqueue_after_the_job_has_run_makes_nothing_new(
    door: Link, store: Store, reader: Reader, state: str
):
    id = await make_job(door, state=state)
    before = await reader.get(id)
    enqueued = await store.enqueue(new_job(id=id))
    assert (enqueued.id, enqueued.created) == (id, False)
    assert await reader.get(id) == before


@pytest.mark.parametrize("state", ["ready", "succeeded"])
@pytest.mark.parametrize("other", [{"kind": "other"}, {"tenant_id": "other"}])
async def test_an_id_of_another_kind_or_tenant_is_refused(
    door: Link, store: Store, reader: Reader, state: str, other: dict[str, Any]
):
    id = await make_job(door, state=state)
    before = await reader.get(id)
    with pytest.raises(IdTaken):
        await store.enqueue(new_job(id=id, **other))
    assert await reader.get(id) == before


async def test_an_id_that_is_no_uuid7_can_be_repeated_too(door: Link, store: Store):
    id = await make_job(door, id=uuid4(), state="succeeded")
    assert not (await store.enqueue(new_job(id=id))).created


async def test_a_unique_key_is_held_until_its_job_has_ended(store: Store, door: Link):
    first = await store.enqueue(new_job(unique_key="k"))
    second = await store.enqueue(new_job(unique_key="k"))
    assert (second.id, second.created) == (first.id, False)
    (claim,) = await store.claim(await make_worker(door), rooms={"default": 1})
    assert (await store.enqueue(new_job(unique_key="k"))).id == first.id
    await store.succeed([FinishedRun(id=claim.id, claim_no=claim.claim_no, state=JobState.SUCCEEDED)])
    assert (await store.enqueue(new_job(unique_key="k"))).created


@pytest.mark.parametrize("tenant", [None, "t"])
async def test_a_unique_key_counts_per_tenant_and_kind(store: Store, tenant: str | None):
    assert (await store.enqueue(new_job(unique_key="k", tenant_id=tenant))).created
    assert (await store.enqueue(new_job(unique_key="k", tenant_id="another"))).created
    assert (await store.enqueue(new_job(unique_key="k", tenant_id=tenant, kind="another"))).created
    assert (await store.enqueue(new_job(unique_key="another", tenant_id=tenant))).created
    assert not (await store.enqueue(new_job(unique_key="k", tenant_id=tenant))).created


async def test_of_two_enqueues_of_one_key_at_the_same_time_the_later_gets_the_id_of_the_first(
    store: Store, held: Held
):
    first = await Store(held).enqueue(new_job(unique_key="k"))
    second = await held.commit_under(store.enqueue(new_job(unique_key="k")))
    assert (second.id, second.created) == (first.id, False)


async def test_of_two_enqueues_of_one_key_the_later_is_made_if_the_first_is_rolled_back(
    store: Store, held: Held
):
    await Store(held).enqueue(new_job(unique_key="k"))
    task = await held.until_it_blocks(store.enqueue(new_job(unique_key="k")))
    await held.rollback()
    assert (await task).created


async def test_of_two_enqueues_of_one_id_at_the_same_time_one_is_made(store: Store, held: Held):
    job = new_job()
    assert (await Store(held).enqueue(job)).created
    assert not (await held.commit_under(store.enqueue(job))).created


async def test_an_enqueue_that_waits_for_a_holder_that_ends_takes_the_key(
    door: Link, store: Store, held: Held
):
    id = await make_job(door, state="running", unique_key="k")
    await Store(held).succeed([FinishedRun(id=id, claim_no=1, state=JobState.SUCCEEDED)])
    assert (await held.commit_under(store.enqueue(new_job(unique_key="k")))).created


async def test_a_repeat_that_waits_for_the_end_of_its_job_finds_it_in_the_history(
    door: Link, store: Store, held: Held
):
    """The insert waits for the finish, succeeds, and must be undone: the job has run."""
    id = await make_job(door, state="running")
    await Store(held).succeed([FinishedRun(id=id, claim_no=1, state=JobState.SUCCEEDED)])
    assert not (await held.commit_under(store.enqueue(new_job(id=id)))).created
    assert await scalar(door, "select state from jobd.all_jobs where id = $1", id) == "succeeded"


async def test_many_clients_with_one_key_make_one_job(crowd: list[Link]):
    calls = [Store(link).enqueue(new_job(unique_key="k")) for link in crowd for _ in range(5)]
    answers = await asyncio.gather(*calls)
    assert sum(answer.created for answer in answers) == 1
    assert len({answer.id for answer in answers}) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": ""},
        {"kind": "1st"},
        {"kind": "a" * 101},
        {"kind": "with space"},
        {"kind": "line\nbreak"},
        {"kind": "noop\n"},
        {"queue": "no/slash"},
        {"queue": ""},
        {"deadline_policy": "never"},
        {"unique_key": "k" * 501},
        {"payload": "{"},
        {"payload": '"\\u0000"'},
        {"max_attempts": 0},
        {"priority": 2**40},
        {"tenant_id": "\0"},
    ],
)
async def test_what_cannot_be_a_job_is_refused(store: Store, door: Link, wrong: dict[str, Any]):
    with pytest.raises(Refused):
        await store.enqueue(new_job(**wrong))
    assert await scalar(door, "select count(*) from jobd.all_jobs") == 0


async def test_a_time_that_never_comes_is_refused(door: Link):
    with pytest.raises(Refused):
        await query(door, "select jobd.enqueue('noop', run_at => 'infinity')")


async def test_sql_needs_no_more_than_a_kind(door: Link, reader: Reader):
    (row,) = await query(door, "select id, created from jobd.enqueue('noop')")
    job = await reader.get(row["id"])
    assert (job.state, job.payload, job.queue, row["created"]) == (JobState.READY, {}, "default", True)
    assert job.id.version == 7


@pytest.mark.parametrize("way", ["enqueue", "enqueue_new"])
async def test_a_sleeping_worker_of_the_queue_is_woken(door: Link, store: Store, ear: Ear, way: str):
    await make_worker(door, queues=["mail"], sleeping_until=datetime.now(UTC) + 60 * SECOND)
    enqueue = getattr(store, way)
    await enqueue(new_job(queue="mail"))
    await enqueue(new_job(queue="mail", delay=60 * SECOND))
    await enqueue(new_job(queue="other"))
    assert await ear.heard() == [("jobd_wake", "mail")]


@pytest.mark.parametrize("awake", [{}, {"sleeping_until": datetime.now(UTC) - SECOND}])
async def test_nobody_is_notified_where_nobody_sleeps(
    door: Link, store: Store, ear: Ear, awake: dict[str, Any]
):
    """NOTIFY serialises the commits of the whole server: it must be rare."""
    await make_worker(door, **awake)
    await make_worker(door, lease=-SECOND, sleeping_until=datetime.now(UTC) + 60 * SECOND)
    await store.enqueue(new_job())
    await store.enqueue_new(new_job())
    await store.enqueue_many(new_job(), ids=[uuid7()], payloads=["{}"])
    assert await ear.heard() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("concurrency_key => ''", "concurrency_key is 0 characters long: use 1 to 500, or a hash"),
        ("concurrency_key => repeat('x', 100000)", "concurrency_key is 100000 characters long"),
        ("unique_key => ''", "unique_key is 0 characters long: use 1 to 500, or a hash"),
        ("use_case => repeat('x', 256)", "use_case is 256 bytes long: use 1 to 255"),
        ("tenant_id => ''", "tenant_id is 0 bytes long: use 1 to 255"),
        ("use_case => ''", "use_case is 0 bytes long: use 1 to 255"),
        (
            "queue => 'mail', deadline_policy => 'drop'",
            "deadline_policy = 'drop': needs a delay_tolerance, its own or that of queue 'mail'",
        ),
    ],
)
async def test_sql_refuses_what_python_would(door: Link, arguments: str, words: str):
    with pytest.raises(Refused) as refusal:
        await query(door, f"select jobd.enqueue('noop', {arguments})")
    assert str(refusal.value).startswith(words)
    assert (await query(door, "select count(*) from jobd.jobs"))[0][0] == 0


async def test_enqueue_many_puts_one_job_a_payload_into_the_queue(
    store: Store, reader: Reader, ear: Ear, door: Link
):
    await make_worker(door, queues=["mail"], sleeping_until=datetime.now(UTC) + 60 * SECOND)
    ids = [uuid7() for _ in range(100)]
    given = new_job(queue="mail", priority=3, tenant_id="t", headers='{"tags": ["a"]}', max_attempts=2)
    assert await store.enqueue_many(given, ids=ids, payloads=[f'{{"n": {n}}}' for n in range(100)]) == 0
    job = await reader.get(ids[42])
    assert (job.payload, job.queue, job.priority, job.tenant_id) == ({"n": 42}, "mail", 3, "t")
    assert (job.state, job.tags, job.max_attempts) == (JobState.READY, ["a"], 2)
    assert await ear.heard() == [("jobd_wake", "mail")]


async def test_enqueue_many_for_later_is_scheduled(store: Store, reader: Reader):
    ids = [uuid7(), uuid7()]
    await store.enqueue_many(new_job(delay=60 * SECOND), ids=ids, payloads=["1", "2"])
    assert {(await reader.get(id)).state for id in ids} == {JobState.SCHEDULED}


@pytest.mark.parametrize(
    ("ids", "payloads"),
    [
        ([uuid7()], ["1", "2"]),
        ([UUID(int=1), UUID(int=1)], ["1", "2"]),
        ([uuid7(), uuid7()], ["1", "{"]),
    ],
)
async def test_enqueue_many_is_all_or_nothing(store: Store, door: Link, ids: list[UUID], payloads: list[str]):
    with pytest.raises(Refused):
        await store.enqueue_many(new_job(), ids=ids, payloads=payloads)
    assert await scalar(door, "select count(*) from jobd.all_jobs") == 0


async def test_enqueue_many_in_sql_returns_the_ids_in_the_order_of_the_payloads(door: Link, reader: Reader):
    rows = await query(door, """select jobd.enqueue_many('noop', array['1', '2', '3']::jsonb[]) as id""")
    assert [(await reader.get(row["id"])).payload for row in rows] == [1, 2, 3]


async def test_nothing_to_enqueue_is_nothing_done(store: Store):
    assert await store.enqueue_many(new_job(), ids=[], payloads=[]) == 0


async def test_a_job_is_visible_when_its_transaction_commits_and_not_before(
    store: Store, held: Held, door: Link
):
    await Store(held).enqueue(new_job())
    worker = await make_worker(door)
    assert await store.claim(worker, rooms={"default": 1}) == []
    await held.commit()
    assert len(await store.claim(worker, rooms={"default": 1})) == 1


async def test_a_job_whose_transaction_is_rolled_back_never_was(held: Held, door: Link):
    await Store(held).enqueue(new_job())
    await Store(held).enqueue_many(new_job(), ids=[uuid7()], payloads=["1"])
    await held.rollback()
    assert await scalar(door, "select count(*) from jobd.all_jobs") == 0


async def test_ids_of_the_server_are_ordered_by_time(door: Link):
    made = [(await query(door, "select jobd.uuid7() as id, clock_timestamp() as at"))[0] for _ in range(50)]
    assert sorted(row["id"] for row in made) == [row["id"] for row in made]
    for row in made:
        assert (row["id"].version, row["id"].variant) == (7, "specified in RFC 4122")
        assert abs(await scalar(door, "select jobd.uuid7_at($1)", row["id"]) - row["at"]) < SECOND
    assert await scalar(door, "select count(distinct jobd.uuid7()) from generate_series(1, 2000)") == 2000


@pytest.mark.parametrize("id", [uuid7() for _ in range(3)])
async def test_the_server_reads_the_time_of_a_clients_id(door: Link, id: UUID):
    assert await scalar(door, "select extract(epoch from jobd.uuid7_at($1))::float8", id) == pytest.approx(
        (id.int >> 80) / 1000, abs=0.0005
    )
    assert await scalar(door, "select jobd.uuid7_at($1) = '-infinity'", uuid4())
