"""The scheduler: each occurrence is a job, or a row that says why not, once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobd.door import Database, Link
from jobd.engine import scheduler
from jobd.engine.decider import Decider
from jobd.engine.leader import NAME
from jobd.engine.scheduler import REFUSED_PAUSE
from jobd.errors import Refused
from jobd.events import ScheduleDropped, ScheduleFaulty, ScheduleFired, ScheduleTaken
from jobd.ids import uuid7
from jobd.schedule_rows import Terms
from jobd.store import Store
from jobd.terms import terms
from tests.engine.clockwork import BEGIN, MINUTE, Clockwork
from tests.factories import query, scalar

SECOND = timedelta(seconds=1)


@pytest.fixture
def clock(link: Link) -> Clockwork:
    return Clockwork(link)


@pytest.fixture
async def rival(database_url: str) -> AsyncIterator[Clockwork]:
    """The scheduler of another process."""
    other = Link(Database(database_url))
    yield Clockwork(other)
    await other.close()


async def test_an_occurrence_becomes_a_job_with_what_the_schedule_says(clock: Clockwork):
    await clock.add(
        "*/5 * * * *", payload='{"n": 1}', queue="mail", priority=3, tenant_id="t", tags=["a"], timeout="5s"
    )
    await clock.after(4.9 * MINUTE)
    assert await clock.jobs() == []
    await clock.after(0.2 * MINUTE)
    (job,) = await clock.jobs()
    assert (job["kind"], job["queue"], job["priority"], job["tenant_id"]) == ("tick", "mail", 3, "t")
    assert (job["state"], job["payload"], job["timeout"]) == ("ready", '{"n": 1}', 5 * SECOND)
    assert (job["run_at"], job["fire_at"]) == (BEGIN + 5 * MINUTE, (BEGIN + 5 * MINUTE).isoformat())
    assert await clock.history() == [(5, 5, 1, "ran", None)]
    entry = await clock.timetable.schedule("s")
    assert entry is not None
    assert (entry.due_at, entry.runs, entry.last_fire_at) == (BEGIN + 10 * MINUTE, 1, BEGIN + 5 * MINUTE)
    (told,) = clock.told
    assert isinstance(told, ScheduleFired)
    assert (told.outcome, told.count, round(told.late_seconds)) == ("ran", 1, 6)


async def test_nothing_is_due_until_the_next_occurrence(clock: Clockwork):
    await clock.add("every 10m", anchor=BEGIN)
    assert await clock.lead()
    assert clock.term is not None
    await clock.scheduler.once(clock.term)
    assert await clock.timetable.next_fire(now=clock.now) == 600
    clock.now += 9.999 * MINUTE
    await clock.lead()
    assert 0 < await clock.scheduler.once(clock.term) < 0.1


@pytest.mark.parametrize(
    "downtime", [timedelta(minutes=10), timedelta(hours=26), timedelta(days=400)], ids=str
)
@pytest.mark.parametrize("grace", [None, "300s"])
@pytest.mark.parametrize("catch_up", ["last", "skip", "all"])
async def test_after_a_downtime(clock: Clockwork, catch_up: str, grace: str | None, downtime: timedelta):
    await clock.add("* * * * *", catch_up=catch_up, misfire_grace=grace, cap=7, max_instances=100)
    await clock.after(MINUTE)
    assert await clock.fired() == [1]
    await clock.after(downtime)
    # Within the grace are six of them: the one that is due now, and those of the five minutes before.
    expected = 1 if catch_up != "all" else 6 if grace else 7
    upto = 1 + downtime / MINUTE
    assert await clock.fired() == [1, *(upto - n for n in reversed(range(expected)))]
    missed = [row for row in await clock.history() if row[3] != "ran"]
    count = min(downtime / MINUTE, 10_000) - expected
    assert missed == [
        (
            2,
            upto - expected,
            count,
            "missed",
            "catch_up" if grace is None or expected < 6 else "misfire_grace",
        )
    ]
    await clock.after(MINUTE)
    assert (await clock.fired())[-1] == upto + 1


async def test_a_daily_job_that_a_deploy_swallowed_runs_late(clock: Clockwork):
    await clock.add("0 3 * * *")
    await clock.add("0 3 * * *", "strict", catch_up="skip")
    await clock.at(BEGIN + timedelta(hours=3, minutes=10))
    assert await clock.fired() == [180]
    assert await clock.history("strict") == [(180, 180, 1, "missed", "misfire_grace")]


async def test_all_are_spread(clock: Clockwork):
    await clock.add("* * * * *", catch_up="all", stagger="10s", max_instances=10)
    await clock.after(3 * MINUTE)
    jobs = await clock.jobs()
    assert [job["run_at"] for job in jobs] == [
        BEGIN + MINUTE,
        clock.now + 10 * SECOND,
        clock.now + 20 * SECOND,
    ]
    assert [job["state"] for job in jobs] == ["ready", "scheduled", "scheduled"]


async def test_overlap_skip(clock: Clockwork):
    await clock.add("* * * * *")
    for _ in range(3):
        await clock.after(MINUTE)
    await clock.end_jobs()
    await clock.after(MINUTE)
    ran, skipped = (None, "ran"), ("overlap", "skipped")
    assert [row[:-3:-1] for row in await clock.history()] == [ran, skipped, skipped, ran]


async def test_many_may_be_unfinished_and_no_more(clock: Clockwork):
    await clock.add("* * * * *", max_instances=25, catch_up="all")
    await clock.after(25 * MINUTE)
    await clock.after(MINUTE)
    assert [row[0] for row in await clock.history() if row[4] == "overlap"] == [26]


async def test_a_job_that_is_stuck_counts_however_many_came_after_it(clock: Clockwork):
    await clock.add("* * * * *", max_instances=2)
    await clock.after(MINUTE)
    (stuck,) = await clock.jobs()
    for _ in range(30):
        await clock.after(MINUTE)
        await clock.end_jobs(but=stuck["id"])
    await clock.after(MINUTE)
    await clock.after(MINUTE)
    assert [row[4] for row in await clock.history()][-2:] == [None, "overlap"]


async def test_a_triggered_job_takes_its_room(clock: Clockwork):
    await clock.add("* * * * *")
    assert await clock.timetable.trigger("s", job_id=uuid7(), now=clock.now)
    await clock.after(MINUTE)
    assert [row[3:] for row in await clock.history()] == [("ran", "triggered"), ("skipped", "overlap")]


async def test_overlap_queue_waits_for_the_one_before(clock: Clockwork):
    await clock.add("* * * * *", overlap="queue", catch_up="all")
    for _ in range(3):
        await clock.after(MINUTE)
    assert await clock.fired() == [1]
    for seen in ([1, 2], [1, 2, 3], [1, 2, 3]):
        await clock.end_jobs()
        await clock.after(2 * SECOND)
        assert await clock.fired() == seen
    assert len(await clock.history()) == 3


async def test_with_overlap_queue_nothing_is_dropped(clock: Clockwork):
    await clock.add("* * * * *", overlap="queue", misfire_grace="30s")
    await clock.after(MINUTE)
    # Nobody finishes the first one for a while; then there is nobody to look, either.
    for passed in (MINUTE, 6 * SECOND, MINUTE, 2 * MINUTE):
        await clock.after(passed)
    ran = [1.0]
    while len(ran) < 5:
        await clock.end_jobs()
        await clock.after(10 * SECOND)
        ran.append(ran[-1] + 1)
        assert await clock.fired() == ran
    assert {row[3] for row in await clock.history()} == {"ran"}


async def test_a_queue_has_an_end(clock: Clockwork):
    await clock.add("* * * * *", overlap="queue", cap=3)
    for _ in range(40):
        await clock.after(12 * SECOND)
    dropped = [row for row in await clock.history() if row[3] == "skipped"]
    assert sum(row[2] for row in dropped) == 4
    assert {row[4] for row in dropped} == {"overlap"}
    await clock.end_jobs()
    await clock.after(2 * SECOND)
    assert await clock.fired() == [1, 6]


async def test_all_those_of_a_catch_up_run_one_after_the_other(clock: Clockwork):
    await clock.add("* * * * *", catch_up="all")
    await clock.after(3.5 * MINUTE)
    for _ in range(4):
        await clock.end_jobs()
        await clock.after(5 * SECOND)
    assert await clock.history() == [(n, n, 1, "ran", None) for n in (1, 2, 3)]


async def test_what_falls_due_while_a_catch_up_is_worked_off_overlaps(clock: Clockwork):
    await clock.add("* * * * *", catch_up="all")
    await clock.after(3 * MINUTE)
    for _ in range(6):
        await clock.after(1.5 * MINUTE)
        await clock.end_jobs()
        await clock.after(5 * SECOND)
    assert (await clock.fired())[:3] == [1, 2, 3]
    assert [row for row in await clock.history() if row[4] == "overlap"]
    # What runs now is not late any more.
    assert clock.now - BEGIN - (await clock.fired())[-1] * MINUTE < 3 * MINUTE


async def test_those_of_a_catch_up_are_as_far_apart_as_it_says_also_where_they_wait(clock: Clockwork):
    await clock.add("* * * * *", catch_up="all", stagger="10m")
    await clock.after(3.5 * MINUTE)
    begun = clock.now
    for _ in range(3):
        await clock.end_jobs()
        await clock.after(5 * MINUTE + SECOND)
    first, second = [job["run_at"] - begun for job in await clock.jobs()]
    assert first < timedelta(0) < 10 * MINUTE <= second <= 11 * MINUTE


async def test_the_longer_they_wait_the_less_often_is_looked(clock: Clockwork):
    await clock.add("0 * * * *", overlap="queue")
    await clock.at(BEGIN + timedelta(hours=1))
    for hours, expected in ((2, 1), (2.5, 30), (9, 60)):
        await clock.at(BEGIN + timedelta(hours=hours))
        assert await clock.timetable.next_fire(now=clock.now) == expected


async def test_a_job_that_is_retried_counts_again_and_so_does_its_success(clock: Clockwork):
    await clock.add("* * * * *")
    await clock.after(MINUTE)
    await clock.end_jobs("dead")
    assert await clock.timetable.settle() == 1
    (job,) = await clock.jobs()
    await Store(clock.link).retry(job["id"])
    await clock.after(MINUTE)
    assert (await clock.history())[-1][3:] == ("skipped", "overlap")
    await clock.end_jobs()
    await clock.after(MINUTE)
    assert "last_success_at" in (await clock.jobs())[-1]["headers"]


async def test_what_was_due_when_a_pause_began_is_no_part_of_it(clock: Clockwork):
    await clock.add("0 3 * * *")
    await clock.add("* * * * *", "queue", overlap="queue")
    await clock.at(BEGIN + MINUTE)
    clock.now = BEGIN + 182 * MINUTE
    for id in ("s", "queue"):
        await clock.timetable.pause_schedule(id, by="me", now=clock.now)
    clock.now += 60 * MINUTE
    for id in ("s", "queue"):
        await clock.timetable.resume_schedule(id, now=clock.now)
    await clock.after(SECOND)
    assert await clock.history() == [(180, 180, 1, "ran", None)]
    await clock.end_jobs()
    for _ in range(3):
        await clock.after(2 * SECOND)
    assert await clock.history("queue") == [
        (1, 1, 1, "ran", None),
        (2, 181, 180, "missed", "catch_up"),
        (182, 182, 1, "ran", None),
        (183, 242, 60, "skipped", "paused"),
    ]


async def test_a_replacement_is_the_newest_of_those_that_are_due(clock: Clockwork):
    await clock.add("* * * * *", overlap="replace", catch_up="all")
    await clock.after(3 * MINUTE)
    assert [row[3] for row in await clock.history()] == ["skipped", "skipped", "ran"]


async def test_overlap_replace_cancels_the_one_before(clock: Clockwork):
    await clock.add("* * * * *", overlap="replace")
    await clock.after(MINUTE)
    await clock.after(MINUTE)
    assert [(job["state"], job["reason"]) for job in await clock.jobs()] == [
        ("cancelled", "replaced"),
        ("ready", None),
    ]


async def test_overlap_replace_leaves_as_many_as_may_run(clock: Clockwork):
    await clock.add("* * * * *", overlap="replace", max_instances=2)
    for _ in range(4):
        await clock.after(MINUTE)
    assert [job["state"] for job in await clock.jobs()] == ["cancelled", "cancelled", "ready", "ready"]


async def test_jitter_is_the_same_for_everybody(clock: Clockwork, rival: Clockwork):
    for each, name in ((clock, "s"), (rival, "s")):
        await each.timetable.remove([name])
        await each.add("0 * * * *", jitter="10m", max_instances=100)
        each.now = BEGIN
    await clock.at(BEGIN + timedelta(hours=5))
    await clock.add("0 * * * *", "t", jitter="10m", max_instances=100, catch_up="all")
    jobs = await clock.jobs()
    assert len(jobs) == 1
    late = jobs[0]["run_at"] - BEGIN - timedelta(hours=5)
    assert timedelta(0) <= late < 10 * MINUTE
    await clock.timetable.remove(["s"])
    await query(clock.link, "delete from jobd.schedule_runs")
    rival.now = BEGIN + timedelta(hours=4)
    await rival.add("0 * * * *", jitter="10m", max_instances=100)
    clock.now += 6 * SECOND
    await rival.at(clock.now)
    assert (await rival.jobs())[-1]["run_at"] == jobs[0]["run_at"]


async def test_what_a_pause_swallowed_is_skipped(clock: Clockwork):
    await clock.add("* * * * *")
    await clock.after(MINUTE)
    assert await clock.timetable.pause_schedule("s", by="me", now=clock.now)
    await clock.after(5 * MINUTE)
    assert await clock.timetable.resume_schedule("s", now=clock.now)
    await clock.after(SECOND)
    await clock.end_jobs()
    await clock.after(MINUTE)
    assert await clock.history() == [
        (1, 1, 1, "ran", None),
        (2, 6, 5, "skipped", "paused"),
        (7, 7, 1, "ran", None),
    ]


async def test_it_ends_with_its_last_run_and_with_its_last_moment(clock: Clockwork):
    await clock.add("* * * * *", "thrice", max_runs=3, max_instances=10)
    await clock.add("* * * * *", "short", ends_at=BEGIN + 2 * MINUTE, max_instances=10)
    await clock.add((BEGIN + MINUTE).isoformat(), "once")
    for _ in range(6):
        await clock.after(MINUTE)
    assert await clock.fired("thrice") == [1, 2, 3]
    assert await clock.fired("short") == [1, 2]
    assert await clock.fired("once") == [1]
    assert await clock.timetable.next_fire(now=clock.now) is None


async def test_an_occurrence_that_was_skipped_is_none_of_its_runs(clock: Clockwork):
    await clock.add("* * * * *", max_runs=2)
    for _ in range(3):
        await clock.after(MINUTE)
    await clock.end_jobs()
    for _ in range(2):
        await clock.after(MINUTE)
    assert await clock.fired() == [1, 4]


async def test_the_handler_learns_of_the_last_success(clock: Clockwork):
    await clock.add("* * * * *")
    for state in ("succeeded", "dead", "dead"):
        await clock.after(MINUTE)
        await clock.end_jobs(state)
    headers = [row["headers"] for row in await clock.jobs()]
    assert ["last_success_at" in text for text in headers] == [False, True, True]


async def test_the_last_success_is_known_after_any_number_of_failures(clock: Clockwork):
    await clock.add("* * * * *")
    await clock.after(MINUTE)
    await clock.end_jobs()
    for _ in range(30):
        await clock.after(MINUTE)
        await clock.end_jobs("dead")
    await clock.after(MINUTE)
    succeeded = await scalar(clock.link, "select finished_at from jobd.job_history where state = 'succeeded'")
    entry = await clock.timetable.schedule("s")
    assert entry is not None and entry.last_success_at == succeeded
    (job,) = [job for job in await clock.jobs() if job["state"] == "ready"]
    assert f'"last_success_at": "{succeeded.isoformat()}"' in job["headers"]


async def test_the_last_success_is_known_when_the_history_has_forgotten_it(clock: Clockwork):
    await clock.add("* * * * *")
    await clock.after(MINUTE)
    await clock.end_jobs()
    assert await clock.timetable.settle() == 1
    assert await clock.timetable.settle() == 0
    await query(clock.link, "delete from jobd.job_history")
    await clock.after(MINUTE)
    assert "last_success_at" in (await clock.jobs())[-1]["headers"]


async def test_a_scheduler_notes_what_has_ended_when_it_begins_to_lead(clock: Clockwork, link: Link):
    await clock.add("* * * * *")
    await clock.after(MINUTE)
    await clock.end_jobs()
    await clock.fleet.abdicate(NAME, clock.worker_id)
    successor = Clockwork(link)
    await successor.at(clock.now)
    entry = await clock.timetable.schedule("s")
    assert entry is not None and entry.last_success_at is not None


async def test_a_queue_without_a_history_tells_of_success_as_well(clock: Clockwork):
    await clock.add("* * * * *")
    await clock.after(MINUTE)
    (job,) = await clock.jobs()
    await query(clock.link, "delete from jobd.jobs")
    await query(
        clock.link,
        "insert into jobd.tombstones (id, claim_no, finished_at, state, queue, kind)"
        " values ($1, 1, now(), 'succeeded', 'default', 'tick')",
        job["id"],
    )
    await clock.after(MINUTE)
    (after,) = [job for job in await clock.jobs() if job["state"] == "ready"]
    assert "last_success_at" in after["headers"]


async def test_a_job_is_replaced_only_by_one_that_is_certain(clock: Clockwork, rival: Clockwork):
    await clock.add("* * * * *", overlap="replace")
    await clock.after(MINUTE)
    stale = clock.term
    assert stale is not None
    rival.now = clock.now + timedelta(seconds=30)
    assert await rival.lead()
    clock.now += MINUTE
    await clock.scheduler.once(stale)
    assert [job["state"] for job in await clock.jobs()] == ["ready"]


async def test_two_schedulers_that_race_make_one_job(clock: Clockwork, rival: Clockwork):
    for n in range(20):
        await clock.add("* * * * *", f"s{n}", max_instances=1000)
    for _ in range(20):
        clock.now = rival.now = clock.now + 54 * SECOND
        first, second = random.sample([clock, rival], 2)
        # The first was taken for dead and does not know it: both believe that they lead.
        assert await first.lead()
        clock.now = rival.now = clock.now + 6 * SECOND
        assert await second.lead()
        assert first.term is not None and second.term is not None
        await asyncio.gather(first.scheduler.once(first.term), second.scheduler.once(second.term))
        await first.fleet.abdicate(NAME, second.worker_id)
    minutes = await query(
        clock.link, "select schedule_id, fire_at, count(*) as n from jobd.schedule_runs group by 1, 2"
    )
    assert len(minutes) == 400
    assert {row["n"] for row in minutes} == {1}
    assert await scalar(clock.link, "select count(*) from jobd.jobs") == 400


async def test_one_that_somebody_is_changing_holds_up_no_other(clock: Clockwork, database_url: str):
    for id in ("held", "s"):
        await clock.add("* * * * *", id)
    await clock.after(MINUTE)
    await clock.end_jobs()
    holder = await Database(database_url).connect()
    try:
        await holder.execute("begin")
        await holder.execute("select from jobd.schedules where id = 'held' for update")
        clock.now += MINUTE
        # Another one begins to lead, which also notes what has ended.
        successor = Clockwork(clock.link, declared={"api": [tick("held", BEGIN), tick("s", BEGIN)]})
        await clock.fleet.abdicate(NAME, clock.worker_id)
        successor.now = clock.now
        await successor.lead()
        assert successor.term is not None
        await successor.scheduler.declare(successor.term)
        pause = await successor.scheduler.once(successor.term)
        assert await clock.fired("s") == [1, 2]
        # And it is no reason to look all the time.
        assert pause == REFUSED_PAUSE
        assert await clock.timetable.settle() == 0
    finally:
        await holder.close()
    await successor.after(SECOND)
    assert await clock.fired("held") == [1, 2]


def tick(id: str, now: datetime, **options: Any) -> Terms:
    return terms(id, "* * * * *", "tick", owner="api", now=now, **options)


async def test_a_start_does_not_wait_for_one_that_somebody_holds(link: Link, database_url: str):
    def declared(priority: int) -> Clockwork:
        made = [
            terms(id, "* * * * *", "tick", owner="code", now=BEGIN, priority=priority) for id in ("held", "s")
        ]
        return Clockwork(link, declared={"code": made})

    await declared(0).scheduler.declare(None)
    newer = declared(1)
    holder = await Database(database_url).connect()
    try:
        await holder.execute("begin")
        await holder.execute("select from jobd.schedules where id = 'held' for update")
        await newer.scheduler.declare(None)
        assert [entry.priority for entry in await newer.timetable.schedules()] == [0, 1]
    finally:
        await holder.close()
    await newer.scheduler.declare(None)
    assert [entry.priority for entry in await newer.timetable.schedules()] == [1, 1]


@pytest.mark.parametrize("exact", [True, False])
async def test_a_tenant_whose_pace_somebody_holds_holds_up_no_schedule(
    clock: Clockwork, database_url: str, exact: bool
):
    await query(
        clock.link,
        "insert into jobd.tenants (id, max_pending, on_full, exact) values ('t', 0, 'delay', $1)",
        exact,
    )
    await query(clock.link, "insert into jobd.rates values ('pending', 't', now())")
    await clock.add("* * * * *", "full", tenant_id="t")
    await clock.add("* * * * *")
    holder = await Database(database_url).connect()
    try:
        await holder.execute("begin")
        await holder.execute("select from jobd.rates where name = 't' for update")
        async with asyncio.timeout(15):
            await clock.after(MINUTE)
        assert await clock.fired() == await clock.fired("full") == [1]
    finally:
        await holder.close()


async def test_jobs_of_a_tenant_without_room_are_delayed_one_behind_the_other(clock: Clockwork):
    await query(clock.link, "insert into jobd.tenants (id, max_pending, on_full) values ('t', 0, 'delay')")
    for id in ("a", "b"):
        await clock.add("* * * * *", id, tenant_id="t")
    await clock.after(MINUTE)
    due = sorted(job["run_at"] - clock.now for job in await clock.jobs())
    assert due == [MINUTE, 2 * MINUTE]


async def test_one_that_is_removed_and_added_anew_is_another_one(clock: Clockwork):
    await clock.add("* * * * *")
    await clock.after(MINUTE)
    clock.now += MINUTE
    (due,) = await clock.timetable.due(count=10, now=clock.now)
    await clock.timetable.remove(["s"])
    await clock.add("every 30s", anchor=BEGIN)
    await clock.lead()
    assert clock.term is not None
    held = await clock.timetable.fire(
        [Decider().decision(due)], name=NAME, worker_id=clock.worker_id, term=clock.term, now=clock.now
    )
    assert held == set()


async def test_long_downtimes_of_many_are_caught_up_in_slices(
    clock: Clockwork, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scheduler, "SLICE_SECONDS", 0.0)
    for n in range(5):
        await clock.add("* * * * *", f"s{n}")
    clock.now += 60 * MINUTE
    await clock.lead()
    assert clock.term is not None
    due = await clock.timetable.due(count=10, now=clock.now)
    assert await clock.scheduler._decide(due, clock.term) == (1, 1)
    await clock.scheduler.once(clock.term)
    for n in range(5):
        assert await clock.fired(f"s{n}") == [60]


async def test_what_is_least_overdue_has_the_first_turn(clock: Clockwork):
    await clock.add("0 * * * *", "old")
    await clock.add("*/7 * * * *", "young")
    await clock.at(clock.now)
    due = await clock.timetable.due(count=1, now=BEGIN + 64 * MINUTE)
    assert [each.entry.id for each in due] == ["old"]
    await clock.add("* * * * *", "new")
    due = await clock.timetable.due(count=3, now=BEGIN + 64 * MINUTE)
    assert [each.entry.id for each in due] == ["new", "old", "young"]


async def test_a_fire_and_a_deploy_do_not_lock_each_other_out(clock: Clockwork, rival: Clockwork):
    # What is due first has the last of the ids, so that both would lock them in opposite orders.
    def declared(priority: int) -> list[Terms]:
        return [
            terms(f"s{n:03}", f"every {600 - n}s", "tick", owner="code", anchor=BEGIN, priority=priority)
            for n in range(300)
        ]

    await clock.timetable.put(declared(0), replace=True, now=clock.now)
    await clock.at(clock.now)
    for turn in range(1, 10):
        await asyncio.gather(
            clock.after(15 * MINUTE), rival.timetable.put(declared(turn), replace=True, now=clock.now)
        )
    assert {entry.priority for entry in await clock.timetable.schedules(count=300)} == {9}


async def test_who_has_lost_the_lead_writes_nothing(clock: Clockwork, rival: Clockwork):
    await clock.add("* * * * *")
    assert await clock.lead()
    stale = clock.term
    rival.now = clock.now + timedelta(seconds=30)
    assert await rival.lead()
    clock.now += MINUTE
    assert stale is not None
    await clock.scheduler.once(stale)
    assert await clock.history() == []
    await rival.at(clock.now)
    assert await rival.fired() == [1]


async def test_what_changed_since_it_was_read_is_decided_anew(clock: Clockwork):
    await clock.add("* * * * *")
    await clock.lead()
    clock.now += MINUTE
    (due,) = await clock.timetable.due(count=10, now=clock.now)
    await clock.add("0 0 1 1 *")
    decision = Decider().decision(due)
    assert len(decision.occurrences) == 1
    await clock.lead()
    assert clock.term is not None
    held = await clock.timetable.fire(
        [decision], name="jobd", worker_id=clock.worker_id, term=clock.term, now=clock.now
    )
    assert held == set()
    assert await clock.jobs() == []


async def test_what_is_no_longer_declared_is_paused_and_comes_back_with_its_declaration(link: Link):
    both = [terms(id, "* * * * *", "tick", owner="code", max_instances=10) for id in ("kept", "dropped")]
    await Clockwork(link, declared={"code": both}).scheduler.declare(None)
    later = Clockwork(link, declared={"code": both[:1]})
    await later.scheduler.declare(None)
    assert later.told == [ScheduleDropped("dropped", "code")]
    entries = await later.timetable.schedules()
    assert [(entry.id, entry.paused_by) for entry in entries] == [("dropped", "deploy"), ("kept", None)]
    await Clockwork(link, declared={"code": both}).scheduler.declare(None)
    assert [entry.paused_by for entry in await later.timetable.schedules()] == [None, None]


async def test_what_was_added_at_run_time_is_left_alone_by_a_deploy(clock: Clockwork, link: Link):
    await clock.add("* * * * *", "mine")
    await Clockwork(link, declared={"code": []}).scheduler.declare(None)
    entry = await clock.timetable.schedule("mine")
    assert entry is not None and entry.paused_at is None


async def test_a_schedule_moves_between_owners_of_one_process_without_being_paused(link: Link):
    clock = Clockwork(link, declared={"code:a": [terms("s", "0 3 * * *", "tick", owner="code:a", now=BEGIN)]})
    await clock.scheduler.declare(None)
    moved = Clockwork(
        link,
        declared={"code:a": [], "file:a": [terms("s", "0 3 * * *", "tick", owner="file:a", now=BEGIN)]},
    )
    moved.now = BEGIN + timedelta(hours=3, minutes=5)
    await moved.scheduler.declare(None)
    assert moved.told == []
    await moved.at(moved.now)
    assert await moved.fired() == [180]


async def test_an_id_that_two_applications_declare_is_told(link: Link):
    def declared(owner: str) -> Clockwork:
        return Clockwork(link, declared={owner: [terms("s", "@daily", "tick", owner=owner, now=BEGIN)]})

    await declared("code:a").scheduler.declare(None)
    other = declared("code:b")
    await other.scheduler.declare(None)
    assert other.told == [ScheduleTaken("s", "code:b", "code:a")]
    again = declared("code:b")
    await again.scheduler.declare(None)
    assert again.told == []


async def test_who_begins_to_lead_declares_again(link: Link):
    made = [terms("s", "@daily", "tick", owner="code", now=BEGIN)]
    old = Clockwork(link, declared={"code": [*made, terms("x", "@daily", "tick", owner="code", now=BEGIN)]})
    new = Clockwork(link, declared={"code": made})
    await new.scheduler.declare(None)
    await old.scheduler.declare(None)
    await new.scheduler.declare(None)
    assert [entry.paused_by for entry in await new.timetable.schedules()] == [None, None]
    await new.scheduler.declare(7)
    assert [entry.paused_by for entry in await new.timetable.schedules()] == [None, "deploy"]


async def test_a_declaration_that_the_database_refuses_holds_up_no_other(link: Link):
    good, bad = (terms(id, "@daily", "tick", owner="code", now=BEGIN) for id in ("good", "bad"))
    clock = Clockwork(link, declared={"code": [replace(bad, overlap="?"), good]})
    await clock.scheduler.declare(None)
    assert [entry.id for entry in await clock.timetable.schedules()] == ["good"]
    (told,) = clock.told
    assert isinstance(told, ScheduleFaulty) and told.schedule_id == "bad"


async def test_changed_at_run_time_it_stays_its_owners(clock: Clockwork, link: Link):
    made = [terms("s", "@daily", "tick", owner="code", now=BEGIN)]
    await Clockwork(link, declared={"code": made}).scheduler.declare(None)
    await clock.add("@hourly")
    entry = await clock.timetable.schedule("s")
    assert entry is not None and (entry.owner, entry.expression) == ("code", "@hourly")


async def test_one_that_had_ended_goes_on_from_now(clock: Clockwork):
    await clock.add("* * * * *", ends_at=BEGIN + 2 * MINUTE, max_instances=10)
    for _ in range(10):
        await clock.after(MINUTE)
    await clock.add("* * * * *", ends_at=BEGIN + 30 * MINUTE, max_instances=10)
    await clock.after(MINUTE)
    assert [row[0] for row in await clock.history()] == [1, 2, 11]


async def test_another_start_loses_nothing_that_is_overdue(clock: Clockwork):
    await clock.add("0 3 * * *", starts_at=BEGIN)
    await clock.at(BEGIN + 179 * MINUTE)
    clock.now += 6 * MINUTE
    await clock.add("0 3 * * *", starts_at=BEGIN + MINUTE)
    await clock.at(clock.now)
    assert await clock.fired() == [180]


@pytest.mark.parametrize("column", ["anchor", "starts_at", "ends_at"])
async def test_a_time_that_python_does_not_know_is_refused_by_the_table(clock: Clockwork, column: str):
    await clock.add("* * * * *")
    with pytest.raises(Refused, match="schedules_times_check"):
        await query(clock.link, f"update jobd.schedules set {column} = 'infinity'")


async def test_declaring_the_same_again_changes_nothing(clock: Clockwork):
    await clock.add("*/5 * * * *", payload='{"a": [1]}', jitter="3s", timeout="1m", tags=["x"], anchor=None)
    before = await clock.timetable.schedule("s")
    await clock.add("*/5 * * * *", payload='{"a": [1]}', jitter="3s", timeout="1m", tags=["x"], anchor=None)
    assert await clock.timetable.schedule("s") == before
    await clock.add("*/5 * * * *", payload='{"a": [2]}', jitter="3s", timeout="1m", tags=["x"], anchor=None)
    after = await clock.timetable.schedule("s")
    assert after is not None and before is not None
    assert (after.payload, after.revision) == ({"a": [2]}, before.revision + 1)


async def test_declaring_again_does_not_lose_what_is_overdue(clock: Clockwork, link: Link):
    made = terms("s", "0 3 * * *", "tick", owner="code", now=BEGIN)
    await clock.timetable.put([made], replace=True, now=BEGIN)
    clock.now = BEGIN + timedelta(hours=3, minutes=5)
    await clock.timetable.put([made], replace=True, now=clock.now)
    await clock.at(clock.now)
    assert await clock.fired() == [180]


async def test_a_schedule_written_by_hand_that_cannot_be_computed_rests_and_is_told(clock: Clockwork):
    await clock.add("* * * * *")
    await query(clock.link, "update jobd.schedules set expression = 'nonsense', revision = revision + 1")
    await clock.after(MINUTE)
    (told,) = clock.told
    assert isinstance(told, ScheduleFaulty)
    entry = await clock.timetable.schedule("s")
    assert entry is not None and entry.fault == told.fault and "nonsense" in told.fault
    await clock.add("* * * * *")
    await clock.after(MINUTE)
    assert len(await clock.fired()) == 1


async def test_a_schedule_written_by_hand_whose_job_is_refused_rests_and_holds_up_no_other(clock: Clockwork):
    for id in ("good", "wrong", "well"):
        await clock.add("* * * * *", id)
    await query(clock.link, "update jobd.schedules set delay_tolerance = '9000 years' where id = 'wrong'")
    await clock.after(MINUTE)
    assert [await clock.fired(id) for id in ("good", "wrong", "well")] == [[1], [], [1]]
    entry = await clock.timetable.schedule("wrong")
    assert entry is not None and entry.fault is not None and entry.due_at is None
    assert [told.schedule_id for told in clock.told if isinstance(told, ScheduleFaulty)] == ["wrong"]
    # What it missed meanwhile is decided once it is right.
    await clock.add("* * * * *", "wrong")
    await clock.after(MINUTE)
    assert await clock.fired("wrong") == [2]


async def test_a_schedule_that_occurs_at_other_times_begins_to_count_anew(clock: Clockwork):
    await clock.add((BEGIN + MINUTE).isoformat(), max_runs=1)
    await clock.after(MINUTE)
    await clock.end_jobs()
    await clock.add((BEGIN + 3 * MINUTE).isoformat(), max_runs=1)
    await clock.after(2 * MINUTE)
    assert await clock.fired() == [1, 3]


async def test_a_trigger_runs_at_once_even_of_a_paused_schedule(clock: Clockwork):
    await clock.add("0 0 1 1 *", payload='{"a": 1}')
    await clock.timetable.pause_schedule("s", by="me")
    id = uuid7()
    assert await clock.timetable.trigger("s", job_id=id, now=clock.now)
    assert not await clock.timetable.trigger("unknown", job_id=uuid7())
    (job,) = await clock.jobs()
    assert (job["id"], job["state"], job["payload"]) == (id, "ready", '{"a": 1}')
    assert await clock.history() == [(0, 0, 1, "ran", "triggered")]


async def test_old_rows_are_forgotten(clock: Clockwork):
    await clock.add("* * * * *", catch_up="all", max_instances=100)
    await clock.after(10 * MINUTE)
    text = "update jobd.schedule_runs set decided_at = $1::timestamptz where fire_at <= $2::timestamptz"
    await query(clock.link, text, BEGIN - timedelta(days=100), BEGIN + 4 * MINUTE)
    assert await clock.timetable.forget(timedelta(days=90), batch=3, now=BEGIN) == 3
    assert await clock.timetable.forget(timedelta(days=90), batch=3, now=BEGIN) == 1
    assert await clock.fired() == [5, 6, 7, 8, 9, 10]


async def test_schedules_are_counted_by_what_holds_them_up(clock: Clockwork):
    for id in ("a", "b", "paused", "faulty"):
        await clock.add("* * * * *", id=id)
    await clock.add((BEGIN + MINUTE).isoformat(), id="ended")
    await clock.after(2 * MINUTE)
    await clock.timetable.pause_schedule("paused", by="me")
    await query(clock.link, "update jobd.schedules set fault = 'no such zone' where id = 'faulty'")
    assert await clock.timetable.tally() == {"active": 2, "paused": 1, "faulty": 1, "ended": 1}


async def test_the_nearest_of_code_and_file_are_told_by_id_and_the_others_as_one(clock: Clockwork):
    for minutes, id, owner in [
        (5, "a", "code"),
        (3, "b", "file"),
        (7, "c", "code"),
        (2, "d", "api"),
        (1, "e", "api"),
    ]:
        when = (BEGIN + minutes * MINUTE).isoformat()
        await clock.timetable.put([terms(id, when, "tick", owner=owner, now=BEGIN)], replace=True, now=BEGIN)
    assert await clock.timetable.nearest(count=2) == {}
    await clock.at(BEGIN)
    await clock.timetable.pause_schedule("e", by="me")
    assert await clock.timetable.nearest(count=2) == {
        "b": BEGIN + 3 * MINUTE,
        "a": BEGIN + 5 * MINUTE,
        None: BEGIN + 2 * MINUTE,
    }
