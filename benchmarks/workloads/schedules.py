"""Ten thousand schedules on a daemon that does nothing else, each measurement in one go:

    start       no schedule has been looked at yet: until all of them have been
    idle        nothing occurs: what the daemon and PostgreSQL spend
    the minute  a thousand crons, of as many spellings as there are, occur at the same full minute
    the spread  a thousand others, half of them dates and half crons with seconds, occur within a minute

Times are of one machine's clock. An occurrence counts from when it was due until another session heard that
it was committed: a trigger notifies of each transaction. The jobs stay where they are, since the daemon
has the role `scheduler` alone. The same daemon without schedules tells what of its idling they are.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from benchmarks.bench import Bench, Case
from benchmarks.bounds import percentile
from benchmarks.contestant import Contestant, Failed, Running
from benchmarks.machine import cpu_seconds
from benchmarks.store import PostgresStore
from jobd.schedule import Schedule

ARGUMENTS = "--only scheduler"
START_SECONDS = 60
# A cron with seconds and a date tell the commits of a second apart; before and after the minute is quiet.
QUIET = timedelta(seconds=5)
LATE_SECONDS = 30
# Nothing else occurs for so long.
LONG = timedelta(minutes=20)
ZONES = (
    "UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "America/Sao_Paulo",
    "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo", "Asia/Dubai", "Australia/Sydney", "Pacific/Auckland",
)  # fmt: skip
NOT_LOOKED_AT = "select count(*) from jobd.schedules where due_at = 'epoch'"
HEARD = """
create function bench_committed() returns trigger language plpgsql as $$
begin
    perform pg_notify('bench_committed', pg_current_xact_id()::text);
    return null;
end
$$;
create trigger bench_committed after insert on jobd.schedule_runs
   for each statement execute function bench_committed();
"""
# `xmin` is the transaction's number without its epoch, which a new server has not left yet.
OCCURRED = """
select r.fire_at, r.decided_at, j.created_at, r.xmin::text
  from jobd.schedule_runs r join jobd.jobs j on j.id = r.job_id
 where r.schedule_id like %s and r.outcome = 'ran'
"""


class Written(NamedTuple):
    """A schedule, as it is put into the database."""

    id: str
    expression: str
    zone: str
    seconds: str | None = None


def run(bench: Bench) -> None:
    if (jobd := bench.get("jobd")) is None:
        return
    cases = [Case(jobd, "none"), Case(jobd)]
    bench.rounds(
        "schedules",
        cases,
        lambda case: _idle_alone(bench, jobd) if case.variant else _measure(bench, jobd),
    )


def _idle_alone(bench: Bench, jobd: Contestant) -> dict[str, float]:
    with bench.store(jobd) as store, bench.working(jobd, store.url, arguments=ARGUMENTS) as worker:
        assert isinstance(store, PostgresStore)
        _until(lambda: bool(store.value("select count(*) from jobd.leader")), worker, "nobody leads")
        time.sleep(QUIET.total_seconds())
        return _idle(store, worker, bench.sizes.schedules_idle_seconds)


def _measure(bench: Bench, jobd: Contestant) -> dict[str, float]:
    sizes = bench.sizes
    begin = datetime.now(UTC)
    minute, spread = plan_of(begin, idle=sizes.schedules_idle_seconds)
    with bench.store(jobd) as store:
        assert isinstance(store, PostgresStore)
        _fill(store, "minute", same_minute(sizes.schedules_at_once, begin, minute))
        ends = spread + timedelta(seconds=sizes.schedules_spread_seconds)
        _fill(store, "spread", spread_out(sizes.schedules_at_once, spread, ends))
        _fill(store, "other", others(sizes.schedules - 2 * sizes.schedules_at_once, begin, begin + LONG))
        store.settle()
        store.connection.execute(HEARD)
        with (
            _committed(bench, store) as committed,
            bench.working(jobd, store.url, arguments=ARGUMENTS) as worker,
        ):
            _until(lambda: bool(store.value("select count(*) from jobd.leader")), worker, "nobody leads")
            started = time.monotonic()
            _until(lambda: not store.value(NOT_LOOKED_AT), worker, "not all schedules were looked at")
            looked = time.monotonic() - started
            time.sleep(1)
            left = (minute - datetime.now(UTC)).total_seconds()
            if left < sizes.schedules_idle_seconds:
                raise Failed(f"{left:.0f} s before the minute are too few to see it idle")
            idle = _idle(store, worker, left - 1)
            _sleep_until(ends)
            due = 2 * sizes.schedules_at_once
            _until(lambda: store.value("select count(*) from jobd.jobs") >= due, worker, "not all occurred")
            worker.stop()
        at_once, inserted = _lateness(store, "minute", committed)
        late, _ = _lateness(store, "spread", committed)
    return {
        "schedules": sizes.schedules,
        "at_once": len(at_once),
        "minute_seconds": max(at_once),
        "minute_inserted_seconds": max(inserted),
        "late_p50_ms": percentile(late, 50) * 1000,
        "late_p99_ms": percentile(late, 99) * 1000,
        "late_most_ms": max(late) * 1000,
        "look_seconds": looked,
        **idle,
    }


def plan_of(begin: datetime, *, idle: float) -> tuple[datetime, datetime]:
    """The full minute at which many occur, late enough to see the daemon idle, and when the spread begins."""
    soonest = begin + 2 * QUIET + timedelta(seconds=idle)
    minute = soonest.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return minute, minute + QUIET


def same_minute(count: int, begin: datetime, minute: datetime) -> Iterator[Written]:
    """Crons that occur at a minute, and at no other time from `begin` until long after."""
    rng = random.Random(1)
    while count:
        zone = rng.choice(ZONES)
        local = minute.astimezone(Schedule.parse("@daily", tz=zone).zone)
        at, hour = local.minute, local.hour
        around = f"{max(hour - rng.randint(0, 6), 0)}-{min(hour + rng.randint(1, 6), 23)}"
        text = rng.choice(
            [
                f"{at} * * * *",
                f"{at} {hour} * * *",
                f"{at} {around} * * *",
                f"{at} {hour} * * {local:%a},{rng.choice(['MON', 'WED', 'SUN'])}",
                f"{at} {hour} {local.day} * *",
                f"{at} {hour},{rng.randrange(24)} * {local:%b},{rng.randint(1, 12)} *",
                f"cron({at} {hour} ? * {local:%a} *)",
            ]
        )
        written = Written(f"minute-{count:05}", text, zone)
        if _next(written, begin) == minute and _quiet(written, minute, minute + LONG):
            yield written
            count -= 1


def spread_out(count: int, begin: datetime, end: datetime) -> Iterator[Written]:
    """Dates to the microsecond and crons to the second, between two moments of one hour, or nearly."""
    rng = random.Random(2)
    for number in range(count):
        at = begin + (end - begin) * rng.random()
        if number % 2:
            yield Written(f"spread-{number:05}", at.isoformat(), "UTC")
        else:
            yield Written(
                f"spread-{number:05}", f"{at.second} {at.minute} {at.hour} {at.day} * *", "UTC", "first"
            )


def others(count: int, begin: datetime, end: datetime) -> Iterator[Written]:
    """What a company's schedules look like, but for those that would occur between two moments."""
    rng = random.Random(3)
    while count:
        at, hour, day = rng.randrange(60), rng.randrange(24), rng.randint(1, 28)
        weekday = rng.choice(["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"])
        text = rng.choice(
            [
                *[f"{at} {hour} * * *"] * 5,
                *[f"{at} {hour} * * MON-FRI"] * 3,
                f"{at} {hour} * * {weekday}",
                f"{at} {hour} {day} * *",
                f"{at} {hour} L * *",
                f"{at} {hour} 15W * *",
                f"{at} {hour} * * {weekday}#{rng.randint(1, 4)}",
                f"{at} {hour} {day} {rng.randint(1, 12)} *",
                f"{at} */{rng.choice([2, 3, 4, 6, 8])} * * *",
                f"{at} * * * *",
                f"H {hour} * * *",
                rng.choice(["@daily", "@weekly", "@monthly"]),
                f"every {rng.choice([2, 4, 6, 8, 12, 24])}h",
                f"rate({rng.randint(1, 14)} days)",
                f"cron({at} {hour} ? * MON-FRI *)",
                f"{end + timedelta(days=400 * rng.random()):%Y-%m-%dT%H:%M}",
            ]
        )
        written = Written(f"other-{count:05}", text, rng.choice(ZONES))
        if _quiet(written, begin, end):
            yield written
            count -= 1


def _next(written: Written, after: datetime) -> datetime | None:
    return Schedule.parse(written.expression, tz=written.zone, id=written.id).next_after(after)


def _quiet(written: Written, after: datetime, until: datetime) -> bool:
    following = _next(written, after)
    return following is None or following > until


def _fill(store: PostgresStore, owner: str, schedules: Iterator[Written]) -> None:
    with (
        store.connection.cursor() as cursor,
        cursor.copy(
            "copy jobd.schedules (owner, kind, payload, decided_until, id, expression, time_zone, seconds)"
            " from stdin"
        ) as rows,
    ):
        now = datetime.now(UTC)
        for written in schedules:
            rows.write_row((owner, "noop", '{"n": 0}', now, *written))


@contextmanager
def _committed(bench: Bench, store: PostgresStore) -> Iterator[dict[str, float]]:
    """When this process heard of each transaction that wrote occurrences, by its number."""
    heard: dict[str, float] = {}
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            for note in connection.notifies(timeout=0.5):
                heard.setdefault(note.payload, time.time())

    with bench.postgres.connect(store.database) as connection:
        connection.execute("listen bench_committed")
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            ended.set()
            thread.join()


def _lateness(
    store: PostgresStore, owner: str, committed: dict[str, float]
) -> tuple[list[float], list[float]]:
    """How long after it was due the job of each occurrence was committed, and how long after it inserted."""
    rows = store.connection.execute(OCCURRED, [f"{owner}-%"]).fetchall()
    if not rows:
        raise Failed(f"no schedule of {owner} occurred")
    return (
        [committed[number] - due.timestamp() for due, _, _, number in rows],
        [(max(decided, made) - due).total_seconds() for due, decided, made, _ in rows],
    )


def _idle(store: PostgresStore, worker: Running, seconds: float) -> dict[str, float]:
    """The part of a core that the daemon and the database take, in percent."""
    began = time.monotonic()
    daemon, database = cpu_seconds(worker.pid), store.cpu_seconds()
    time.sleep(seconds)
    daemon, database = cpu_seconds(worker.pid) - daemon, store.cpu_seconds() - database
    worker.check()
    elapsed = time.monotonic() - began
    return {"idle_percent": 100 * daemon / elapsed, "idle_database_percent": 100 * database / elapsed}


def _until(condition: Callable[[], bool], worker: Running, otherwise: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{otherwise} within {START_SECONDS} s")
        worker.check()
        time.sleep(0.05)


def _sleep_until(moment: datetime) -> None:
    time.sleep(max((moment - datetime.now(UTC)).total_seconds(), 0) + 1)
