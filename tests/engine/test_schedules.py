"""Schedules as an application has them: in its code, and at run time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from jobd import Jobs
from jobd.door import Link
from jobd.engine import scheduler
from jobd.errors import ConfigError, HandlerError, PayloadError, ScheduleExists, ScheduleNotFound
from jobd.events import JobFinished, LeaderChanged, ListenerChanged, ScheduleDropped, ScheduleFired
from jobd.schedules import put_one
from jobd.terms import terms
from jobd.timetable import Timetable
from tests.factories import query, scalar
from tests.signals import eventually, expect

MIDNIGHT = "0 0 * * *"


async def test_a_handler_occurs_as_its_decorator_says(jobs: Jobs):
    seen = []

    @jobs.every("1s", payload={"n": 7}, catch_up="all", max_instances=10)
    async def tick(ctx, n: int) -> None:
        seen.append((n, ctx.fire_at, ctx.last_success_at))

    async with jobs.running(), expect(jobs.events, JobFinished, count=3, timeout=15):
        # Those that are due while the first one runs know of no success yet.
        await eventually(lambda: seen and seen[-1][2] is not None, timeout=15)
    assert {n for n, _, _ in seen} == {7}
    first, second, third = [fire_at for _, fire_at, _ in seen[:3]]
    assert second - first == third - second == timedelta(seconds=1)
    assert seen[0][2] is None


async def test_a_schedule_that_is_added_while_a_daemon_runs_fires(jobs: Jobs):
    @jobs.handler("tick")
    async def tick() -> None: ...

    async with jobs.running():
        soon = datetime.now(UTC) + timedelta(seconds=1)
        async with expect(jobs.events, JobFinished, timeout=15):
            assert await jobs.schedules.add("soon", soon, "tick") == soon
    (run,) = await jobs.schedules.history("soon")
    assert (run.fire_at, run.outcome, run.state, run.kind) == (soon, "ran", "succeeded", "tick")


async def test_what_the_code_declares_no_longer_is_paused_and_told(jobs: Jobs, link: Link):
    @jobs.handler("tick")
    async def tick() -> None: ...

    declared = "insert into jobd.schedules (id, owner, expression, kind, decided_until)"
    await query(link, f"{declared} values ('old', $1, '* * * * *', 'tick', now())", jobs.owner)
    told: list[ScheduleDropped] = []
    jobs.events.subscribe(ScheduleDropped, told.append)
    async with jobs.running():
        await eventually(lambda: told)
    assert told == [ScheduleDropped("old", jobs.owner)]
    entry = await jobs.schedules.get("old")
    assert entry.paused_by == "deploy"


async def test_what_another_application_declares_is_its_own_affair(jobs: Jobs, link: Link):
    @jobs.handler("tick")
    async def tick() -> None: ...

    other = Jobs(jobs.overrides["database_url"])
    other.module = "elsewhere"
    other.cron("0 0 * * *", id="theirs")(tick)
    async with other.running():
        await eventually(lambda: scalar(link, "select count(*) from jobd.schedules"))
    async with jobs.running():
        await eventually(lambda: scalar(link, "select count(*) from jobd.leader where lease_until > now()"))
    assert (await jobs.schedules.get("theirs")).paused_at is None


async def test_a_schedule_of_the_settings_goes_to_the_queue_of_its_handler(database_url: str):
    table = {"id": "nightly", "when": MIDNIGHT, "kind": "report", "payload": {"n": 1}}
    jobs = Jobs(database_url, migrate="off", schedules=[table, {**table, "id": "other", "queue": "mail"}])

    @jobs.handler("report", queue="reports")
    async def report(n: int) -> None: ...

    async def stands() -> bool:
        return len(await jobs.schedules.list()) == 2

    async with jobs, jobs.running():
        await eventually(stands)
        nightly, other = await jobs.schedules.list()
    assert (nightly.owner, nightly.payload, nightly.queue, other.queue) == (
        f"file:{jobs.module}",
        {"n": 1},
        "reports",
        "mail",
    )


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"id": "tick"}, "schedules[0].id = 'tick': is declared by the application's code, too"),
        ({"payload": {"x": 1}}, "schedules[0].payload = '***': payload $.x: unexpected key"),
    ],
)
async def test_a_schedule_of_the_settings_has_to_fit_the_code(
    database_url: str, table: dict[str, Any], told: str
):
    jobs = Jobs(database_url, schedules=[{"id": "nightly", "when": MIDNIGHT, "kind": "tick", **table}])

    @jobs.every("15m")
    async def tick() -> None: ...

    with pytest.raises(ConfigError, match=re.escape(told)):
        async with jobs.running():
            pass


async def test_a_schedule_of_the_code_has_to_fit_its_handler(database_url: str):
    jobs = Jobs(database_url)

    @jobs.every("15m", id="often")
    async def ping(host: str) -> None: ...

    told = "payload of schedule 'often' = '***': payload $.host: missing, expected"
    with pytest.raises(ConfigError, match=re.escape(told)):
        async with jobs.running():
            pass


async def test_a_schedule_needs_no_payload_for_what_is_a_resource(jobs: Jobs):
    class Address(BaseModel):
        host: str

    jobs.resource(Address, Address(host="here"))
    jobs.overrides["schedules"] = [{"id": "nightly", "when": MIDNIGHT, "kind": "ping"}]

    @jobs.every("15m")
    async def ping(address: Address) -> None: ...

    async with jobs.running():
        await eventually(jobs.schedules.list)


async def test_what_is_added_has_to_fit_its_handler(jobs: Jobs):
    @jobs.handler("ping")
    async def ping(host: str) -> None: ...

    with pytest.raises(PayloadError, match=re.escape("payload $.host: missing")):
        await jobs.schedules.add("often", "every 15m", "ping")
    assert await jobs.schedules.list() == []


async def test_add_get_list_and_remove(jobs: Jobs):
    for n in (1, 2):
        await jobs.schedules.add(f"reminder_42_{n}", MIDNIGHT, "remind", {"n": n}, tz="Europe/Berlin")
    await jobs.schedules.add("other", "every 15m", "remind")
    entry = await jobs.schedules.get("reminder_42_2")
    assert (entry.expression, entry.time_zone, entry.payload, entry.owner) == (
        MIDNIGHT,
        "Europe/Berlin",
        {"n": 2},
        "api",
    )
    assert [each.id for each in await jobs.schedules.list(prefix="reminder_42_")] == [
        "reminder_42_1",
        "reminder_42_2",
    ]
    with pytest.raises(ScheduleExists, match="reminder_42_1"):
        await jobs.schedules.add("reminder_42_1", MIDNIGHT, "remind")
    await jobs.schedules.add("reminder_42_1", "0 9 * * *", "remind", replace=True)
    assert (await jobs.schedules.get("reminder_42_1")).expression == "0 9 * * *"
    assert await jobs.schedules.remove_prefix("reminder_42_") == 2
    await jobs.schedules.remove("other")
    for verb in (jobs.schedules.get, jobs.schedules.remove, jobs.schedules.pause, jobs.schedules.resume):
        with pytest.raises(ScheduleNotFound, match="other"):
            await verb("other")


async def test_adding_in_a_transaction_counts_with_its_commit(jobs: Jobs, link: Link):
    connection = await link.opened()
    transaction = connection.transaction()
    await transaction.start()
    await jobs.schedules.add("mine", MIDNIGHT, "remind", connection=connection)
    with pytest.raises(ScheduleNotFound):
        await jobs.schedules.get("mine")
    await transaction.rollback()
    with pytest.raises(ScheduleNotFound):
        await jobs.schedules.get("mine")


async def test_a_trigger_makes_a_job_now(jobs: Jobs, link: Link):
    await jobs.schedules.add("yearly", "0 0 1 1 *", "remind", {"n": 1})
    id = await jobs.schedules.trigger("yearly")
    job = await jobs.get(id)
    assert (job.kind, job.payload, str(job.state)) == ("remind", {"n": 1}, "ready")
    with pytest.raises(ScheduleNotFound):
        await jobs.schedules.trigger("unknown")


async def test_pause_and_resume(jobs: Jobs, link: Link):
    await jobs.schedules.add("s", MIDNIGHT, "remind")
    await jobs.schedules.pause("s", by="me")
    assert (await jobs.schedules.get("s")).paused_by == "me"
    await jobs.schedules.resume("s")
    assert (await jobs.schedules.get("s")).paused_at is None


@pytest.mark.parametrize(
    ("when", "options", "says"),
    [
        ("61 * * * *", {}, "61"),
        ("0 0 31 2 *", {}, "never"),
        ("0 0 * * *", {"tz": "Europe/Berln"}, "Europe/Berlin"),
        (datetime(2020, 1, 1, tzinfo=UTC), {}, "never occurs after"),
        (datetime(2090, 1, 1), {}, "time zone"),
        ("* * * * *", {"catch_up": "some"}, "last, skip or all"),
        ("* * * * *", {"overlap": "maybe"}, "skip, queue or replace"),
        ("* * * * *", {"cap": 5000}, "at most 1000"),
        ("* * * * *", {"max_instances": 0}, "whole number"),
        ("* * * * *", {"ends_at": datetime(2020, 1, 1, tzinfo=UTC)}, "before the first occurrence"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_refused_before_anything_is_sent(
    jobs: Jobs, link: Link, when: str | datetime, options: dict, says: str
):
    with pytest.raises(ConfigError, match=says):
        await jobs.schedules.add("s", when, "remind", **options)
    assert await scalar(link, "select count(*) from jobd.schedules") == 0


async def test_a_misspelled_option_is_named(jobs: Jobs):
    with pytest.raises(TypeError, match="did you mean catch_up"):
        await jobs.schedules.add("s", MIDNIGHT, "remind", catchup="last")  # type: ignore[call-arg]


def test_a_wrong_expression_in_the_code_is_refused_where_it_stands():
    jobs = Jobs("postgresql://nowhere/nothing")
    with pytest.raises(ConfigError, match="99"):

        @jobs.cron("99 * * * *")
        def nightly() -> None: ...


@pytest.mark.parametrize(
    ("said", "queue"), [({}, "images"), ({"queue": None}, "images"), ({"queue": "q"}, "q")]
)
def test_a_schedule_in_the_code_goes_to_the_queue_of_its_handler_unless_it_names_one(said: Any, queue: str):
    jobs = Jobs("postgresql://nowhere/nothing")

    @jobs.cron("0 1 * * *", **said)
    @jobs.handler(queue="images")
    def nightly() -> None: ...

    assert [terms.queue for terms in jobs.declared_schedules] == [queue]


def test_two_schedules_of_one_handler_need_ids():
    jobs = Jobs("postgresql://nowhere/nothing")

    @jobs.cron("0 1 * * *")
    @jobs.cron("0 2 * * *", id="second")
    def nightly() -> None: ...

    assert sorted(terms.id for terms in jobs.declared_schedules) == ["nightly", "second"]
    with pytest.raises(HandlerError, match="id of its own"):
        jobs.cron("0 3 * * *")(nightly)


async def test_a_schedule_that_nobody_tells_of_is_found_all_the_same(jobs: Jobs, link: Link):
    @jobs.handler("tick")
    async def tick() -> None: ...

    columns = "id, owner, expression, kind, decided_until"
    async with jobs.running(notify="off"), expect(jobs.events, JobFinished, timeout=15):
        await eventually(lambda: scalar(link, "select count(*) from jobd.leader"))
        await query(
            link,
            f"insert into jobd.schedules ({columns}) values ('sql', 'api', 'every 1s', 'tick', now())",
        )


async def test_a_moment_that_the_databases_clock_has_passed_occurs(jobs: Jobs, link: Link):
    """The application's clock is behind: `terms` found it to be in the future, the database does not."""
    now = datetime.now(UTC) - timedelta(minutes=10)
    made = terms("s", now + timedelta(minutes=5), "tick", owner="api", now=now)
    first = await put_one(Timetable(link), made, replace=False, now=now)
    assert first == now + timedelta(minutes=5)

    @jobs.handler("tick")
    async def tick() -> None: ...

    async with jobs.running(), expect(jobs.events, JobFinished, timeout=15):
        pass


async def test_an_interval_begins_with_the_databases_clock(link: Link):
    now = datetime.now(UTC) - timedelta(minutes=10)
    made = terms("s", "every 1m", "tick", owner="api", now=now)
    assert await put_one(Timetable(link), made, replace=False, now=now) > datetime.now(UTC) - timedelta(
        seconds=60
    )


async def test_what_nobody_has_looked_at_yet_shows_when_it_will_occur(jobs: Jobs):
    first = await jobs.schedules.add("s", "0 0 1 1 *", "tick")
    assert (await jobs.schedules.get("s")).due_at == first
    assert [entry.due_at for entry in await jobs.schedules.list()] == [first]


async def test_nobody_pauses_in_the_name_of_a_deploy(jobs: Jobs):
    await jobs.schedules.add("s", "@daily", "tick")
    with pytest.raises(ConfigError, match="by = 'deploy': is what a deploy says"):
        await jobs.schedules.pause("s", by="deploy")


async def test_a_date_of_the_code_may_be_over_and_a_typing_error_may_not(jobs: Jobs):
    @jobs.cron("2020-01-01T00:00", id="once")
    @jobs.cron("cron(0 0 1 1 ? 2020)", id="aws")
    @jobs.handler("tick")
    async def tick() -> None: ...

    with pytest.raises(ConfigError, match="occurs first on 2150-01-01, more than 8 years ahead"):
        jobs.cron("2150-01-01T00:00", id="far")(tick)


async def test_a_payload_may_be_null(jobs: Jobs):
    await jobs.schedules.add("s", "@daily", "tick", None)
    made = terms("t", "@daily", "tick", owner="api", payload="null")
    await put_one(jobs.schedules._timetable, made, replace=False, now=datetime.now(UTC))
    assert (await jobs.schedules.get("t")).payload is None


@pytest.mark.parametrize("roles", [["scheduler"], ["worker", "scheduler"]], ids="+".join)
async def test_a_schedule_added_elsewhere_is_heard_of(
    jobs: Jobs, link: Link, direct_database_url: str, monkeypatch: pytest.MonkeyPatch, roles: list[str]
):
    jobs.overrides["database_url"] = direct_database_url  # no pooler lets it hear
    # Nothing is found by looking around.
    monkeypatch.setattr(scheduler, "LONGEST_SLEEP", 600.0)
    heard: list[object] = []
    for type_ in (ListenerChanged, LeaderChanged):
        jobs.events.subscribe(type_, heard.append)
    async with jobs.running(roles=roles, notify="on"):
        await eventually(lambda: {type(each) for each in heard} == {ListenerChanged, LeaderChanged})
        for n in range(3):
            async with expect(jobs.events, ScheduleFired, schedule_id=f"here-{n}"):
                await jobs.schedules.add(f"here-{n}", "every 1s", "tick", max_runs=1)
            async with expect(jobs.events, ScheduleFired, schedule_id=f"sql-{n}"):
                await query(
                    link, "select jobd.add_schedule($1::text, 'every 1s', 'tick', max_runs => 1)", f"sql-{n}"
                )
