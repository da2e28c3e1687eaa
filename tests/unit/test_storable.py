"""What becomes of a result or an error text that jsonb would refuse: stored, visibly changed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.errors import PayloadError
from jobd.payload import encode_error, encode_result, storable_text
from tests.unit.json_values import (
    ANY_TEXT,
    ANYTHING,
    STORABLE,
    Address,
    assert_jsonb_takes,
    doubled,
    nested,
)


@given(STORABLE)
def test_an_ordinary_result_is_stored_unchanged_and_without_a_note(value: Any) -> None:
    text, note = encode_result(value)
    assert_jsonb_takes(text)
    assert json.loads(text) == value
    assert note is None


@given(ANYTHING, st.integers(100, 2_000))
def test_any_result_becomes_storable_within_its_limit(value: Any, max_bytes: int) -> None:
    text, note = encode_result(value, max_bytes=max_bytes)
    assert_jsonb_takes(text)
    assert len(text.encode()) <= max_bytes
    if note:
        note.encode()


@pytest.mark.parametrize(
    ("value", "stored", "note"),
    [
        ({"a": "x\0y"}, {"a": "x␀y"}, "$.a: has a NUL character"),
        (["\ud800!"], ["\ufffd!"], "$[0]: has a lone surrogate"),
        (["\ud83d\ude00"], ["\N{GRINNING FACE}"], "$[0]: has a lone surrogate"),
        ([math.nan, math.inf, -math.inf], ["NaN", "Infinity", "-Infinity"], "$[0]: is NaN"),
        ({"n": 2**64}, {"n": str(2**64)}, "$.n: is an integer beyond 64 bits"),
        ({1: "a", "1": "b"}, {"1": "a", "1'": "b"}, "$: has a key of type int"),
        ({"k\0": 1}, {"k␀": 1}, "NUL"),
        (b"\xff", "b'\\xff'", "$: is bytes"),
        ([object], ["<class 'object'>"], "$[0]: is an object of type type"),
        (Address("a\0", 1), {"street": "a␀", "number": 1}, "$.street"),
    ],
)
def test_what_jsonb_cannot_hold_is_made_visible_and_noted(value: Any, stored: Any, note: str) -> None:
    text, noted = encode_result(value)
    assert assert_jsonb_takes(text) == stored
    assert noted is not None
    assert note in noted


def test_a_huge_integer_in_a_result_is_kept_as_text() -> None:
    text, _ = encode_result(10**5_000)
    assert int(json.loads(text), 16) == 10**5_000


def test_an_oversized_result_keeps_its_beginning_and_its_size() -> None:
    text, note = encode_result({"log": 'line "one"\n' * 200_000})
    stored = json.loads(text)
    assert (stored["truncated"], stored["bytes"]) == (True, 2_800_010)
    assert stored["head"].startswith('{"log":"line \\"one')
    assert 1_000_000 < len(text.encode()) <= 1_048_576
    assert note == "$: 2,800,010 bytes of JSON, cut to max_result (1,048,576)"


@pytest.mark.parametrize("value", [nested(100), nested(100_000), doubled(60), [0] * 2_000_000])
def test_a_result_too_deep_or_too_large_for_a_walk_is_still_stored(value: Any) -> None:
    text, note = encode_result(value)
    assert len(text) <= 1_048_576
    assert_jsonb_takes(text)
    assert note


def test_many_changes_make_a_short_note() -> None:
    _, note = encode_result([math.nan] * 1_000)
    assert note is not None
    assert note.endswith("; and 995 more")


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class HostileMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


class HostileKeys(dict[Any, Any]):
    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("no")


@pytest.mark.parametrize("value", [Hostile(), {"a": [Hostile()]}, {Hostile(): 1}, HostileMapping(a=1)])
def test_a_result_with_a_mind_of_its_own_is_still_stored(value: Any) -> None:
    text, note = encode_result(value)
    assert_jsonb_takes(text)
    assert note


def test_a_result_whose_keys_cannot_be_read_is_stored_by_its_items() -> None:
    assert json.loads(encode_result(HostileKeys(a=1))[0]) == {"a": 1}


@given(ANY_TEXT, st.integers(1, 200))
def test_any_text_becomes_storable_within_its_limit(text: str, max_chars: int) -> None:
    stored = storable_text(text * 20, max_chars=max_chars)
    stored.encode()
    assert "\0" not in stored
    assert len(stored) <= max_chars


def test_a_long_text_loses_its_middle_and_says_so() -> None:
    stored = storable_text("beginning" + "." * 10_000 + "end", max_chars=1_000)
    assert len(stored) <= 1_000
    assert stored.startswith("beginning")
    assert stored.endswith("end")
    assert "characters left out" in stored


def test_an_ordinary_text_is_stored_as_it_is() -> None:
    assert storable_text("Zoë \N{GRINNING FACE}", max_chars=100) == "Zoë \N{GRINNING FACE}"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_is_stored_with_its_type_message_and_traceback() -> None:
    at = datetime(2025, 1, 2, tzinfo=UTC)
    stored = encode_error(raised(PayloadError("$.x", "is odd\0")), attempt=3, at=at)
    assert stored["attempt"] == 3
    assert stored["at"] == "2025-01-02T00:00:00+00:00"
    assert stored["type"] == "jobd.errors.PayloadError"
    assert stored["message"] == "payload $.x: is odd␀"
    assert "raise error" in stored["traceback"]
    assert_jsonb_takes(json.dumps(stored, ensure_ascii=False))


def test_a_built_in_error_goes_by_its_short_name() -> None:
    stored = encode_error(raised(KeyError("x")), attempt=1, at=datetime.now(UTC))
    assert (stored["type"], stored["message"]) == ("KeyError", "'x'")


def test_an_error_that_cannot_say_what_it_is_is_stored_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    stored = encode_error(raised(Mute()), attempt=1, at=datetime.now(UTC))
    assert stored["message"] == "<no message: its __str__ raised RuntimeError>"


def test_an_endless_error_is_capped() -> None:
    def deeper(levels: int) -> None:
        if levels == 0:
            raise ValueError("x" * 100_000)
        deeper(levels - 1)

    try:
        deeper(300)
    except ValueError as error:
        stored = encode_error(error, attempt=1, at=datetime.now(UTC))
    assert len(stored["message"]) <= 2_000
    assert len(stored["traceback"]) <= 8_000
    assert stored["traceback"].startswith("Traceback")
