"""Where claims begin: after the last full batch, and below it often enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobd.engine import floors as module
from jobd.engine.floors import Floors
from jobd.job import Claimed, Floor
from tests.factories import claimed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def batch(count: int, *, queue: str = "default", priority: int = 0, minutes: int = 0) -> list[Claimed]:
    return [
        claimed(queue=queue, priority=priority, deadline_at=NOW + timedelta(minutes=minutes, seconds=second))
        for second in range(count)
    ]


def test_a_full_batch_leaves_a_floor_at_its_last_job():
    floors, jobs = Floors(), batch(3)
    assert floors.learn({"default": 3}, {}, jobs) is False
    assert floors.of({"default": 3, "other": 1}) == {"default": Floor(0, jobs[-1].deadline_at, jobs[-1].id)}


def test_a_batch_that_comes_back_short_leaves_none_and_asks_to_look_below():
    floors = Floors()
    floors.learn({"default": 3}, {}, batch(3))
    used = floors.of({"default": 3})
    assert floors.learn({"default": 3}, used, batch(2, minutes=1)) is True
    assert floors.of({"default": 3}) == {}


def test_a_short_batch_from_the_very_start_is_the_end_of_the_queue():
    assert Floors().learn({"default": 3}, {}, batch(2)) is False


def test_each_queue_has_its_own():
    floors = Floors()
    floors.learn({"a": 2, "b": 2}, {}, [*batch(2, queue="a"), *batch(1, queue="b")])
    assert floors.of({"a": 2, "b": 2}).keys() == {"a"}


def test_what_lies_below_is_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch):
    floors = Floors()
    floors.learn({"default": 3}, {}, batch(3))
    used = floors.of({"default": 3})
    floors.learn({"default": 3}, used, batch(3, minutes=1))
    assert floors.of({"default": 3})
    monkeypatch.setattr(module, "LOOK_BELOW_SECONDS", 0.0)
    assert floors.of({"default": 3}) == {}


def test_floors_can_be_forgotten():
    floors = Floors()
    floors.learn({"default": 3}, {}, batch(3))
    floors.forget()
    assert floors.of({"default": 3}) == {}
