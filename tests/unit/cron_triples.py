"""Random triples of expression, zone and start, near the transitions of every zone: one seed, one list.

The expressions are those that jobd and cronsim both take; what only one of them takes is tested elsewhere.
"""

from __future__ import annotations

import random
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobd.zone import find_zone

FIRST, LAST = 1970, 2037
NEAR = timedelta(hours=36)
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]


@dataclass(frozen=True)
class Triple:
    expression: str
    zone: str
    start: datetime

    @property
    def seconds(self) -> bool:
        return len(self.expression.split()) == 6


def triples(count: int, *, seed: int) -> Iterator[Triple]:
    """`count` triples, each zone of tzdata as often as any other."""
    rng = random.Random(seed)
    # Neither of the two is a place, and jobd refuses both.
    zones = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})
    near = int(NEAR.total_seconds())
    for index in range(count):
        zone = zones[index % len(zones)]
        start = _transition(rng, zone) + timedelta(seconds=rng.randint(-near, near))
        yield Triple(expression(rng), zone, start.replace(tzinfo=UTC))


def _transition(rng: random.Random, zone: str) -> datetime:
    """One of the transitions of the zone; any instant, where it has none after 1970."""
    years = list(range(FIRST, LAST + 1))
    rng.shuffle(years)
    for year in years:
        found = []
        after, until = datetime(year, 1, 1), datetime(year + 1, 1, 1)
        while (transition := find_zone(zone).next_transition(after, until=until)) is not None:
            after = transition.at
            found.append(after)
        if found:
            return rng.choice(found)
    return datetime(years[0], 6, 1)


def expression(rng: random.Random) -> str:
    """An expression that both understand, with a liking for the small hours."""
    minute = _field(rng, 0, 59, stars=0.3, fixed=0.5)
    hour = _field(rng, 0, 23, stars=0.25, fixed=0.5, likely=range(5))
    day, weekday = "*", "*"
    kind = rng.random()
    if kind < 0.15:
        day = rng.choice(["L", str(rng.randint(1, 28)), _field(rng, 1, 31, stars=0.2, fixed=0.3)])
    elif kind < 0.3:
        weekday = _weekday(rng)
    elif kind < 0.4:
        day, weekday = _field(rng, 1, 31, stars=0.3, fixed=0.3), _weekday(rng)
    month = "*"
    if rng.random() < 0.1:
        month = rng.choice([_field(rng, 1, 12, stars=0.2, fixed=0.5), rng.choice(MONTHS)])
        day = "*" if "31" in day or "30" in day or "29" in day else day
    five = f"{minute} {hour} {day} {month} {weekday}"
    if rng.random() < 0.1:
        return f"{_field(rng, 0, 59, stars=0.1, fixed=0.8)} {five}"
    return five


def _field(
    rng: random.Random, low: int, high: int, *, stars: float, fixed: float, likely: range | None = None
) -> str:
    kind = rng.random()
    some = rng.choice(likely) if likely and rng.random() < 0.7 else rng.randint(low, high)
    if kind < stars:
        return rng.choice(["*", "*", f"*/{rng.randint(2, max(2, (high - low) // 2))}"])
    if kind < stars + fixed:
        return str(some)
    end = rng.randint(some, high)
    if end == some:
        return str(some)
    return rng.choice(
        [
            f"{some},{end}",
            f"{some}-{end}",
            f"{some}-{end}/{rng.randint(1, end - some)}",
            f"{some}/{rng.randint(1, max(1, high - some))}",
        ]
    )


def _weekday(rng: random.Random) -> str:
    return rng.choice(
        [
            str(rng.randint(0, 7)),
            rng.choice(WEEKDAYS),
            "MON-FRI",
            "5-7",
            "1,3,6",
            f"*/{rng.randint(2, 7)}",
            f"{rng.randint(0, 6)}/{rng.randint(2, 4)}",
            f"{rng.randint(0, 6)}#{rng.randint(1, 4)}",
            f"{rng.randint(0, 6)}L",
        ]
    )
