"""Slots: what may still be claimed, counted by process, queue and kind, and what may wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobd.engine.prefetch import Prefetch
from jobd.engine.slots import Slots
from jobd.job import Claimed
from jobd.registry import Handler, Registry
from tests.factories import claimed


def slots(total: int = 4, *, mean: float | None = None, **queue_limits: int) -> Slots:
    """`mean`: how long the last claim's kind runs."""
    prefetch = Prefetch()
    if mean is not None:
        prefetch.learn("noop", mean)
        prefetch.expect({"noop"})
    return Slots(total=total, queue_limits=queue_limits, suspect_from=2, prefetch=prefetch)


def handler(concurrency: int | None) -> Handler:
    async def noop() -> None: ...

    return Registry().add(noop, concurrency=concurrency)


def test_room_is_what_is_free_and_what_may_wait_without_what_waits():
    some = slots(4, mean=0.01)
    assert (some.free, some.may_wait, some.room) == (4, 10, 14)
    some.busy, some.held = 3, 2
    assert (some.free, some.may_wait, some.room) == (1, 10, 9)


def test_slots_that_last_let_nothing_wait():
    some = slots(4, mean=0.01)
    some.busy = 4
    some.lasting = 2
    assert (some.may_wait, some.may_wait_of("noop"), some.room) == (5, 5, 5)
    some.lasting = 4
    assert (some.may_wait, some.may_wait_of("noop"), some.room) == (0, 0, 0)


def test_a_slot_that_is_free_is_always_worth_a_claim():
    for mean in (None, 0.00001, 0.01, 10.0):
        some = slots(4, mean=mean)
        for busy in range(4):
            some.busy = busy
            assert some.worth_a_claim
        some.busy = 4
        assert some.worth_a_claim is (some.may_wait > 0)


def test_with_all_slots_busy_half_of_what_may_wait_must_have_gone():
    some = slots(4, mean=0.01)
    some.busy = 4
    some.held = 6
    assert not some.worth_a_claim
    some.held = 5
    assert some.worth_a_claim


def test_a_queue_has_room_up_to_its_own_limit():
    some = slots(4, mean=0.01, narrow=2)
    claim = claimed(queue="narrow")
    assert (some.queue_room("narrow"), some.queue_room("other")) == (2, 14)
    some.take(claim)
    some.take(claim)
    assert (some.queue_room("narrow"), some.queue_room("other")) == (0, 14)
    assert not some.admits(claim, handler(None))
    assert some.admits(claimed(queue="other"), handler(None))
    some.give_back(claim)
    assert some.admits(claim, handler(None))
    some.busy, some.held = 4, 9
    assert some.queue_room("narrow") == 1


def test_a_kind_has_room_up_to_its_own_limit():
    some, limited = slots(), handler(1)
    assert some.kind_room(handler(None)) is None
    assert some.kind_room(limited) == 1
    some.take(claimed())
    assert some.kind_room(limited) == 0
    assert not some.admits(claimed(), limited)
    some.give_back(claimed())
    assert some.admits(claimed(), limited)


def test_nothing_waits_beside_victims_of_a_crash_however_many():
    some = slots(4, mean=0.01)
    victims = [claimed(crashes=1), claimed(crashes=2)]
    for victim in victims:
        some.take(victim)
        assert (some.may_wait, some.may_wait_of("noop")) == (0, 0)
    assert (some.victims, some.suspects) == (2, 1)
    some.give_back(victims[0])
    assert some.may_wait == 0
    some.give_back(victims[1])
    assert (some.victims, some.suspects, some.may_wait) == (0, 0, 10)


claims = st.builds(
    claimed,
    queue=st.sampled_from(["default", "narrow"]),
    kind=st.sampled_from(["noop", "other"]),
    crashes=st.integers(0, 3),
)


@given(taken=st.lists(claims))
def test_what_was_taken_and_given_back_leaves_no_trace(taken: list[Claimed]):
    some = slots(4, mean=0.01, narrow=3)
    for claim in taken:
        some.take(claim)
    for claim in reversed(taken):
        some.give_back(claim)
    assert (some.victims, some.suspects) == (0, 0)
    assert (some.queue_room("narrow"), some.queue_room("default"), some.kind_room(handler(2))) == (3, 14, 2)
