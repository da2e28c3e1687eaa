"""Fixtures of the engine's tests, and the event loops that they run on.

jobs    an application on the test's database, for handlers that the test declares; `async with jobs.running():`
        then is a whole daemon in this process, whose events the test waits for
link    one connection past the daemon; the jobs are consistent at the end
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from jobd import Jobs
from jobd.door import Database, Link
from tests.factories import assert_consistent

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """A module's `LOOPS`, by name."""
    module = getattr(item, "module", None)
    return getattr(module, "LOOPS", {"asyncio": asyncio.new_event_loop})


@pytest.fixture
async def link(direct_database_url: str) -> AsyncIterator[Link]:
    link = Link(Database(direct_database_url))
    yield link
    await assert_consistent(link)
    await link.close()


@pytest.fixture
async def jobs(database_url: str, link: Link) -> AsyncIterator[Jobs]:
    jobs = Jobs(
        database_url,
        lease="6s",
        heartbeat="0.5s",
        poll_interval="0.2s",
        shutdown_grace="1s",
        concurrency=20,
        migrate="off",
        notify=os.environ.get("JOBD_TEST_NOTIFY", "on"),
    )
    yield jobs
    await jobs.close()
