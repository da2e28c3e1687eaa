"""Limits as people set them: by Python, by the functions in SQL, and what code and files declare."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from jobd.app import Jobs
from jobd.client import Client
from jobd.door import Link
from jobd.errors import ConfigError, DrainTimeout, HandlerError, QueueUnknown, Refused
from jobd.fleet import Fleet
from jobd.job import Claimed, FinishedRun, JobState
from jobd.limits import Kinds, Queues, Tenants, UseCases
from jobd.quotas import QueueLimits, Quotas, TenantLimits
from jobd.rate import Rate, parse_rate
from jobd.store import Store
from tests.factories import make_job, make_jobs, make_worker, query, scalar
from tests.store.governed import governed


@pytest.fixture
def queues(client: Client) -> Queues:
    return Queues(client)


@pytest.fixture
def tenants(client: Client) -> Tenants:
    return Tenants(client)


@pytest.fixture
def quotas(door: Link) -> Quotas:
    return Quotas(door)


async def test_what_is_set_is_what_holds_and_who_set_it_when_is_told(queues: Queues):
    await queues.set("mail", max_running=10, rate="100/m", burst=5, fair=True, weight=2, by="kim")
    found = await queues.get("mail")
    assert (found.max_running, found.rate, found.burst) == (10, parse_rate("100/m"), 5)
    assert (found.fair, found.weight, found.paused_at) == (True, 2, None)
    assert found.changed_by == "kim" and found.changed_at is not None
    assert [each.name for each in await queues.list()] == ["mail"]


async def test_what_is_not_named_stays_and_none_takes_away(queues: Queues):
    await queues.set("mail", max_running=10, rate="100/m", burst=5, fair=True, weight=2)
    await queues.set("mail", max_running=3)
    found = await queues.get("mail")
    assert (found.max_running, found.rate, found.burst, found.fair, found.weight) == (
        3, Rate(100, timedelta(minutes=1)), 5, True, 2,
    )  # fmt: skip
    await queues.set("mail", max_running=None, rate=None, fair=None, weight=None)
    assert await queues.get("mail") == QueueLimits(
        name="mail", changed_at=(await queues.get("mail")).changed_at, changed_by="api"
    )


async def test_a_burst_needs_a_rate_now_or_from_before(queues: Queues):
    with pytest.raises(ConfigError, match=r"^burst = 5: belongs to a rate, and none is set; set both"):
        await queues.set("mail", burst=5)
    await queues.set("mail", rate="10/s")
    await queues.set("mail", burst=5)
    await queues.set("mail", rate="20/s")
    assert (await queues.get("mail")).burst == 5
    with pytest.raises(ConfigError, match=r"^burst = 7: belongs to a rate, which is taken away"):
        await queues.set("mail", burst=7, rate=None)
    await queues.set("mail", rate=None)
    assert (await queues.get("mail")).burst is None


async def test_a_queue_is_paused_and_resumed_by_the_same_call(door: Link, queues: Queues, fleet: Fleet):
    await queues.set("mail", paused=True, by="kim")
    since = (await queues.get("mail")).paused_at
    await queues.set("mail", paused=True, by="lee")
    found = await queues.get("mail")
    assert (found.paused_at, found.paused_by) == (since, "kim")
    await queues.set("mail", paused=False)
    found = await queues.get("mail")
    assert (found.paused_at, found.paused_by) == (None, None)
    # Who set the limits is another matter.
    assert (found.changed_at, found.changed_by) == (None, None)
    await queues.set("mail", max_running=3, by="ann")
    await fleet.pause("mail", by="kim")
    await fleet.resume("mail", by="lee")
    assert (await queues.get("mail")).changed_by == "ann"


async def test_a_queue_that_nobody_knows_has_no_limits_to_get(queues: Queues):
    with pytest.raises(QueueUnknown, match="'nowhere'"):
        await queues.get("nowhere")
    # Not whichever queue is the first one.
    await queues.set("mail", max_running=1)
    with pytest.raises(HandlerError):
        await queues.get(None)  # type: ignore[arg-type]


async def test_a_tenants_limits_are_set_got_and_removed(door: Link, tenants: Tenants):
    assert await tenants.get("t1") == TenantLimits(id="t1")
    await tenants.set(
        "t1", max_pending=100, max_running=5, rate="10/s", weight=2, on_full="shed", exact=False
    )
    await make_jobs(door, 3, tenant_id="t1")
    await make_job(door, tenant_id="t1", state="scheduled")
    await make_job(door, tenant_id="t1", state="running", worker_id=await make_worker(door))
    found = await tenants.get("t1")
    assert (found.max_pending, found.max_running, found.rate, found.weight) == (100, 5, parse_rate("10/s"), 2)
    assert (found.on_full, found.exact, found.running, found.pending) == ("shed", False, 1, 4)
    await tenants.set("t1", on_full=None, exact=None, max_pending=None)
    found = await tenants.get("t1")
    assert (found.on_full, found.exact, found.pending) == ("refuse", True, None)
    assert await tenants.remove("t1")
    assert not await tenants.remove("t1")
    assert await tenants.list() == []


async def test_limits_of_keys_and_use_cases(door: Link, client: Client):
    kinds, use_cases = Kinds(client), UseCases(client)
    assert (await kinds.get("sync")).key_limit == 1
    await kinds.set("sync", key_limit=3, key_rate="10/s", key_burst=2)
    found = await kinds.get("sync")
    assert (found.key_limit, found.ordered, found.key_rate, found.key_burst) == (
        3,
        False,
        parse_rate("10/s"),
        2,
    )
    await kinds.set("sync", ordered=True, key_limit=None, key_rate=None)
    found = await kinds.get("sync")
    assert (found.key_limit, found.ordered, found.key_rate, found.key_burst) == (1, True, None, None)
    assert [each.name for each in await kinds.list()] == ["sync"]
    assert (await use_cases.get("labels")).max_running == 10
    await use_cases.set("labels", max_running=2)
    assert (await use_cases.get("labels")).max_running == 2
    await use_cases.set("labels", max_running=None)
    assert [(each.name, each.max_running) for each in await use_cases.list()] == [("labels", 10)]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_running": -1}, r"^max_running = -1: must be a whole number from 0 to"),
        ({"max_running": True}, r"^max_running = True: must be a whole number"),
        ({"max_running": "10"}, r"^max_running = '10': must be a whole number"),
        ({"rate": "fast"}, r"^rate = 'fast': is not a rate; write it like"),
        ({"burst": 0, "rate": "1/s"}, r"^burst = 0: must be a whole number from 1"),
        ({"weight": 0}, r"^weight = 0: must be a whole number from 1 to 1000"),
        ({"fair": "yes"}, r"^fair = 'yes': must be True or False"),
        ({"paused": 1}, r"^paused = 1: must be True or False"),
        ({}, r"^limits: none is named"),
    ],
)
async def test_a_bad_limit_is_refused_by_its_name_and_nothing_is_set(
    queues: Queues, limits: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        await queues.set("mail", **limits)
    assert await queues.list() == []


async def test_names_are_judged_too(client: Client):
    with pytest.raises(HandlerError, match="queue 'high/priority' is no valid name"):
        await Queues(client).set("high/priority", max_running=1)
    with pytest.raises(ConfigError, match=r"^tenant = '': must be 1 to 255 bytes"):
        await Tenants(client).set("", max_running=1)
    with pytest.raises(ConfigError, match=r"^use_case = 7: must be a string"):
        await UseCases(client).set(7, max_running=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^by = 'a\\x00': must not contain NUL"):
        await Queues(client).set("mail", by="a\0", max_running=1)
    with pytest.raises(ConfigError, match=r"^by = 7: must be a string"):
        await Tenants(client).reset("t1", by=7)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'max_runing'; did you mean max_running\?"
    ):
        await Queues(client).set("mail", max_runing=1)  # type: ignore[call-arg]


async def test_jobs_of_a_key_in_order_run_one_at_a_time(client: Client):
    with pytest.raises(
        ConfigError, match=r"^key_limit = 3: jobs of a key that run in order run one at a time"
    ):
        await Kinds(client).set("sync", ordered=True, key_limit=3)


@pytest.mark.parametrize(
    ("before", "then", "message"),
    [
        (
            {"ordered": True},
            {"key_limit": 3},
            r"^key_limit = 3: jobs of a key that run in order run one at a",
        ),
        ({"key_limit": 3}, {"ordered": True}, r"^ordered = True: jobs of a key .* and key_limit is set"),
    ],
)
async def test_that_holds_for_what_was_set_before_as_well(
    client: Client, before: Any, then: Any, message: str
):
    kinds = Kinds(client)
    await kinds.set("sync", **before)
    held = await kinds.get("sync")
    with pytest.raises(ConfigError, match=message):
        await kinds.set("sync", **then)
    assert await kinds.get("sync") == held
    # Other limits of it can be set all the same, and both at once.
    await kinds.set("sync", key_rate="10/s")
    await kinds.set("sync", **(then | dict.fromkeys(before)))


SQL = {
    "set_queue": '{"max_running": 2, "rate": "100/m", "burst": 7, "fair": true, "weight": 3, "paused": true}',
    "set_tenant": '{"max_pending": 5, "on_full": "delay", "exact": false, "max_running": 2, "rate": "5/2h"}',
    "set_kind": '{"key_limit": 3, "ordered": false, "key_rate": "10/s", "key_burst": 2}',
    "set_use_case": '{"max_running": 3}',
}


@pytest.mark.parametrize("function", SQL)
async def test_in_sql_the_same_is_said_as_json(door: Link, quotas: Quotas, function: str):
    await query(door, f"select jobd.{function}('x', '{SQL[function]}')")
    table = {"set_queue": "queues", "set_tenant": "tenants", "set_kind": "kinds", "set_use_case": "use_cases"}
    (found,) = await getattr(quotas, table[function])()
    for name, value in json.loads(SQL[function]).items():
        if name == "paused":
            assert found.paused_at is not None
        else:
            assert str(getattr(found, name)) == str(value)
    assert found.changed_by == await scalar(door, "select session_user::text")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("set_queue('x', '{\"max_runing\": 1}')", "'max_runing' is no limit; there are max_running, rate"),
        ("set_queue('x', '{\"max_running\": 1.5}')", "max_running = '1.5': a whole number from 0 to 2147"),
        ("set_queue('x', '{\"max_running\": \"1\"}')", "max_running = '1': a whole number"),
        ("set_queue('x', '{\"max_running\": 99999999999}')", "max_running = '99999999999': a whole number"),
        ("set_queue('x', '{\"rate\": \"100/month\"}')", "rate = '100/month': a rate, like 10/s, 100/m"),
        ("set_queue('x', '{\"rate\": 100}')", "rate = '100': a rate"),
        ("set_queue('x', '{\"burst\": 5}')", "burst = 5: there is no rate that it could belong to"),
        ("set_queue('x', '{\"weight\": 1001}')", "weight = '1001': a whole number from 1 to 1000"),
        ("set_queue('x', '{\"fair\": 1}')", "fair = '1': true or false, or null"),
        ("set_queue('x', '[]')", "limits = '\\[\\]': a JSON object"),
        ("set_queue('x', null)", "limits = NULL: a JSON object"),
        ("set_queue('no good', '{}')", "queue = 'no good': a letter or _"),
        ("set_kind('9', '{}')", "kind = '9': a letter or _"),
        ("set_tenant('', '{}')", "tenant = '': a text of 1 to 255 bytes"),
        ("set_tenant('x', '{\"on_full\": \"drop\"}')", "on_full = 'drop': refuse, shed or delay"),
        ("set_kind('x', '{\"key_burst\": 5}')", "key_burst = 5: there is no rate"),
        ("set_kind('x', '{\"key_limit\": 3, \"ordered\": true}')", "key_limit = 3: jobs of a key that run"),
    ],
)  # fmt: skip
async def test_in_sql_a_bad_limit_is_refused_by_its_name(door: Link, call: str, message: str):
    with pytest.raises(Refused, match=message):
        await query(door, f"select jobd.{call}")


@pytest.mark.parametrize(
    "text", ["10/s", "100/m", "5/2h", "1/w", "7/250ms", "1000000/366d", " 3 / 4d ", "0/s", "1000001/s",
             "1/0s", "1/367d", "1/999999999w", "1.5/s", "1/1h30m", "", "x"],
)  # fmt: skip
async def test_sql_reads_a_rate_as_python_does(door: Link, text: str):
    (row,) = await query(door, "select count, period from jobd.parse_rate($1)", text)
    try:
        rate = parse_rate(text)
        expected: tuple[Any, Any] = (rate.count, rate.period)
    except ConfigError:
        expected = (None, None)
    assert (row["count"], row["period"]) == expected


async def test_a_limit_that_is_lowered_below_what_runs_stops_nothing(
    door: Link, store: Store, queues: Queues
):
    worker = await make_worker(door)

    async def claim() -> list[Claimed]:
        return await governed(store, worker)

    async def finish(claims: list[Claimed]) -> None:
        await store.succeed(
            [FinishedRun(id=c.id, claim_no=c.claim_no, state=JobState.SUCCEEDED) for c in claims]
        )

    await queues.set("default", max_running=3)
    await make_jobs(door, 6)
    claims = await claim()
    await queues.set("default", max_running=1)
    assert (await queues.get("default")).running == len(claims) == 3
    assert await claim() == []
    await finish(claims[:2])
    assert await claim() == []
    await finish(claims[2:])
    assert len(await claim()) == 1


async def test_a_drain_pauses_and_waits_until_nothing_runs(door: Link, queues: Queues):
    await make_job(door, queue="mail")
    running = await make_job(door, queue="mail", state="running", worker_id=await make_worker(door))
    await queues.set("mail", max_running=5)
    with pytest.raises(
        DrainTimeout,
        match=r"queue 'mail' is not drained after 0\.01 s: 1 of its jobs still runs; it stays paused",
    ):
        await queues.drain("mail", timeout="10ms")
    await query(door, "delete from jobd.jobs where id = $1", running)
    await queues.drain("mail", timeout="30s", by="kim")
    found = await queues.get("mail")
    assert found.paused_at is not None and found.paused_by == "api"


async def test_a_drain_of_the_backlog_leaves_the_queue_open(door: Link, queues: Queues):
    await queues.set("mail", max_running=5)
    waiting = await make_job(door, queue="mail", concurrency_key="a")
    await make_job(door, queue="mail", state="scheduled")
    with pytest.raises(DrainTimeout, match=r"some of its jobs are still ready$"):
        await queues.drain("mail", backlog=True, timeout="10ms")
    await query(door, "delete from jobd.jobs where id = $1", waiting)
    await queues.drain("mail", backlog=True, timeout="30s")
    assert (await queues.get("mail")).paused_at is None


async def test_a_drain_that_finds_nothing_does_not_run_out_of_time(queues: Queues):
    await queues.set("mail", max_running=5)
    await queues.drain("mail", timeout=0)
    await queues.drain("mail", timeout=0, backlog=True)


async def test_a_queue_that_nobody_knows_is_not_drained(queues: Queues):
    with pytest.raises(QueueUnknown):
        await queues.drain("nowhere")


def test_code_without_a_loop_sets_the_same(database_url: str):
    jobs = Jobs(database_url)
    try:
        jobs.sync.queues.set("mail", max_running=10, rate="100/m", paused=True)
        jobs.sync.queues.drain("mail", timeout="30s")
        assert jobs.sync.queues.get("mail").max_running == 10
        jobs.sync.tenants.set("t1", max_pending=3)
        assert [each.id for each in jobs.sync.tenants.list()] == ["t1"]
        assert jobs.sync.tenants.reset("t1") and jobs.sync.tenants.get("t1").max_pending is None
        assert jobs.sync.tenants.remove("t1")
        jobs.sync.kinds.set("sync", key_limit=3)
        assert jobs.sync.kinds.get("sync").key_limit == 3
        jobs.sync.use_cases.set("labels", max_running=2)
        assert jobs.sync.use_cases.get("labels").max_running == 2
    finally:
        jobs.sync.close()


async def test_an_application_sets_them_by_its_jobs(database_url: str):
    async with Jobs(database_url) as jobs:
        await jobs.queues.set("mail", max_running=10)
        await jobs.tenants.set("t1", max_running=5)
        await jobs.kinds.set("sync", key_limit=2)
        await jobs.use_cases.set("labels", max_running=4)
        assert (await jobs.queues.list())[0].max_running == 10
        assert (await jobs.tenants.list())[0].max_running == 5
        assert (await jobs.kinds.list())[0].key_limit == 2
        assert (await jobs.use_cases.list())[0].max_running == 4
