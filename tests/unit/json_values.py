"""Values for tests of what jsonb stores, and PostgreSQL's rules checked on their own."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
STORABLE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXT, inner, max_size=5)),
    max_leaves=20,
)
ANY_TEXT = st.text(st.characters(), max_size=20)
ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        ANY_TEXT,
        st.binary(max_size=10),
        st.decimals(),
        st.dates(),
        st.uuids(),
        st.builds(object),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(ANY_TEXT, st.integers(), st.none(), st.uuids()), inner, max_size=4),
    ),
    max_leaves=15,
)


def assert_jsonb_takes(text: str) -> Any:
    """PostgreSQL's rules, checked on their own: strict JSON in UTF-8, without NUL."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(text.encode(), parse_constant=refuse)
    nodes = [value]
    while nodes:
        match nodes.pop():
            case str(found):
                assert "\0" not in found
                found.encode()
            case bool() | None:
                pass
            case int(number):
                assert -(2**63) <= number < 2**63
            case list(found):
                nodes.extend(found)
            case dict(found):
                nodes.extend(found)
                nodes.extend(found.values())
    return value


@dataclasses.dataclass
class Address:
    street: str
    number: int


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def doubled(levels: int) -> list[Any]:
    """A few lists in memory, 2 ** levels in JSON."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value, value]
    return value
