"""Fixtures of the tests that run daemons as processes.

daemons    starts them on the test's database
board      what the database says about the jobs, and a client to enqueue with
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.daemon.board import Board, board_on
from tests.daemon.daemons import Daemons, daemons_on


@pytest.fixture
async def daemons(database_url: str) -> AsyncIterator[Daemons]:
    async with daemons_on(database_url) as daemons:
        yield daemons


@pytest.fixture
async def board(direct_database_url: str) -> AsyncIterator[Board]:
    async with board_on(direct_database_url) as board:
        yield board
