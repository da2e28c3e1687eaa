"""Events reach whoever asked for them, and a subscriber that fails harms nobody."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from typing import Any

import pytest

from jobd import events as module
from jobd.events import Events, JobsExpired, JobsRescued, JobsStaged

Heard = list[Any]


def test_each_subscriber_of_a_type_is_told_in_order():
    events, heard = Events(), Heard()
    events.subscribe(JobsStaged, lambda event: heard.append(("first", event.count)))
    events.subscribe(JobsStaged, lambda event: heard.append(("second", event.count)))
    events.subscribe(JobsRescued, lambda event: heard.append(("other", event.count)))
    events.emit(JobsStaged(3))
    assert heard == [("first", 3), ("second", 3)]


def test_what_nobody_asked_for_is_told_to_nobody():
    Events().emit(JobsStaged(1))


def test_a_subscription_can_be_ended():
    events, heard = Events(), Heard()
    stop = events.subscribe(JobsStaged, heard.append)
    events.emit(JobsStaged(1))
    stop()
    events.emit(JobsStaged(2))
    assert heard == [JobsStaged(1)]


def test_a_subscriber_may_end_its_subscription_while_it_is_told():
    events, heard = Events(), Heard()

    def once(event: JobsStaged) -> None:
        heard.append(event.count)
        stop()

    stop = events.subscribe(JobsStaged, once)
    events.subscribe(JobsStaged, lambda event: heard.append(-event.count))
    events.emit(JobsStaged(1))
    events.emit(JobsStaged(2))
    assert heard == [1, -1, -2]


def test_a_subscriber_that_fails_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture):
    events, heard = Events(), Heard()

    def fails(event: JobsStaged) -> None:
        raise RuntimeError("on purpose")

    events.subscribe(JobsStaged, fails)
    events.subscribe(JobsStaged, heard.append)
    with caplog.at_level(logging.ERROR, "jobd.events"):
        events.emit(JobsStaged(1))
    assert heard == [JobsStaged(1)]
    assert "JobsStaged" in caplog.text
    assert "on purpose" in caplog.text


def test_nobody_is_asked_to_build_an_event_that_nobody_wants():
    events = Events()
    assert not events.wants(JobsStaged)
    stop = events.subscribe(JobsStaged, lambda event: None)
    assert events.wants(JobsStaged)
    assert not events.wants(JobsExpired)
    stop()
    assert not events.wants(JobsStaged)


def test_a_relay_passes_everything_on_until_it_ends():
    inner, outer, heard = Events(), Events(), Heard()
    outer.subscribe(JobsStaged, heard.append)
    end = inner.relay(outer)
    assert inner.wants(JobsStaged)
    inner.emit(JobsStaged(1))
    end()
    inner.emit(JobsStaged(2))
    assert (heard, inner.wants(JobsStaged)) == ([JobsStaged(1)], False)


def test_every_event_is_frozen_plain_data_with_a_contract():
    kinds = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and kind is not Events
    ]
    assert len(kinds) > 10
    for kind in kinds:
        if not issubclass(kind, tuple):  # a NamedTuple, for what is told of every job
            assert dataclasses.is_dataclass(kind), kind
            assert getattr(kind, "__dataclass_params__").frozen, kind  # noqa: B009
        assert kind.__doc__, kind
        assert not kind.__doc__.startswith(f"{kind.__name__}("), kind


def test_what_happened_together_is_told_together_and_one_by_one_to_who_asked_for_that():
    events, batches, each = Events(), Heard(), Heard()
    events.subscribe_batches(JobsStaged, lambda batch: batches.append(list(batch)))
    events.subscribe(JobsStaged, each.append)
    events.emit_all([JobsStaged(1), JobsStaged(2)])
    events.emit_all([])
    events.emit(JobsStaged(3))
    assert batches == [[JobsStaged(1), JobsStaged(2)], [JobsStaged(3)]]
    assert each == [JobsStaged(1), JobsStaged(2), JobsStaged(3)]
