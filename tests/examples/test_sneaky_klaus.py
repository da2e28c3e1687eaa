"""The gift exchange: when reminders are planned, what its handlers do when called, and all of it running."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from examples.sneaky_klaus import exchanges
from examples.sneaky_klaus.app import create_jobs
from examples.sneaky_klaus.clock import Clock
from examples.sneaky_klaus.exchanges import Exchange
from examples.sneaky_klaus.nightly import auto_complete_exchanges, purge_old_exchanges
from jobd import Cancel, Discard, Schedule, Snooze
from tests.edges.smtp_peer import Postbox, serving
from tests.examples.klaus import NOON, Klaus, opened, recipients
from tests.signals import eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "sneaky_klaus"


def an_exchange(date: str, timezone: str, *, reminder_time: time | None = None) -> Exchange:
    return Exchange(
        id=1,
        name="Office party",
        state="matched",
        timezone=timezone,
        exchange_date=datetime.fromisoformat(date),
        reminder_days=[7, 3, 1],
        reminder_time=reminder_time,
        admin_email="admin@example.com",
        completed_at=None,
        warned_at=None,
    )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# When.


def test_a_reminder_keeps_the_wall_clock_of_the_exchange_across_the_end_of_summer_time():
    exchange = an_exchange("2026-11-04 18:00", "America/New_York")
    assert exchange.happens_at.isoformat() == "2026-11-04T23:00:00+00:00"  # EST
    assert exchange.reminder_at(7).isoformat() == "2026-10-28T22:00:00+00:00"  # 18:00 EDT
    assert exchange.reminder_at(3).isoformat() == "2026-11-01T23:00:00+00:00"  # the day of the change


def test_a_reminder_in_the_hour_that_summer_time_skips_comes_right_after_it():
    exchange = an_exchange("2026-04-05 02:30", "Europe/Berlin")
    assert exchange.reminder_at(7) == utc("2026-03-29 01:30")  # shown as 03:30


def test_a_reminder_in_the_hour_that_comes_twice_comes_the_first_time():
    exchange = an_exchange("2026-11-01 02:30", "Europe/Berlin")
    assert exchange.reminder_at(7) == utc("2026-10-25 00:30")


def test_reminders_can_have_a_time_of_day_of_their_own():
    exchange = an_exchange("2026-11-04 18:00", "America/New_York", reminder_time=time(9))
    assert exchange.reminder_at(1) == utc("2026-11-03 14:00")


def test_a_hurried_clock_translates_its_moments_into_real_ones():
    real = NOON
    clock = Clock(start=utc("2026-12-01"), day=timedelta(seconds=5), real_now=lambda: real)
    assert clock.real(utc("2026-12-03")) == NOON + timedelta(seconds=10)
    real += timedelta(seconds=5)
    assert clock.now() == utc("2026-12-02")
    assert clock.until(utc("2026-12-01")) == timedelta(seconds=-5)


# Planning reminders.


async def test_a_matched_exchange_is_reminded_of_7_3_and_1_days_before(klaus: Klaus):
    exchange_id = await klaus.exchange(state="open")
    await klaus.change(exchange_id, state="matched")
    assert await klaus.planned() == {
        f"reminder_exchange_{exchange_id}_days_7": utc("2026-10-28 22:00"),
        f"reminder_exchange_{exchange_id}_days_3": utc("2026-11-01 23:00"),
        f"reminder_exchange_{exchange_id}_days_1": utc("2026-11-03 23:00"),
    }


async def test_reminders_that_would_lie_in_the_past_are_left_out(klaus: Klaus):
    klaus.now = utc("2026-11-02 00:00")
    exchange_id = await klaus.exchange()
    await klaus.change(exchange_id)
    assert list(await klaus.planned()) == [f"reminder_exchange_{exchange_id}_days_1"]


async def test_new_reminder_days_replace_the_old_ones(klaus: Klaus):
    exchange_id = await klaus.exchange()
    await klaus.change(exchange_id)
    await klaus.change(exchange_id, reminder_days=[3, 2])
    assert await klaus.planned() == {
        f"reminder_exchange_{exchange_id}_days_3": utc("2026-11-01 23:00"),
        f"reminder_exchange_{exchange_id}_days_2": utc("2026-11-02 23:00"),
    }


async def test_a_new_date_moves_the_reminders(klaus: Klaus):
    exchange_id = await klaus.exchange(days=[1])
    await klaus.change(exchange_id)
    await klaus.change(exchange_id, exchange_date=datetime(2026, 11, 10, 18))
    assert await klaus.planned() == {f"reminder_exchange_{exchange_id}_days_1": utc("2026-11-09 23:00")}


async def test_reminders_of_other_exchanges_stay(klaus: Klaus):
    ids = [await klaus.exchange(days=[1]) for _ in range(11)]
    for exchange_id in ids:
        await klaus.change(exchange_id)
    await klaus.change(ids[0], state="completed")
    assert set(await klaus.planned()) == {f"reminder_exchange_{id}_days_1" for id in ids[1:]}


async def test_a_change_that_is_rolled_back_changes_no_reminder(klaus: Klaus):
    exchange_id = await klaus.exchange(days=[1])
    await klaus.change(exchange_id)
    before = await klaus.planned()
    with pytest.raises(ZeroDivisionError):
        async with klaus.transaction() as tx:
            await exchanges.change(tx, exchange_id, reminder_days=[5, 2])
            await klaus.plan(tx, exchange_id)
            raise ZeroDivisionError
    assert await klaus.planned() == before


# Sending reminders.


async def test_only_those_who_take_part_and_want_reminders_get_one(klaus: Klaus):
    exchange_id = await klaus.exchange("Office party", "Ada", "Grace")
    async with klaus.transaction() as tx:
        await exchanges.join(tx, exchange_id, "Linus", "linus@example.com", reminder_enabled=False)
        bob = await exchanges.join(tx, exchange_id, "Bob", "bob@example.com")
        await exchanges.withdraw(tx, bob, now=NOON)
    result = await klaus.remind(exchange_id, 7)
    assert recipients(await klaus.mails()) == ["ada@example.com", "grace@example.com"]
    assert result == {"exchange": "Office party", "days": 7, "queued": 2, "failed": 0}


@pytest.mark.parametrize("state", ["open", "completed"])
async def test_nobody_is_reminded_of_an_exchange_that_is_not_matched(klaus: Klaus, state: str):
    exchange_id = await klaus.exchange("Office party", "Ada", state=state)
    assert await klaus.remind(exchange_id, 7) == {"queued": 0, "failed": 0}
    assert await klaus.mails() == []


async def test_a_purged_exchange_is_no_error(klaus: Klaus):
    assert await klaus.remind(4711, 7) == {"queued": 0, "failed": 0}


async def test_an_exchange_without_participants_is_no_error(klaus: Klaus):
    result = await klaus.remind(await klaus.exchange("Office party"), 7)
    assert (result["queued"], result["failed"]) == (0, 0)


async def test_one_address_that_is_none_does_not_stop_the_others(klaus: Klaus):
    exchange_id = await klaus.exchange("Office party", "Ada")
    async with klaus.transaction() as tx:
        await exchanges.join(tx, exchange_id, "Eve", "eve@example.com\r\nBcc: all@example.com")
        await exchanges.join(tx, exchange_id, 'Grace "Amazing" Hopper, USN', "grace@example.com")
    result = await klaus.remind(exchange_id, 7)
    assert recipients(await klaus.mails()) == ["ada@example.com", "grace@example.com"]
    assert (result["queued"], result["failed"]) == (2, 1)


async def test_each_mail_is_tried_three_times_with_4_to_60_seconds_between(klaus: Klaus):
    await klaus.remind(await klaus.exchange("Office party", "Ada"), 7)
    [mail] = await klaus.mails()
    assert mail["max_attempts"] == 3
    assert re.search('"minimum": "4s"', mail["backoff"])
    assert re.search('"maximum": "1m"', mail["backoff"])


async def test_a_reminder_claimed_while_its_exchange_is_moved_waits_for_the_new_time(klaus: Klaus):
    exchange_id = await klaus.exchange("Office party", "Ada")
    klaus.now = utc("2026-10-26 22:00")
    with pytest.raises(Snooze) as snooze:
        await klaus.remind(exchange_id, 7, planned=True)
    assert snooze.value.delay == timedelta(days=2)
    assert await klaus.mails() == []


async def test_a_reminder_claimed_while_its_day_is_taken_off_is_cancelled(klaus: Klaus):
    exchange_id = await klaus.exchange("Office party", "Ada", days=[3])
    with pytest.raises(Cancel, match="7 days before"):
        await klaus.remind(exchange_id, 7, planned=True)


@pytest.mark.parametrize(("late", "sent"), [(timedelta(minutes=30), True), (timedelta(minutes=61), False)])
async def test_a_late_reminder_is_sent_within_an_hour_and_recorded_as_missed_after(
    klaus: Klaus, late: timedelta, sent: bool
):
    exchange_id = await klaus.exchange("Office party", "Ada")
    klaus.now = utc("2026-10-28 22:00") + late
    if sent:
        assert (await klaus.remind(exchange_id, 7, planned=True))["queued"] == 1
    else:
        with pytest.raises(Discard, match="missed"):
            await klaus.remind(exchange_id, 7, planned=True)


async def test_an_admin_may_remind_at_any_time(klaus: Klaus):
    exchange_id = await klaus.exchange("Office party", "Ada", days=[3])
    assert (await klaus.remind(exchange_id, 20))["queued"] == 1


# Every night.


async def test_exchanges_are_completed_once_their_wall_clock_says_so(klaus: Klaus):
    await klaus.exchange("Tokyo", timezone="Asia/Tokyo", date="2026-10-02 00:00")
    await klaus.exchange("New York", timezone="America/New_York", date="2026-10-02 00:00")
    klaus.now = utc("2026-10-02 00:00")
    assert await auto_complete_exchanges(klaus.pool, klaus.clock) == {"completed": ["Tokyo"]}
    assert await klaus.names("matched") == ["New York"]
    [row] = await klaus.query("select completed_at from klaus.exchanges where state = 'completed'")
    assert row["completed_at"] == klaus.now


async def test_an_exchange_that_cannot_be_completed_does_not_stop_the_others(klaus: Klaus):
    await klaus.exchange("Nowhere", timezone="Europe/Atlantis", date="2026-09-01 18:00")
    await klaus.exchange("Office party", date="2026-09-01 18:00")
    with pytest.raises(RuntimeError, match="1 of 2 exchanges failed"):
        await auto_complete_exchanges(klaus.pool, klaus.clock)
    assert await klaus.names("completed") == ["Office party"]


async def test_exchanges_are_removed_with_their_participants_30_days_after_completion(klaus: Klaus):
    await klaus.completed("Old", at=NOON - timedelta(days=30))
    await klaus.completed("Newer", at=NOON - timedelta(days=30) + timedelta(seconds=1))
    result = await purge_old_exchanges(klaus.ctx, klaus.pool, klaus.clock)
    assert result["purged"] == ["Old"]
    assert await klaus.names("completed") == ["Newer"]
    assert len(await klaus.query("select from klaus.participants")) == 1


async def test_the_admin_is_warned_once_a_week_before_the_removal(klaus: Klaus):
    await klaus.completed("Office party", at=NOON)
    nights = [NOON + timedelta(days=day) for day in (22, 23, 24)]
    warned = []
    for klaus.now in nights:
        warned.append((await purge_old_exchanges(klaus.ctx, klaus.pool, klaus.clock))["warned"])
    assert warned == [[], ["Office party"], []]
    assert recipients(await klaus.mails()) == ["admin@example.com"]


def fires_first(clock: Clock, after: datetime) -> dict[str, datetime | None]:
    return {
        terms.id: Schedule.parse(terms.expression, tz=terms.time_zone, anchor=terms.anchor).next_after(after)
        for terms in create_jobs(clock=clock).declared_schedules
    }


def test_exchanges_are_completed_at_midnight_and_removed_at_two():
    assert fires_first(Clock(), NOON) == {
        "auto_complete_exchanges": utc("2026-10-02 00:00"),
        "purge_old_exchanges": utc("2026-10-02 02:00"),
    }


def test_the_nights_of_a_story_come_when_its_days_end():
    clock = Clock(start=utc("2026-11-30 08:00"), day=timedelta(seconds=12), real_now=lambda: NOON)
    assert fires_first(clock, NOON) == {
        "auto_complete_exchanges": NOON + timedelta(seconds=8),
        "purge_old_exchanges": NOON + timedelta(seconds=9),
    }


# All of it, running.


async def test_reminders_reach_a_mail_server_though_it_refuses_one_of_them(klaus: Klaus, database_url: str):
    exchange_id = await klaus.exchange("Office party", "Ada", "Gone", "Grace")
    postbox = Postbox(rcpt={"gone@example.com": "550 no such user"})
    async with serving(postbox) as port:
        jobs = create_jobs(database_url=database_url, smtp=mail_server(port))
        async with jobs.running():
            job = await jobs.enqueue("send_reminders", {"exchange_id": exchange_id, "days": 3})
            assert (await jobs.wait(job.id, timeout=20)).result["queued"] == 3
            await eventually(klaus.mails, until=lambda mails: not mails)
    assert sorted(mail["To"] for mail in postbox.messages) == [
        "Ada <ada@example.com>",
        "Grace <grace@example.com>",
    ]
    assert {mail["Subject"] for mail in postbox.messages} == {"Office party is in 3 days"}
    ended = await klaus.query("select state from jobd.job_history where kind = 'email' order by state")
    assert [job["state"] for job in ended] == ["dead", "succeeded", "succeeded"]


async def test_an_exchange_lives_its_whole_life_on_a_running_daemon(database_url: str):
    postbox = Postbox()
    async with serving(postbox) as port, opened(database_url, smtp=mail_server(port)) as klaus:
        klaus.now = utc("2100-10-20 12:00")  # nothing becomes due by itself
        async with klaus.jobs.running():
            exchange_id = await klaus.exchange("Office party", "Ada", date="2100-11-04 18:00", days=[7, 1])
            await klaus.change(exchange_id)
            # The scheduler writes down what decorators declare.
            await eventually(klaus.jobs.schedules.list, until=lambda known: len(known) == 2)
            for run, name, date in (
                (klaus.let_night_come, "auto_complete_exchanges", "2100-10-21 00:00"),
                (klaus.let_run, f"reminder_exchange_{exchange_id}_days_7", "2100-10-28 22:00"),
                (klaus.let_run, f"reminder_exchange_{exchange_id}_days_1", "2100-11-03 23:00"),
                (klaus.let_night_come, "auto_complete_exchanges", "2100-11-05 00:00"),
                (klaus.let_night_come, "purge_old_exchanges", "2100-11-28 02:00"),
                (klaus.let_night_come, "purge_old_exchanges", "2100-12-05 02:00"),
            ):
                assert (await run(name, at=utc(date))).state == "succeeded"
            await eventually(klaus.mails, until=lambda mails: not mails)
            assert await klaus.query("select from klaus.exchanges") == []
    assert sorted(mail["Subject"] for mail in postbox.messages) == [
        "Office party is in 7 days",
        "Office party is tomorrow",
        "Office party will be removed on 5 December",
    ]


async def test_what_the_readme_of_the_example_shows_works(
    klaus: Klaus, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JOBD_DATABASE_URL", database_url)
    [code] = re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code.replace("asyncio.run(main())", ""), "README.md", "exec"), names)
    await names["main"]()  # type: ignore[operator]
    assert len(await klaus.planned()) == 3


def mail_server(port: int) -> dict[str, object]:
    return {"host": "127.0.0.1", "port": port, "tls": "none", "sender": "Sneaky Klaus <klaus@example.com>"}
