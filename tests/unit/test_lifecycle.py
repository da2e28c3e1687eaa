"""The state machine: every outcome has its verdict, every state its way in and out."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import get_args

import pytest

from jobd.backoff import Backoff
from jobd.job import FINISHED, FinishedRun, JobState
from jobd.lifecycle import (
    MOVES,
    OUTCOMES,
    RUNNING,
    UNKNOWN_KIND_DELAY,
    Cancelled,
    Discarded,
    Failed,
    Hopeless,
    Interrupted,
    KindUnknown,
    Lost,
    NotStarted,
    Outcome,
    Recorded,
    Snoozed,
    Succeeded,
    TimedOut,
    judge,
)
from tests.factories import claimed

SECOND = timedelta(seconds=1)
TEN = Backoff(kind="constant", base=10 * SECOND, jitter="none")

ONE_OF_EACH: list[Outcome] = [
    Succeeded("1"),
    Failed("{}", "no"),
    TimedOut("{}", "too long"),
    Snoozed(SECOND, "not yet"),
    Cancelled("stop"),
    Discarded("useless"),
    Interrupted("shutdown"),
    NotStarted(),
    Hopeless(SECOND),
    KindUnknown(),
    Recorded(),
    Lost(),
]


def verdict(
    outcome: Outcome, *, attempt: int = 1, max_attempts: int = 3, backoff: Backoff = TEN
) -> FinishedRun | None:
    claim = claimed(attempt=attempt, claim_no=7)
    run = judge(claim, outcome, backoff=backoff, max_attempts=max_attempts, rng=random.Random(1))
    assert run is None or (run.id, run.claim_no) == (claim.id, 7)
    return run


def told(run: FinishedRun | None) -> tuple[object, ...]:
    assert run is not None
    return run.state, run.reason, run.delay, run.unburned, run.result, run.error


def test_a_success_keeps_its_result():
    assert told(verdict(Succeeded('{"a": 1}'))) == (JobState.SUCCEEDED, None, None, False, '{"a": 1}', None)
    assert told(verdict(Succeeded(), attempt=9)) == (JobState.SUCCEEDED, None, None, False, None, None)


@pytest.mark.parametrize("outcome", [Failed("{}", "no"), TimedOut("{}", "no")])
def test_a_failure_is_tried_again_after_the_backoff(outcome: Outcome):
    assert told(verdict(outcome, attempt=2)) == (JobState.SCHEDULED, "no", 10 * SECOND, False, None, "{}")


@pytest.mark.parametrize("outcome", [Failed("{}", "no"), Failed("{}", "no", SECOND), TimedOut("{}", "no")])
@pytest.mark.parametrize("attempt", [3, 4])
def test_the_last_failure_is_the_end(outcome: Outcome, attempt: int):
    reason = f"attempt {attempt} of 3: no"
    assert told(verdict(outcome, attempt=attempt)) == (JobState.DEAD, reason, None, False, None, "{}")


def test_a_handler_that_asks_for_a_time_gets_it():
    assert told(verdict(Failed("{}", "busy", 90 * SECOND)))[:3] == (JobState.SCHEDULED, "busy", 90 * SECOND)
    assert told(verdict(Failed("{}", "busy", 0 * SECOND)))[:3] == (JobState.READY, "busy", 0 * SECOND)


def test_a_backoff_of_nothing_makes_the_job_ready():
    none = Backoff(kind="constant", base=timedelta(0), jitter="none")
    assert told(verdict(Failed("{}", "no"), backoff=none))[0] is JobState.READY


def test_the_backoff_grows_with_the_attempt():
    growing = Backoff(kind="exponential", base=SECOND, jitter="none")
    delays = [
        told(verdict(Failed("{}", "no"), attempt=n, max_attempts=9, backoff=growing))[2] for n in (1, 2, 3)
    ]
    assert delays == [SECOND, 2 * SECOND, 4 * SECOND]


@pytest.mark.parametrize("attempt", [1, 3, 99])
def test_a_snooze_burns_no_attempt_and_never_ends_a_job(attempt: int):
    run = verdict(Snoozed(60 * SECOND, "later"), attempt=attempt)
    assert told(run) == (JobState.SCHEDULED, "later", 60 * SECOND, True, None, None)
    assert told(verdict(Snoozed(timedelta(0), "again"), attempt=attempt))[0] is JobState.READY


def test_stopping_is_the_end():
    assert told(verdict(Cancelled("stop"))) == (JobState.CANCELLED, "stop", None, False, None, None)
    assert told(verdict(Discarded("useless"))) == (JobState.DEAD, "useless", None, False, None, None)


@pytest.mark.parametrize("attempt", [1, 3, 99])
def test_an_interruption_burns_no_attempt(attempt: int):
    run = verdict(Interrupted("shutdown"), attempt=attempt)
    assert told(run) == (JobState.READY, "shutdown", None, True, None, None)


def test_what_cannot_end_by_its_deadline_waits_for_it_unburned():
    assert told(verdict(Hopeless(SECOND), attempt=1)) == (
        JobState.SCHEDULED,
        "deadline",
        SECOND,
        True,
        None,
        None,
    )


@pytest.mark.parametrize("attempt", [1, 99])
def test_an_unknown_kind_goes_back_unburned_with_jitter(attempt: int):
    run = verdict(KindUnknown(), attempt=attempt)
    assert run is not None
    assert run.delay is not None
    assert (run.state, run.unburned, run.error) == (JobState.SCHEDULED, True, None)
    assert UNKNOWN_KIND_DELAY <= run.delay <= 1.5 * UNKNOWN_KIND_DELAY
    assert "'noop'" in str(run.reason)


@pytest.mark.parametrize("outcome", [Recorded(), Lost()])
def test_nothing_is_written_where_nothing_may_be(outcome: Outcome):
    assert verdict(outcome) is None


def test_every_outcome_is_judged_and_named():
    kinds = set(get_args(Outcome))
    assert kinds == {type(outcome) for outcome in ONE_OF_EACH} == set(OUTCOMES)


@pytest.mark.parametrize("outcome", ONE_OF_EACH, ids=lambda outcome: type(outcome).__name__)
@pytest.mark.parametrize("attempt", [1, 3])
def test_a_verdict_is_a_move_that_succeed_or_finish_may_make(outcome: Outcome, attempt: int):
    run = verdict(outcome, attempt=attempt)
    if run is not None:
        assert run.state in MOVES["succeed" if isinstance(outcome, Succeeded) else "finish"].targets
        assert not (run.unburned and run.state in FINISHED)


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_can_be_reached_and_left(state: JobState):
    assert any(state in move.targets for move in MOVES.values())
    assert any(state in move.sources for move in MOVES.values())


def test_a_job_that_has_ended_comes_back_by_an_operators_retry_only():
    leaving = {name for name, move in MOVES.items() if move.sources & FINISHED and move.targets}
    assert leaving == {"retry", "retry_many"}


def test_a_running_job_is_left_by_the_fenced_moves_only():
    assert {name for name, move in MOVES.items() if move.sources & RUNNING} == {
        "succeed",
        "succeed_tersely",
        "finish",
        "release",
        "rescue",
    }


def test_only_a_claim_makes_a_job_running():
    claims = {"claim", "claim_victims", "claim_governed"}
    assert {name for name, move in MOVES.items() if move.targets & RUNNING} == claims
