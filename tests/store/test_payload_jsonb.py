"""PostgreSQL itself, asked about what `payload` writes: it takes all of it and gives it back."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
from hypothesis import given, settings

from jobd.payload import encode_payload, encode_result
from tests.unit.json_values import ANYTHING, STORABLE, doubled, nested


async def read_back(database_url: str, texts: list[str]) -> list[Any]:
    connection = await asyncpg.connect(database_url, statement_cache_size=0)
    try:
        rows = await connection.fetch(
            "select value::jsonb::text as value"
            " from unnest($1::text[]) with ordinality as given (value, n) order by n",
            texts,
        )
    finally:
        await connection.close()
    return [json.loads(row["value"]) for row in rows]


def same(stored: Any, value: Any) -> bool:
    # jsonb writes a float of 1e16 and more without exponent: an integer, until it is a float again.
    if isinstance(value, float):
        return float(stored) == value
    if isinstance(value, list):
        return len(stored) == len(value) and all(map(same, stored, value))
    if isinstance(value, dict):
        return stored.keys() == value.keys() and all(same(stored[key], value[key]) for key in value)
    return bool(stored == value)


async def test_jsonb_gives_every_payload_back(empty_database_url: str) -> None:
    values: list[Any] = [nested(64), 1e308, 5e-324, -0.0, 2**63 - 1, "\u2028\x7f\N{GRINNING FACE}"]

    @settings(max_examples=300, deadline=None, database=None)
    @given(STORABLE)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    stored = await read_back(empty_database_url, [encode_payload(value) for value in values])
    assert all(map(same, stored, values))


async def test_jsonb_takes_every_result(empty_database_url: str) -> None:
    values: list[Any] = [nested(10_000), doubled(60), "\0\ud800", float("nan"), 10**5_000]

    @settings(max_examples=300, deadline=None, database=None)
    @given(ANYTHING)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    texts = [encode_result(value)[0] for value in values]
    assert len(await read_back(empty_database_url, texts)) == len(values)
