"""UUIDv7 ids and the sequence that holds many of them."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading
import time
from itertools import pairwise
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.ids import IdSequence, _Generator, uuid7, uuid7s


def test_an_id_is_a_version_7_uuid_of_this_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    # A burst of ids in another test may have pushed the time stamp a little ahead of the clock.
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1_000
    assert (made.version, made.variant) == (7, RFC_4122)


def test_an_id_is_an_ordinary_uuid() -> None:
    made = uuid7()
    assert (
        made == UUID(str(made)) == UUID(int=made.int) == copy.copy(made) == pickle.loads(pickle.dumps(made))
    )
    assert hash(made) == hash(UUID(str(made)))
    assert repr(made) == repr(UUID(str(made)))


def test_ids_strictly_increase() -> None:
    ids = [uuid7() for _ in range(20_000)]
    assert all(earlier < later for earlier, later in pairwise(ids))


def test_ids_go_on_increasing_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns
    before = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600_000_000_000)
    during = [uuid7() for _ in range(1_000)]
    monkeypatch.undo()
    ids = [before, *during, uuid7()]
    assert all(earlier < later for earlier, later in pairwise(ids))


def test_ids_go_on_increasing_when_a_millisecond_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    generator = _Generator()
    numbers = [generator.next()]
    generator._counter = (1 << 74) - 1
    numbers += [generator.next() for _ in range(3)]
    assert [number >> 80 for number in numbers] == [1, 2, 2, 2]
    assert all(earlier < later for earlier, later in pairwise(numbers))


def ids_in(packed: bytes) -> list[UUID]:
    return [UUID(bytes=packed[start : start + 16]) for start in range(0, len(packed), 16)]


def test_many_ids_made_together_stand_between_those_made_before_and_after() -> None:
    ids = [uuid7(), *ids_in(uuid7s(5_000)), uuid7(), *ids_in(uuid7s(1)), *ids_in(uuid7s(0)), uuid7()]
    assert len(ids) == 5_004
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert {(id.version, id.variant) for id in ids} == {(7, RFC_4122)}
    steps = {later.int - earlier.int for earlier, later in pairwise(ids[1:5_001])}
    assert len(steps) > 4_990, "a neighbour could be guessed"


def test_many_ids_are_as_many_where_the_counter_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    generator = _Generator()
    before = generator.next()
    for full in ((1 << 74) - 1, (5 << 62) - 1):
        generator._counter = full
        ids = ids_in(generator.many(100))
        assert len(set(ids)) == 100
        assert all(earlier < later for earlier, later in pairwise(ids))
        assert before < ids[0].int


def test_a_random_step_of_nothing_makes_no_id_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    assert len(set(ids_in(_Generator().many(50)))) == 50


def test_threads_get_different_ids_each_increasing() -> None:
    made: list[list[UUID]] = [[] for _ in range(4)]

    def make(mine: list[UUID]) -> None:
        mine.extend(uuid7() for _ in range(5_000))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len({id for mine in made for id in mine}) == 20_000
    assert all(earlier < later for mine in made for earlier, later in pairwise(mine))


def test_neighbouring_ids_cannot_be_guessed() -> None:
    steps = {later.int - earlier.int for earlier, later in pairwise(uuid7() for _ in range(1_000))}
    assert len(steps) > 990


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    uuid7()
    uuid7()  # the second id of a millisecond fills the pool of random steps
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(uuid7().bytes for _ in range(64)))
        os._exit(0)
    mine = {uuid7().bytes for _ in range(64)}
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        theirs = stream.read()
    os.waitpid(child, 0)
    assert len(theirs) == 64 * 16
    assert not mine & {theirs[start : start + 16] for start in range(0, len(theirs), 16)}


@given(st.lists(st.uuids()), st.slices(12), st.integers(-15, 15))
def test_an_id_sequence_behaves_like_the_list_of_its_ids(ids: list[UUID], part: slice, index: int) -> None:
    sequence = IdSequence(ids)
    assert sequence == ids
    assert sequence == tuple(ids)
    assert list(sequence) == ids
    assert len(sequence) == len(ids)
    assert sequence[part] == ids[part]
    assert list(reversed(sequence)) == ids[::-1]
    try:
        expected = ids[index]
    except IndexError:
        with pytest.raises(IndexError):
            sequence[index]
    else:
        assert sequence[index] == expected
        assert expected in sequence


def test_an_id_sequence_keeps_sixteen_bytes_an_id() -> None:
    packed = uuid7s(10_000)
    sequence = IdSequence.packed(packed)
    assert len(sequence) == 10_000
    assert sequence._bytes is packed
    assert sequence == ids_in(packed)


def test_an_id_sequence_does_not_change() -> None:
    sequence: Any = IdSequence(uuid7() for _ in range(3))
    assert isinstance(sequence[1:], IdSequence)
    with pytest.raises(TypeError):
        sequence[0] = uuid7()
    assert not {"append", "extend", "insert", "clear"} & set(dir(sequence))


def test_the_texts_of_an_id_sequence_name_its_ids() -> None:
    sequence = IdSequence(uuid7() for _ in range(3))
    assert [UUID(text) for text in sequence.texts()] == sequence
    assert IdSequence().texts() == []


def test_bytes_across_two_ids_are_not_an_id_of_the_sequence() -> None:
    across = UUID(bytes=b"b" * 8 + b"c" * 8)
    ids = [UUID(bytes=b"a" * 8 + b"b" * 8), UUID(bytes=b"c" * 8 + b"d" * 8)]
    assert across not in IdSequence(ids)
    assert across in IdSequence([*ids, across])
    assert "text" not in IdSequence(ids)


def test_an_id_sequence_is_compared_by_its_ids() -> None:
    id = uuid7()
    assert IdSequence([id]) == IdSequence([id])
    assert IdSequence([id]) != IdSequence()
    assert IdSequence([id]) != [uuid7()]
    assert IdSequence() != "no ids"


def test_the_repr_of_a_long_id_sequence_is_short() -> None:
    ids = [UUID(int=number) for number in range(1_000)]
    assert repr(IdSequence(ids)) == f"IdSequence({ids[0]} ... {ids[-1]}, 1,000 ids)"
    assert repr(IdSequence()) == "IdSequence()"
