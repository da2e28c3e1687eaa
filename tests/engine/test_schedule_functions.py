"""The functions for schedules, which are the door for every language."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from jobd import Jobs
from jobd.door import Link
from jobd.errors import Refused
from jobd.events import JobFinished, ScheduleFaulty
from jobd.schedule_rows import Terms
from jobd.timetable import Timetable
from tests.factories import query, scalar
from tests.signals import expect

ADD = "select jobd.add_schedule('s', '*/5 * * * *', 'tick'"


async def test_a_schedule_of_sql_is_the_same_as_one_of_python(jobs: Jobs, link: Link):
    options = (
        "payload => '{\"a\": 1}', time_zone => 'Europe/Berlin', queue => 'mail', priority => 3,"
        " tenant_id => 't', max_attempts => 4, timeout => '90 s', headers => '{\"tags\": [\"x\"]}',"
        " catch_up => 'skip', overlap => 'queue', max_instances => 2, jitter => '30 s', max_runs => 9"
    )
    await query(link, f"{ADD}, {options})")
    await jobs.schedules.add(
        "p", "*/5 * * * *", "tick", {"a": 1}, tz="Europe/Berlin", queue="mail", priority=3, tenant_id="t",
        max_attempts=4, timeout="90s", tags=["x"], catch_up="skip", overlap="queue", max_instances=2,
        jitter="30s", max_runs=9,
    )  # fmt: skip
    of_sql, of_python = await jobs.schedules.get("s"), await jobs.schedules.get("p")
    assert declared(of_sql) == declared(of_python)


async def test_every_column_that_is_declared_has_a_parameter(link: Link):
    names = await scalar(link, "select proargnames from pg_proc where oid = 'jobd.add_schedule'::regproc")
    assert {*names} - {"replace"} == {*Terms.__annotations__} - {"owner"}
    await query(link, f"{ADD})")
    kept = await scalar(
        link, "select array(select jsonb_object_keys(jobd.declaration(s))) from jobd.schedules s"
    )
    assert {*kept} == {*Terms.__annotations__}


def declared(terms: Terms) -> dict[str, Any]:
    return {name: getattr(terms, name) for name in Terms.__annotations__ if name != "id"}


async def test_one_that_is_there_stays_unless_it_is_to_be_replaced(jobs: Jobs, link: Link):
    await query(link, f"{ADD})")
    with pytest.raises(Refused, match="there is a schedule 's' already: say replace => true"):
        await query(link, f"{ADD}, priority => 1)")
    await query(link, f"{ADD}, priority => 2, replace => true)")
    assert (await jobs.schedules.get("s")).priority == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("expression => ''", "expression = ''"),
        ("time_zone => 'Europe/Brelin'", "time_zone = 'Europe/Brelin': an IANA name, like Europe/Berlin"),
        ("kind => 'no kind'", "kind = 'no kind'"),
        ("queue => ''", "queue = ''"),
        ("jitter => '-1 s'", "schedules_spans_check"),
        ("stagger => '2 days'", "schedules_spans_check"),
        ("misfire_grace => '0'", "misfire_grace = 00:00:00: 1 second or more, or null"),
        ("catch_up => 'some'", "schedules_catch_up_check"),
        ("max_instances => 0", "schedules_max_instances_check"),
    ],
)
async def test_what_is_wrong_is_refused(link: Link, options: str, why: str):
    given = {"id": "'s'", "expression": "'@daily'", "kind": "'tick'"}
    name, _, value = options.partition(" => ")
    given[name] = value
    call = ", ".join(f"{key} => {text}" for key, text in given.items())
    with pytest.raises(Refused, match=why.replace("(", "\\(")):
        await query(link, f"select jobd.add_schedule({call})")
    assert await scalar(link, "select count(*) from jobd.schedules") == 0


async def test_an_expression_that_cannot_be_read_rests_and_says_why(jobs: Jobs, link: Link):
    @jobs.handler("tick")
    async def tick() -> None: ...

    async with jobs.running(), expect(jobs.events, ScheduleFaulty, timeout=15):
        await query(link, "select jobd.add_schedule('s', '61 * * * *', 'tick')")
    assert "61" in str((await jobs.schedules.get("s")).fault)


async def test_it_counts_when_the_caller_commits(database_url: str, link: Link):
    connection = await asyncpg.connect(database_url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"{ADD})")
        await transaction.rollback()
    finally:
        await connection.close()
    assert await scalar(link, "select count(*) from jobd.schedules") == 0


async def test_pause_resume_trigger_and_remove(jobs: Jobs, link: Link):
    @jobs.handler("tick")
    async def tick() -> None: ...

    await query(link, "select jobd.add_schedule('s', '0 0 29 2 *', 'tick')")
    assert await scalar(link, "select jobd.pause_schedule('s', 'kim')") is True
    assert (await jobs.schedules.get("s")).paused_by == "kim"
    assert await scalar(link, "select jobd.resume_schedule('s')") is True
    assert (await jobs.schedules.get("s")).paused_at is None
    async with jobs.running(), expect(jobs.events, JobFinished, timeout=15):
        job_id = await scalar(link, "select jobd.trigger_schedule('s')")
    (run,) = await jobs.schedules.history("s")
    assert (run.job_id, run.outcome, run.reason) == (job_id, "ran", "triggered")
    assert await scalar(link, "select jobd.remove_schedule('s')") is True
    for verb in ("pause_schedule", "resume_schedule", "remove_schedule"):
        assert await scalar(link, f"select jobd.{verb}('s')") is False
    assert await scalar(link, "select jobd.trigger_schedule('s')") is None


async def test_those_of_a_prefix_go_together(link: Link):
    for id in ("a_1", "a_2", "b_1", "a%"):
        await query(link, "select jobd.add_schedule($1, '@daily', 'tick')", id)
    gone = [row["remove_schedules"] for row in await query(link, "select jobd.remove_schedules('a_')")]
    assert sorted(gone) == ["a_1", "a_2"]
    assert [entry.id for entry in await Timetable(link).schedules()] == ["a%", "b_1"]
