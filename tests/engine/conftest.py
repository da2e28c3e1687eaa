"""Fixtures of the engine's tests, and the event loops that they run on.

jobs    an application on the test's database, for handlers that the test declares; then
        `async with jobs.running():` is a whole daemon in this process, whose events the test waits for
link    one connection past the daemon; the jobs are consistent at the end
desk    a finisher at work, without a daemon

processes       processes for handlers, none of which is left at the end
make_processes  makes others: make_processes(limit=2, grace=0.1)
door            where handlers in processes meet their test
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from jobd import Jobs
from jobd.door import Database, Link
from jobd.engine.processes import Processes
from tests.engine.desk import Desk, running
from tests.engine.door import NEVER, Door, children
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
    )
    yield jobs
    await jobs.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(str(tmp_path / "door")).open() as door:
        yield door


@pytest.fixture
async def make_processes() -> AsyncIterator[Callable[..., Processes]]:
    made: list[Processes] = []

    def make(*, limit: int = 2, grace: float = NEVER) -> Processes:
        made.append(Processes(limit=limit, grace=grace))
        return made[-1]

    yield make
    for processes in made:
        processes.kill()
        await processes.close()
    assert children() == []


@pytest.fixture
def processes(make_processes: Callable[..., Processes]) -> Processes:
    return make_processes()


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    link = Link(Database(database_url))
    async with running(Desk(link)) as desk:
        yield desk
    await link.close()
