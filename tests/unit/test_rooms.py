"""Rooms: shares of free slots among queues."""

from __future__ import annotations

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
