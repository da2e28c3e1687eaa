"""Rooms: shares of free slots among queues."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jobd.engine.rooms import Rooms


def plenty(queue: str) -> int:
    return 1000


def test_one_queue_gets_every_free_slot():
    assert Rooms(["a"]).share(100, plenty) == {"a": 100}


def test_without_a_free_slot_nothing_is_asked():
    assert Rooms(["a", "b"]).share(0, plenty) == {}


def test_free_slots_are_shared_and_never_exceeded():
    rooms = Rooms(["a", "b", "c"])
    shares = rooms.share(100, plenty)
    assert sum(shares.values()) == 100
    assert set(shares) == {"a", "b", "c"}
    assert max(shares.values()) - min(shares.values()) <= 1


def test_queues_that_gave_all_they_had_get_one_to_look_with():
    rooms = Rooms(["a", "b"])
    rooms.learn({"a": 50, "b": 50}, {"a": 50, "b": 3})
    assert rooms.share(100, plenty) == {"a": 99, "b": 1}


def test_a_queue_never_gets_more_than_its_own_limit():
    shares = Rooms(["a", "b"]).share(100, {"a": 2, "b": 1000}.__getitem__)
    assert shares == {"a": 2, "b": 98}


def test_a_full_queue_is_not_asked():
    assert Rooms(["a", "b"]).share(10, {"a": 0, "b": 5}.__getitem__) == {"b": 5}


def test_one_free_slot_goes_around_although_one_queue_always_has_more():
    rooms = Rooms(["bulk", "mail", "images"])
    asked = []
    for _ in range(6):
        (queue,) = rooms.share(1, plenty)
        asked.append(queue)
        rooms.learn({queue: 1}, {queue: 1} if queue == "bulk" else {})
        rooms.forget()
    assert asked.count("mail") == asked.count("images") == asked.count("bulk") == 2


def test_every_queue_is_seen_before_a_sleep_although_slots_are_few():
    rooms = Rooms(["a", "b", "c"])
    asked: set[str] = set()
    while rooms.unseen(plenty):
        shares = rooms.share(1, plenty)
        asked |= shares.keys()
        rooms.learn(shares, {})
    assert asked == {"a", "b", "c"}


def test_after_a_sleep_everything_is_unseen_again():
    rooms = Rooms(["a"])
    rooms.learn({"a": 5}, {"a": 2})
    assert not rooms.unseen(plenty)
    rooms.forget()
    assert rooms.unseen(plenty)


def test_a_queue_that_filled_its_room_may_hold_more():
    rooms = Rooms(["a"])
    rooms.learn({"a": 5}, {"a": 5})
    assert rooms.hungry
    assert not rooms.unseen(plenty)


def weighing(**weights: int) -> Rooms:
    rooms = Rooms(list(weights))
    rooms.weights = weights
    return rooms


def test_free_slots_are_shared_by_weight():
    assert weighing(a=3, b=1).share(100, plenty) == {"a": 75, "b": 25}


def test_what_a_heavy_queue_has_no_room_for_goes_to_the_others_by_weight():
    shares = weighing(a=7, b=2, c=1).share(100, {"a": 10, "b": 1000, "c": 1000}.__getitem__)
    assert shares == {"a": 10, "b": 60, "c": 30}


def test_few_slots_go_around_by_weight():
    rooms = weighing(a=9, b=1)
    asked: Counter[str] = Counter()
    for _ in range(100):
        shares = rooms.share(1, plenty)
        asked.update(shares)
        rooms.learn(shares, shares)
        rooms.forget()
    assert asked == {"a": 90, "b": 10}


def test_what_does_not_come_out_even_is_made_up_for():
    rooms = weighing(a=2, b=1)
    asked: Counter[str] = Counter()
    for _ in range(60):
        shares = rooms.share(2, plenty)
        assert sum(shares.values()) == 2
        asked.update(shares)
        rooms.learn(shares, shares)
        rooms.forget()
    assert asked == {"a": 80, "b": 40}


def test_a_light_queue_that_wakes_up_is_next_and_takes_no_more_than_a_turn():
    rooms = weighing(bulk=1000, mail=1)
    for _ in range(100):
        shares = rooms.share(50, plenty)
        rooms.learn(shares, {"bulk": shares.get("bulk", 0)})
    asked = []
    rooms.forget()
    for _ in range(20):
        (queue,) = rooms.share(1, plenty)
        asked.append(queue)
        rooms.learn({queue: 1}, {queue: 1})
    assert asked[0] == "mail"
    assert asked.count("mail") <= 2


@given(
    st.dictionaries(
        st.sampled_from("abcdef"), st.tuples(st.integers(1, 1000), st.integers(0, 50)), min_size=1
    ),
    st.lists(st.integers(0, 120), min_size=1, max_size=8),
)
def test_nothing_that_is_free_and_has_room_is_left_over(queues: dict[str, tuple[int, int]], frees: list[int]):
    rooms = weighing(**{queue: weight for queue, (weight, _) in queues.items()})
    room = {queue: room for queue, (_, room) in queues.items()}
    for free in frees:
        shares = rooms.share(free, room.__getitem__)
        assert all(0 < asked <= room[queue] for queue, asked in shares.items())
        assert sum(shares.values()) == min(free, sum(room.values()))
        rooms.learn(shares, shares)
