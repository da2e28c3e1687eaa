"""Catch-up, misfire grace, caps and ends: what runs after a downtime, and what is told as missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.occurrences import COUNTED, CatchUp, Fire, Policy, Stretch, pass_over, plan

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
GRACE = timedelta(seconds=300)


class Every:
    """Occurs each `step` after EPOCH."""

    def __init__(self, step: timedelta) -> None:
        self.step = step
        self.asked = 0

    def next_after(self, moment: datetime) -> datetime | None:
        self.asked += 1
        return EPOCH + self.step * ((moment - EPOCH) // self.step + 1)


def at(minutes: float) -> datetime:
    return EPOCH + MINUTE * minutes


def decide(policy: Policy, downtime: timedelta, *, step: timedelta = MINUTE, runs_left: int | None = None):
    return plan(Every(step), policy, EPOCH, EPOCH + downtime, runs_left=runs_left)


def test_what_is_on_time_runs_under_every_policy():
    for catch_up in CatchUp:
        made = decide(Policy(catch_up, GRACE), timedelta(seconds=2))
        assert made == ((Fire(EPOCH, EPOCH),), None, at(1))


@pytest.mark.parametrize(
    ("policy", "runs", "missed"),
    [
        (Policy(CatchUp.LAST), [10], (0, 9, 10, "catch_up")),
        (Policy(CatchUp.LAST, GRACE), [10], (0, 9, 10, "catch_up")),
        (Policy(CatchUp.SKIP, GRACE), [10], (0, 9, 10, "catch_up")),
        (Policy(CatchUp.ALL), [*range(11)], None),
        (Policy(CatchUp.ALL, cap=4), [7, 8, 9, 10], (0, 6, 7, "catch_up")),
        (Policy(CatchUp.ALL, GRACE), [5, 6, 7, 8, 9, 10], (0, 4, 5, "misfire_grace")),
    ],
    ids=str,
)
def test_ten_minutes_of_a_schedule_of_each_minute(policy: Policy, runs: list[int], missed: tuple | None):
    made = decide(policy, timedelta(minutes=10))
    assert [fire.fire_at for fire in made.fires] == [at(n) for n in runs]
    assert made.missed == (missed and Stretch(at(missed[0]), at(missed[1]), *missed[2:]))
    assert made.next_fire_at == at(11)


@pytest.mark.parametrize("catch_up", CatchUp)
def test_a_daily_job_that_a_deploy_of_ten_minutes_swallowed(catch_up: CatchUp):
    day = timedelta(days=1)
    without = decide(Policy(catch_up), timedelta(minutes=10), step=day)
    assert [fire.fire_at for fire in without.fires] == [EPOCH]
    within = decide(Policy(catch_up, GRACE), timedelta(minutes=10), step=day)
    assert (within.fires, within.missed) == ((), Stretch(EPOCH, EPOCH, 1, "misfire_grace"))
    assert without.next_fire_at == within.next_fire_at == EPOCH + day


def test_all_runs_are_spread():
    made = decide(Policy(CatchUp.ALL, stagger=5 * SECOND), timedelta(minutes=2))
    assert [fire.run_at for fire in made.fires] == [EPOCH, at(2) + 5 * SECOND, at(2) + 10 * SECOND]


def test_a_stretch_of_years_costs_little_and_takes_the_newest():
    schedule = Every(SECOND)
    now = EPOCH + timedelta(days=400)
    made = plan(schedule, Policy(CatchUp.ALL, cap=7), EPOCH, now, runs_left=None)
    assert [fire.fire_at for fire in made.fires] == [now - SECOND * n for n in range(6, -1, -1)]
    assert made.missed == Stretch(EPOCH, now - 7 * SECOND, COUNTED - 7, "catch_up")
    assert made.next_fire_at == now + SECOND
    assert schedule.asked < COUNTED + 100


def test_nothing_comes_after_the_end():
    policy = Policy(ends_at=at(5))
    made = decide(policy, timedelta(minutes=10))
    assert ([fire.fire_at for fire in made.fires], made.next_fire_at) == ([at(5)], None)
    assert plan(Every(MINUTE), policy, at(6), at(10), runs_left=None) == ((), None, None)


def test_no_more_run_than_are_left():
    made = decide(Policy(CatchUp.ALL), timedelta(minutes=10), runs_left=3)
    assert [fire.fire_at for fire in made.fires] == [at(8), at(9), at(10)]


def test_a_date_is_over_once_it_ran():
    class Once:
        def next_after(self, moment: datetime) -> None:
            return None

    assert plan(Once(), Policy(), EPOCH, at(1), runs_left=None) == ((Fire(EPOCH, EPOCH),), None, None)


def test_what_a_pause_swallowed_is_one_stretch():
    made = pass_over(Every(MINUTE), EPOCH, at(10.5), ends_at=None, reason="paused")
    assert made == ((), Stretch(EPOCH, at(10), 11, "paused"), at(11))
    assert pass_over(Every(MINUTE), at(3), at(2), ends_at=None, reason="paused") == ((), None, at(3))


@given(
    catch_up=st.sampled_from(CatchUp),
    grace=st.none() | st.integers(0, 5_000).map(lambda n: timedelta(seconds=n)),
    cap=st.integers(1, 20),
    downtime=st.integers(0, 5_000),
    step=st.integers(1, 600),
)
def test_each_occurrence_runs_or_is_within_the_stretch(
    catch_up: CatchUp, grace: timedelta | None, cap: int, downtime: int, step: int
):
    policy = Policy(catch_up, grace, cap)
    now = EPOCH + SECOND * downtime
    made = decide(policy, SECOND * downtime, step=SECOND * step)
    due = [EPOCH + SECOND * n for n in range(0, downtime + 1, step)]
    runs = [fire.fire_at for fire in made.fires]
    passed = due[: len(due) - len(runs)]
    assert runs == due[len(passed) :]
    assert len(runs) <= (cap if catch_up is CatchUp.ALL else 1)
    assert all(grace is None or now - moment <= grace for moment in runs)
    assert (made.missed is None) == (not passed)
    if made.missed is not None:
        assert made.missed[:3] == (passed[0], passed[-1], len(passed))
    assert made.next_fire_at == due[-1] + SECOND * step
