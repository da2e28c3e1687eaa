"""Where claims begin: after the last full batch, and below it often enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobd.engine.floors import Floors
from jobd.job import Claimed, Floor
from tests.factories import claimed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def batch(count: int, *, queue: str = "default", priority: int = 0, minutes: int = 0) -> list[Claimed]:
    return [
        claimed(queue=queue, priority=priority, deadline_at=NOW + timedelta(minutes=minutes, seconds=second))
        for second in range(count)
    ]


def learn(floors: Floors, asked: dict[str, int], used: dict[str, Floor], claims: list[Claimed]) -> bool:
    floors.of(asked)
    return floors.learn(asked, used, claims)


def test_a_full_batch_leaves_a_floor_at_its_last_job():
    floors, jobs = Floors(), batch(3)
    assert learn(floors, {"default": 3}, {}, jobs) is False
    assert floors.of({"default": 3, "other": 1}) == {"default": Floor(0, jobs[-1].deadline_at, jobs[-1].id)}


def test_a_batch_that_comes_back_short_leaves_none_and_asks_to_look_below():
    floors = Floors()
    learn(floors, {"default": 3}, {}, batch(3))
    used = floors.of({"default": 3})
    assert learn(floors, {"default": 3}, used, batch(2, minutes=1)) is True
    assert floors.of({"default": 3}) == {}


def test_a_short_batch_from_the_very_start_is_the_end_of_the_queue():
    assert learn(Floors(), {"default": 3}, {}, batch(2)) is False


def test_each_queue_has_its_own():
    floors = Floors()
    learn(floors, {"a": 2, "b": 2}, {}, [*batch(2, queue="a"), *batch(1, queue="b")])
    assert floors.of({"a": 2, "b": 2}).keys() == {"a"}


class Clock:
    """Its statements take `seconds` each."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 100.0, seconds

    def __call__(self) -> float:
        return self.now

    def claim(self, floors: Floors) -> bool:
        """A full claim; whether it had a floor."""
        used = floors.of({"default": 3})
        self.now += self.seconds
        floors.learn({"default": 3}, used, batch(3))
        return bool(used)


@pytest.mark.parametrize(
    ("seconds", "pause"), [(0.0, 0.045), (0.005, 0.045), (0.02, 0.1), (0.6, 1.0)], ids=str
)
def test_what_lies_below_is_looked_at_as_often_as_it_costs_little(seconds: float, pause: float):
    clock = Clock(seconds)
    floors = Floors(clock=clock)
    begun = clock.now
    assert not clock.claim(floors)
    clock.seconds = 0.0
    clock.now = begun + 0.9 * pause
    assert clock.claim(floors)
    clock.now = begun + 1.01 * pause
    assert not clock.claim(floors)


def test_floors_can_be_forgotten():
    floors = Floors()
    learn(floors, {"default": 3}, {}, batch(3))
    floors.forget()
    assert floors.of({"default": 3}) == {}
