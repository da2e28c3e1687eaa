"""Fixture: klaus, the gift exchange on a database of its own; at noon on 1 October 2026."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.examples.klaus import Klaus, opened


@pytest.fixture
async def klaus(database_url: str) -> AsyncIterator[Klaus]:
    async with opened(database_url) as klaus:
        yield klaus
