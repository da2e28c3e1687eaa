"""Which jobs a call on many of them means: what filters may say, and how each mistake in them is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from jobd.errors import ConfigError, HandlerError
from jobd.filters import Filters, SweepOptions, select, sweep_options
from jobd.job import FINISHED, JobState
from jobd.selection import Selection

DEAD = frozenset({JobState.DEAD})


def selected(**filters: Any) -> Selection:
    return select("retry", cast(Filters, filters), takes=FINISHED, unless_said=DEAD)


def test_all_means_every_job_that_the_verb_means():
    assert selected(all=True) == Selection(states=DEAD)
    assert selected(state=["succeeded", JobState.CANCELLED]).states == FINISHED - DEAD


def test_one_value_or_several_are_the_same_words_once():
    assert (
        selected(queue="a").queues == selected(queue=["a"]).queues == selected(queue={"a"}).queues == ("a",)
    )
    assert selected(queue=("b", "a", "b")).queues == ("b", "a")


def test_ages_are_read_in_any_spelling():
    selection = selected(older_than="90m", newer_than=timedelta(days=2))
    assert (selection.older_than, selection.newer_than) == (timedelta(minutes=90), timedelta(days=2))
    assert selected(older_than=0).older_than == timedelta(0)


def test_the_audit_shows_what_was_said_and_the_states():
    said = {"queue": ["a"], "error": "x", "newer_than": 90, "tag": "t", "tenant_id": None}
    shown = selected(**said).to_json()
    assert shown == {"queue": ("a",), "error": "x", "newer_than": "1m30s", "tag": ("t",), "state": ["dead"]}


@pytest.mark.parametrize(
    "filters", [{}, {"queue": None}, {"all": False}, {"queue": None, "older_than": None}]
)
def test_nothing_said_is_refused(filters: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"nothing says which jobs to retry.*or all=True"):
        selected(**filters)


@pytest.mark.parametrize(
    ("filters", "setting", "words"),
    [
        ({"all": True, "kind": "a"}, "kind", "chooses some jobs, and all means every one"),
        ({"state": "ready"}, "state", "none that retry takes: give any of succeeded, cancelled, dead"),
        ({"state": ["dead", "deaf"]}, "state", "none that retry takes"),
        ({"queue": []}, "queue", "give from 1 to 1,000, or leave it out"),
        ({"queue": ["q"] * 5 + [f"q{n}" for n in range(1_000)]}, "queue", "give from 1 to 1,000"),
        ({"tenant_id": ""}, "tenant_id", "must be 1 to 1,000 characters long"),
        ({"error": "x" * 1_001}, "error", "must be 1 to 1,000 characters long"),
        ({"error": "a\0b"}, "error", "must not contain NUL"),
        ({"tag": 5}, "tag", "must be a string"),
        ({"all": "no"}, "all", "must be True or False"),
        ({"older_than": "2 days"}, "older_than", "is not a duration"),
        ({"newer_than": -1}, "newer_than", "must not be negative"),
        ({"older_than": "2d", "newer_than": "1d"}, "newer_than", "nothing that is older than 2d"),
        ({"older_than": "1d", "newer_than": "1d"}, "newer_than", "nothing that is older than 1d"),
    ],
)
def test_a_mistake_names_the_filter(filters: dict[str, Any], setting: str, words: str):
    with pytest.raises(ConfigError) as refusal:
        selected(**filters)
    assert refusal.value.setting == setting
    assert words in str(refusal.value)


@pytest.mark.parametrize("name", ["queue", "kind"])
def test_a_name_that_can_be_none_is_refused(name: str):
    with pytest.raises(HandlerError, match=f"{name} 'high priority' is no valid name"):
        selected(**{name: "high priority"})


def test_how_it_goes_is_told_apart_from_what_it_meets():
    conduct, filters = sweep_options("cancel", {"queue": "a", "limit": 5, "by": "ann", "dry_run": True})
    assert (conduct.limit, conduct.by, conduct.dry_run, filters) == (5, "ann", True, {"queue": "a"})
    conduct, filters = sweep_options("cancel", {"all": True, "limit": None})
    assert (conduct.limit, conduct.by, conduct.dry_run, filters) == (None, "api", False, {"all": True})


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": True}, "limit"),
        ({"by": ""}, "by"),
        ({"by": "a\0"}, "by"),
        ({"dry_run": "no"}, "dry_run"),
        ({"on_progress": 5}, "on_progress"),
    ],
)
def test_a_mistake_in_how_it_goes_names_the_option(options: SweepOptions, setting: str):
    with pytest.raises(ConfigError) as refusal:
        sweep_options("cancel", options)
    assert refusal.value.setting == setting


def test_what_does_not_exist_is_a_type_error():
    with pytest.raises(TypeError, match=r"cancel_many\(\) got .* 'tenant'; did you mean tenant_id\?"):
        sweep_options("cancel", {"tenant": "a"})  # type: ignore[typeddict-unknown-key]
