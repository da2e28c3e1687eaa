"""What a payload may hold, and how a refusal names what it may not."""

from __future__ import annotations

import enum
import itertools
import json
import math
from collections import OrderedDict
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from pydantic import BaseModel, Field

from jobd.errors import PayloadError
from jobd.payload import encode_payload, parse_payload
from tests.unit.json_values import ANYTHING, STORABLE, Address, assert_jsonb_takes, doubled, nested


class Colour(enum.StrEnum):
    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042  (its str() is not its value)
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Point(NamedTuple):
    x: int
    y: int


class Order(BaseModel):
    sender: str = Field(alias="from")
    total: Decimal
    notes: dict[int, str] = {}


@given(STORABLE)
def test_a_payload_is_read_back_as_it_was(value: Any) -> None:
    text = encode_payload(value)
    assert_jsonb_takes(text)
    assert json.loads(text) == value


@given(ANYTHING)
def test_a_payload_is_either_storable_or_refused_with_a_path(value: Any) -> None:
    try:
        text = encode_payload(value)
    except PayloadError as error:
        assert error.path.startswith("$")
        assert error.remedy
        str(error).encode()
    else:
        assert_jsonb_takes(text)


@pytest.mark.parametrize(
    ("value", "read_back"),
    [
        ((1, 2), [1, 2]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({"c": Colour.RED, "o": OldColour.RED, "s": Size.BIG}, {"c": "red", "o": "red", "s": 3}),
        ({Colour.RED: 1, "b": date(2025, 1, 2)}, {"red": 1, "b": "2025-01-02"}),
        (datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), "2025-01-02T03:04:05Z"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.10"), "1.10"),
        ({"tags": {"one"}}, {"tags": ["one"]}),
        (Address("Elm St", 5), {"street": "Elm St", "number": 5}),
        (
            {"o": Order.model_validate({"from": "a", "total": "2.50", "notes": {1: "x"}})},
            {"o": {"from": "a", "total": "2.50", "notes": {"1": "x"}}},
        ),
        ("a \\u0000 that is only text", "a \\u0000 that is only text"),
        ({"e": "\N{GRINNING FACE}\u2028é"}, {"e": "\N{GRINNING FACE}\u2028é"}),
        ([2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
    ],
)
def test_a_value_is_written_in_the_way_of_pydantic(value: Any, read_back: Any) -> None:
    assert json.loads(encode_payload(value)) == read_back


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        ({"items": [0, {"name": "x\0y"}]}, "$.items[1].name", "NUL character at index 1"),
        ({"a key": ["\ud800"]}, '$["a key"][0]', r"lone surrogate \(U\+D800\) at index 0"),
        ({"k\0": 1}, r'$["k\u0000"]', "NUL character"),
        ({"pair": "\ud83d\ude00"}, "$.pair", "lone surrogate"),
        ({"rate": math.nan}, "$.rate", "is NaN"),
        ([math.inf], "$[0]", "is Infinity"),
        (-math.inf, "$", "is -Infinity"),
        ({"n": 2**63}, "$.n", "beyond 64 bits"),
        ({"n": {"deep": -(2**63) - 1}}, "$.n.deep", "beyond 64 bits"),
        ({"n": 10**5_000}, "$.n", "beyond 64 bits"),
        ({"by": {5: "five"}}, "$.by", "key of type int"),
        ({None: 1}, "$", "key of type NoneType"),
        ({"raw": b"\x00"}, "$.raw", "is bytes"),
        ({"all": iter([1])}, "$.all", "is an iterator"),
        ({"all": itertools.count()}, "$.all", "is an iterator"),
        ({"f": [len]}, "$.f[0]", "object of type builtin_function_or_method"),
        ({"at": Address("x\0", 1)}, "$.at.street", "NUL character"),
        ({"at": Address("x", 2**70)}, "$.at.number", "beyond 64 bits"),
    ],
)
def test_a_payload_that_cannot_be_stored_is_refused_with_its_path(
    value: Any, path: str, problem: str
) -> None:
    with pytest.raises(PayloadError, match=problem) as caught:
        encode_payload(value)
    assert caught.value.path == path
    assert caught.value.remedy


def test_a_refusal_never_shows_the_value() -> None:
    with pytest.raises(PayloadError) as caught:
        encode_payload({"card": "4111 1111\0"})
    assert "4111" not in str(caught.value)


def test_a_payload_may_be_64_levels_deep_and_not_65() -> None:
    assert json.loads(encode_payload(nested(64))) == nested(64)
    with pytest.raises(PayloadError, match="deeper than 64 levels"):
        encode_payload(nested(65))
    with pytest.raises(PayloadError, match="deeper than 64 levels"):
        encode_payload(nested(100_000))


def test_a_payload_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(PayloadError, match="contains itself"):
        encode_payload(loop)


def test_a_payload_that_would_explode_is_refused_at_once() -> None:
    with pytest.raises(PayloadError, match="number of values above"):
        encode_payload(doubled(60))


def test_an_oversized_payload_is_refused_naming_its_largest_part() -> None:
    value = {"id": 5, "files": [{"name": "a.png", "data": "x" * 300_000}]}
    with pytest.raises(PayloadError, match=r"makes the payload 300,0\d\d bytes of JSON") as caught:
        encode_payload(value)
    assert caught.value.path == "$.files[0].data"
    assert "max_payload is 262,144" in caught.value.problem


def test_an_oversized_payload_of_many_parts_is_refused_as_a_whole() -> None:
    with pytest.raises(PayloadError) as caught:
        encode_payload({str(number): "x" * 1_000 for number in range(300)})
    assert caught.value.path == "$"


@pytest.mark.parametrize("text", ["x", "é", "\N{GRINNING FACE}", '"', "\n"])
def test_the_limit_counts_bytes_of_utf_8(text: str) -> None:
    size = len(json.dumps(text * 10, ensure_ascii=False).encode())
    encode_payload(text * 10, max_bytes=size)
    with pytest.raises(PayloadError, match=rf"is {size} bytes of JSON, and max_payload is {size - 1}"):
        encode_payload(text * 10, max_bytes=size - 1)


def test_json_from_outside_is_read() -> None:
    assert parse_payload('{"to": "a@b.c", "n": [1, 2.5, null]}') == {"to": "a@b.c", "n": [1, 2.5, None]}
    assert parse_payload(b'"\xc3\xa9"') == "é"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        (b"\xff", "is not JSON"),
        ('{"a": {"b": 1, "b": 2}}', 'the name "b" twice'),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "is not JSON"),
    ],
)
def test_bad_json_from_outside_is_refused(text: str | bytes, problem: str) -> None:
    with pytest.raises(PayloadError, match=problem):
        parse_payload(text)


@pytest.mark.parametrize("text", ['"\\u0000"', '"\\ud800"', "NaN", "1e999"])
def test_json_that_only_python_accepts_is_refused_at_enqueue(text: str) -> None:
    value = parse_payload(text)
    with pytest.raises(PayloadError):
        encode_payload(value)
