"""Prefetch: how many claims may wait, from how long their kinds ran."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobd.engine.prefetch import HOLD_SECONDS, MOST, Prefetch

seconds = st.floats(0.0, 1e9, allow_nan=False)


def known(**means: float) -> Prefetch:
    prefetch = Prefetch()
    for kind, mean in means.items():
        prefetch.learn(kind, mean)
    return prefetch


def test_before_the_first_claim_nothing_may_wait():
    assert known(quick=0.001).bound(100) == 0


def test_what_the_slots_get_through_in_a_moment_may_wait():
    prefetch = known(quick=0.001)
    prefetch.expect({"quick"})
    assert prefetch.bound(4) == prefetch.bound_of("quick", 4) == 4 * HOLD_SECONDS / 0.001


def test_nothing_waits_behind_a_kind_that_was_not_seen_yet():
    prefetch = known(quick=0.001)
    prefetch.expect({"quick", "new"})
    assert prefetch.bound(100) == prefetch.bound_of("new", 100) == 0


def test_the_slowest_of_the_last_claims_kinds_decides_for_all_and_each_for_itself():
    prefetch = known(quick=0.001, slow=10.0)
    prefetch.expect({"quick", "slow"})
    assert (prefetch.bound(20), prefetch.bound_of("quick", 20), prefetch.bound_of("slow", 20)) == (0, 500, 0)
    prefetch.expect({"quick"})
    assert prefetch.bound(20) == 500


def test_a_claim_that_brings_nothing_known_forgets_what_was_expected():
    prefetch = known(quick=0.001)
    prefetch.expect({"quick"})
    prefetch.expect(())
    assert prefetch.bound(20) == 0


def test_a_kind_that_turns_slow_is_found_out_by_one_run_and_forgiven_after_many():
    prefetch = known(kind=0.001)
    prefetch.expect({"kind"})
    prefetch.learn("kind", 60.0)
    prefetch.expect({"kind"})
    assert prefetch.bound(20) == 0
    for _ in range(300):
        prefetch.learn("kind", 0.001)
    prefetch.expect({"kind"})
    assert prefetch.bound(20) > 100


@given(seconds=seconds, slots=st.integers(0, 10_000))
def test_a_bound_is_never_more_than_what_runs_in_a_moment_nor_than_the_most(seconds: float, slots: int):
    prefetch = known(kind=seconds)
    prefetch.expect({"kind"})
    bound = prefetch.bound(slots)
    assert 0 <= bound <= MOST
    assert bound * seconds <= slots * HOLD_SECONDS * (1 + 1e-9)


@given(runs=st.lists(seconds, min_size=1))
def test_a_mean_stays_between_the_quickest_and_the_slowest_run(runs: list[float]):
    slots = 1000
    prefetch = Prefetch()
    for run in runs:
        prefetch.learn("kind", run)
    assert (
        known(kind=max(runs) * (1 + 1e-6)).bound_of("kind", slots)
        <= prefetch.bound_of("kind", slots)
        <= known(kind=min(runs) * (1 - 1e-6)).bound_of("kind", slots)
    )
