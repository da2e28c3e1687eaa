"""Notifications are hints: with them jobs start at once, without them at the next poll."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest

from jobd import Jobs
from jobd.door import Database, Link
from jobd.engine import notifier as engine_notifier
from jobd.engine import slumber
from jobd.engine.notifier import Notifier
from jobd.events import Events, JobStarted, ListenerChanged
from jobd.fleet import Fleet
from jobd.listener import Listener
from tests.engine.running import ran
from tests.factories import query
from tests.postgres import PgBouncer, PostgresServer
from tests.signals import eventually, expect

LISTENERS = "select pid from pg_stat_activity where datname = current_database() and query ilike 'listen %'"


@pytest.fixture
def transaction_pooler(postgres: PostgresServer, pooler: PgBouncer | None) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode, in every lane."""
    if pooler is not None:
        yield pooler
    elif shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin"):
        with postgres.pooled() as own:
            yield own
    else:
        pytest.skip("needs pgbouncer (Debian: apt-get install pgbouncer)")


class Ears:
    """A notifier on its own, and what it passed on."""

    def __init__(self, database_url: str, *, queues: tuple[str, ...] = ("default",)) -> None:
        database = Database(database_url)
        self._link = Link(database)
        self.events = Events()
        self.work = 0
        self.cancels: list[UUID] = []
        self.schedules = 0
        self.limits = 0

        def make_listener(heard: Callable[[str, str], None]) -> Listener:
            return Listener(database, heard, fleet=Fleet(self._link))

        def on_work() -> None:
            self.work += 1

        def on_schedules() -> None:
            self.schedules += 1

        def on_limits() -> None:
            self.limits += 1

        self.notifier = Notifier(
            make_listener,
            queues=queues,
            on_work=on_work,
            on_cancel=self.cancels.append,
            on_schedules=on_schedules,
            on_limits=on_limits,
            events=self.events,
            rng=random.Random(3),
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        listening = asyncio.ensure_future(self.notifier.run())
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait({listening})
            await self._link.close()


async def test_it_looks_for_work_once_it_listens_and_passes_on_what_concerns_it(
    direct_database_url: str, link: Link
):
    ears = Ears(direct_database_url, queues=("mine",))
    job_id = uuid4()
    async with expect(ears.events, ListenerChanged, up=True):
        listening = ears.listening()
        await listening.__aenter__()
    assert (ears.work, ears.schedules, ears.limits) == (1, 1, 1)
    for channel, payload in [
        ("jobd_wake", "mine"),
        ("jobd_wake", "theirs"),
        ("jobd_cancel", "no uuid"),
        ("jobd_other", "mine"),
        ("jobd_schedules", ""),
        ("jobd_limits", ""),
        ("jobd_cancel", str(job_id)),
    ]:
        await query(link, "select pg_notify($1::text, $2::text)", channel, payload)

    async def heard() -> bool:
        return bool(ears.cancels)

    await eventually(heard)
    assert (ears.work, ears.cancels, ears.schedules, ears.limits) == (2, [job_id], 2, 2)
    await listening.__aexit__(None, None, None)


async def test_it_listens_again_after_its_connection_was_cut(direct_database_url: str, link: Link):
    ears = Ears(direct_database_url)
    async with expect(ears.events, ListenerChanged, up=True):
        listening = ears.listening()
        await listening.__aenter__()
    async with expect(ears.events, ListenerChanged, up=True), expect(ears.events, ListenerChanged, up=False):
        cut = await query(link, LISTENERS.replace("select pid", "select pg_terminate_backend(pid)"))
        assert len(cut) == 1
    assert ears.notifier.up
    await listening.__aexit__(None, None, None)


async def test_a_listener_behind_a_pooler_knows_that_it_is_deaf(
    transaction_pooler: PgBouncer, _clone: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_notifier, "PROBE_TIMEOUT", 0.5)
    ears = Ears(transaction_pooler.dsn(_clone))
    async with expect(ears.events, ListenerChanged, up=False) as deaf:
        listening = ears.listening()
        await listening.__aenter__()
    assert "pooler" in deaf.event.detail
    assert not ears.notifier.up
    await listening.__aexit__(None, None, None)


async def test_jobs_run_through_a_pooler_in_transaction_mode(transaction_pooler: PgBouncer, _clone: str):
    jobs = Jobs(
        transaction_pooler.dsn(_clone), migrate="check", poll_interval="0.2s", heartbeat="0.5s", lease="3s"
    )

    @jobs.handler("add")
    async def add(a: int, b: int) -> int:
        return a + b

    async with jobs.running():
        for n in range(20):
            _, job = await ran(jobs, "add", {"a": n, "b": 1})
            assert job.result == n + 1


async def test_an_idle_daemon_is_woken_by_an_enqueue(
    jobs: Jobs, direct_database_url: str, link: Link, monkeypatch: pytest.MonkeyPatch
):
    jobs.overrides["database_url"] = direct_database_url  # no pooler lets it hear
    # It stays asleep: one that is awake has not asked to be woken.
    monkeypatch.setattr(slumber, "SHORT_SLEEPS", 1000)

    @jobs.handler("noop")
    async def noop() -> None: ...

    waited = []
    async with expect(jobs.events, ListenerChanged, up=True):
        running = jobs.running(poll_interval="10m", notify="on")
        await running.__aenter__()
    for _ in range(20):
        await eventually(lambda: query(link, "select from jobd.workers where sleeping_until > now()"))
        began = time.monotonic()
        async with expect(jobs.events, JobStarted):
            await jobs.enqueue("noop")
        waited.append(time.monotonic() - began)
    await running.__aexit__(None, None, None)
    # What it usually is belongs into a benchmark; here it is only far from the poll interval.
    print(f"median from enqueue to start: {sorted(waited)[10] * 1000:.1f} ms")
    assert max(waited) < 5


async def test_without_notifications_jobs_start_within_the_poll_interval(jobs: Jobs):
    @jobs.handler("noop")
    async def noop() -> None: ...

    async with jobs.running(poll_interval="2s", notify="off"):
        for _ in range(5):
            began = time.monotonic()
            async with expect(jobs.events, JobStarted):
                await jobs.enqueue("noop")
            # It is not the poll after the next one that finds it.
            assert time.monotonic() - began < 3
