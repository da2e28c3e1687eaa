"""Five hundred schedules in twenty zones, for the simulation; 300,000 fires in a year at most."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.engine.schedule_oracle import Clock, Every, Once, Sample

COUNT = 500
MOST_FIRES_A_YEAR = 300_000
# Gaps and repetitions at midnight, of half an hour, by the moon, and none at all.
ZONES = (
    "Africa/Cairo", "Africa/Casablanca", "America/Havana", "America/Los_Angeles", "America/New_York",
    "America/Santiago", "America/Sao_Paulo", "America/St_Johns", "Asia/Beirut", "Asia/Jerusalem",
    "Asia/Kathmandu", "Asia/Kolkata", "Australia/Lord_Howe", "Australia/Sydney", "Europe/Berlin",
    "Europe/Dublin", "Europe/London", "Pacific/Auckland", "Pacific/Chatham", "UTC",
)  # fmt: skip
QUARTERS = (0, 15, 30, 45)


class When(NamedTuple):
    """What a schedule says, and what it means."""

    text: str
    meaning: Clock | Every | Once
    options: Mapping[str, Any] = MappingProxyType({})


def samples(seed: int, begin: datetime, days: int) -> list[Sample]:
    """The same for the same seed."""
    rng = random.Random(seed)
    makers: list[Callable[[], When]] = []
    for share, make in (
        (2, _each_quarter),
        (1, lambda rng: _interval(rng, 15, "every 15m")),
        (5, _hourly),
        (2, lambda rng: _interval(rng, 90, "every 90m")),
        (
            2,
            lambda rng: When(
                "rate(2 hours)", Every(timedelta(hours=2), datetime.fromtimestamp(0, begin.tzinfo))
            ),
        ),
        (8, _some_hours),
        (6, _nights),
        (5, _seconds),
        (140, _daily),
        (140, _weekly),
        (50, _monthly),
        (20, _either_day),
    ):
        makers += [lambda make=make: make(rng)] * share  # type: ignore[misc]
    makers += [lambda: _date(rng, begin, days)] * (COUNT - len(makers))
    return [_sample(rng, n, make(), begin, days) for n, make in enumerate(makers)]


def _sample(rng: random.Random, n: int, when: When, begin: datetime, days: int) -> Sample:
    options = dict(when.options)
    faithful = rng.random() < 0.6
    if faithful:
        options |= {"catch_up": "all", "cap": 1000, "max_instances": 200}
        options |= rng.choice([{}, {"stagger": "1s"}, {"jitter": "10m"}])
    else:
        options |= {"catch_up": rng.choice(["last", "skip", "all"]), "cap": rng.randint(1, 9)}
        options |= rng.choice([{}, {"misfire_grace": "10m"}, {"misfire_grace": None}])
        options |= {"overlap": rng.choice(["skip", "queue", "replace"])}
        options |= {"max_instances": rng.choice([1, 1, 3, 1000])}
    dst = "debian"
    if isinstance(when.meaning, Clock):
        dst = rng.choice(["debian", "debian", "skip", "both"])
        options |= {"starts_at": begin + timedelta(days=days * rng.uniform(0, 0.5))} if n % 7 == 0 else {}
    if n % 5 == 0 and n < 150 and "starts_at" not in options:
        options |= {"ends_at": begin + timedelta(days=days * rng.uniform(0.6, 0.9))}
    if n % 11 == 0 and n < 150:
        options |= {"max_runs": rng.randint(1, days)}
    return Sample(
        id=f"s{n:03}", when=when.text, meaning=when.meaning, tz=ZONES[n % len(ZONES)], dst=dst,
        options=options, faithful=faithful,
    )  # fmt: skip


def _each_quarter(rng: random.Random) -> When:
    return When("*/15 * * * *", Clock(frozenset(QUARTERS), elapsed=True))


def _interval(rng: random.Random, minutes: int, text: str) -> When:
    anchor = datetime.fromisoformat("2026-01-01T00:00+00:00") + timedelta(minutes=15 * rng.randint(0, 95))
    return When(text, Every(timedelta(minutes=minutes), anchor), {"anchor": anchor})


def _hourly(rng: random.Random) -> When:
    minute = rng.choice(QUARTERS)
    return When(f"{minute} * * * *", Clock(frozenset({minute}), elapsed=True))


def _some_hours(rng: random.Random) -> When:
    minute, step = rng.choice(QUARTERS), rng.choice([3, 4, 6])
    return When(
        f"{minute} */{step} * * *", Clock(frozenset({minute}), frozenset(range(0, 24, step)), elapsed=True)
    )


def _nights(rng: random.Random) -> When:
    """Several in one gap."""
    first = rng.randint(0, 2)
    hours = frozenset(range(first, first + 3))
    return When(f"0,30 {first}-{first + 2} * * *", Clock(frozenset({0, 30}), hours))


def _seconds(rng: random.Random) -> When:
    hour, second = rng.randint(0, 4), rng.choice([0, 20, 40])
    meaning = Clock(frozenset({30}), frozenset({hour}), elapsed=True, second=second)
    return When(f"{second} 30 {hour} * * *", meaning, {"seconds": "first"})


def _time(rng: random.Random) -> tuple[int, int]:
    """At night more often than by day, and seldom at odd minutes."""
    minute = rng.choice([*QUARTERS * 3, 1, 59])
    return minute, rng.choice([0, 1, 2, 2, 3, rng.randint(0, 23)])


def _daily(rng: random.Random) -> When:
    minute, hour = _time(rng)
    return When(f"{minute} {hour} * * *", Clock(frozenset({minute}), frozenset({hour})))


def _weekly(rng: random.Random) -> When:
    minute, hour = _time(rng)
    text, weekdays = rng.choice([("0", {0}), ("sun", {0}), ("7", {0}), ("mon,thu", {1, 4}), ("6-7", {6, 0})])
    meaning = Clock(frozenset({minute}), frozenset({hour}), weekdays=frozenset(weekdays))
    return When(f"{minute} {hour} * * {text}", meaning)


def _monthly(rng: random.Random) -> When:
    minute, hour = _time(rng)
    day = rng.randint(1, 31)
    meaning = Clock(frozenset({minute}), frozenset({hour}), days=frozenset({day}))
    return When(f"{minute} {hour} {day} * *", meaning)


def _either_day(rng: random.Random) -> When:
    minute, hour = _time(rng)
    day = rng.randint(1, 28)
    meaning = Clock(
        frozenset({minute}), frozenset({hour}), days=frozenset({day, 29}), weekdays=frozenset({5})
    )
    return When(f"{minute} {hour} {day},29 * fri", meaning)


def _date(rng: random.Random, begin: datetime, days: int) -> When:
    """Not on the first days: somewhere it may be over already when it is declared."""
    at = begin.replace(tzinfo=None) + timedelta(days=rng.randint(2, days - 1))
    minute, hour = _time(rng)
    wall = at.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return When(wall.isoformat(), Once(wall))
