"""The client for callers without a loop: the same calls, over a pool in the background."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from jobd.bulk import CHUNK_JOBS
from jobd.client import Client
from jobd.door import Database
from jobd.doors import driven
from jobd.errors import CallTimeout, DatabaseUnavailable, IdTaken, JobNotFound, PayloadError, WaitTimeout
from jobd.events import Events, JobEnqueued
from jobd.ids import uuid7
from jobd.job import JobState
from jobd.pool import Pool
from jobd.registry import Registry
from jobd.sync import SyncClient
from tests.postgres import PgBouncer
from tests.signals import eventually


def client_of(url: str, **options: Any) -> Client:
    pool = Pool(Database(url), size=2, call_timeout=options.pop("call_timeout", 5))
    return Client(pool, registry=Registry(), **{"events": Events(), **options})


@pytest.fixture
def sync(database_url: str) -> Iterator[SyncClient]:
    sync = SyncClient(client_of(database_url))
    yield sync
    sync.close()


@pytest.fixture
def direct(direct_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(direct_database_url, autocommit=True) as connection:
        yield connection


def test_many_jobs_are_changed_in_the_callers_thread(sync: SyncClient):
    sync.enqueue_many("noop", [{}] * 3, queue="mail")
    sync.enqueue("noop")
    told: list[str] = []
    seen = lambda tally: told.append(threading.current_thread().name)  # noqa: E731
    assert sync.reschedule_many(queue="mail", priority=3, on_progress=seen).jobs == 3
    assert sync.move_many(queue="mail", to="slow", limit=2).jobs == 2
    assert sync.cancel_many(queue=["mail", "slow"]).states == {JobState.READY: 3}
    assert sync.retry_many(state="cancelled", queue="slow").jobs == 2
    assert sync.delete_many(all=True, dry_run=True).jobs == 4
    assert told == [threading.current_thread().name]


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jobd-sync"]


def test_every_call_of_the_client_has_its_blocking_twin():
    calls = {name for name, _ in inspect.getmembers(Client, inspect.iscoroutinefunction)}
    public = {name for name in calls if not name.startswith("_")}
    assert public == {name for name in vars(SyncClient) if not name.startswith("_")} - {"close"}
    for name in public:
        twin = getattr(SyncClient, name)
        assert not inspect.iscoroutinefunction(twin)
        assert twin.__doc__ == getattr(Client, name).__doc__
        assert inspect.signature(twin) == inspect.signature(getattr(Client, name))


def test_a_job_goes_through_its_calls_without_a_loop(sync: SyncClient):
    enqueued = sync.enqueue("greet", {"name": "ada"}, delay="1h", tags=["a"])
    assert enqueued.created
    job = sync.get(enqueued.id)
    assert (job.payload, job.state, job.tags) == ({"name": "ada"}, JobState.SCHEDULED, ["a"])
    assert sync.run_now(job.id) == JobState.READY
    assert sync.reschedule(job.id, priority=5) == JobState.READY
    assert sync.cancel(job.id) == JobState.CANCELLED
    assert sync.wait(job.id).reason == "cancelled on request"
    assert sync.retry(job.id) == JobState.READY
    assert [found.priority for found in sync.list(kind="greet")] == [5]
    sync.delete(job.id)
    with pytest.raises(JobNotFound):
        sync.get(job.id)


async def test_it_works_where_a_loop_runs_and_blocks_it(sync: SyncClient):
    enqueued = sync.enqueue("greet")
    with pytest.raises(WaitTimeout):
        sync.wait(enqueued.id, timeout=0.05)


def test_errors_are_those_of_the_client(sync: SyncClient):
    id = sync.enqueue("greet", id=uuid7()).id
    with pytest.raises(IdTaken):
        sync.enqueue("other", id=id)
    with pytest.raises(PayloadError):
        sync.enqueue("greet", {"a": float("inf")})


def test_an_unreachable_database_is_a_typed_error(tmp_path_factory: pytest.TempPathFactory):
    sync = SyncClient(client_of(f"postgresql://postgres@/jobs?host={tmp_path_factory.getbasetemp()}"))
    with pytest.raises(DatabaseUnavailable):
        sync.enqueue("greet")
    sync.close()


def test_payloads_are_made_and_events_told_in_the_thread_of_the_call(database_url: str):
    threads: set[threading.Thread] = set()
    events = Events()
    events.subscribe(JobEnqueued, lambda event: threads.add(threading.current_thread()))
    sync = SyncClient(client_of(database_url, events=events))

    def payloads() -> Iterator[dict[str, int]]:
        for n in range(2 * CHUNK_JOBS + 1):
            threads.add(threading.current_thread())
            yield {"n": n}

    ids = sync.enqueue_many("greet", payloads())
    assert threads == {threading.current_thread()}
    assert [sync.get(ids[n]).payload for n in (0, -1)] == [{"n": 0}, {"n": 2 * CHUNK_JOBS}]
    sync.close()


def test_many_jobs_are_all_or_nothing(sync: SyncClient, direct: psycopg.Connection[Any]):
    def payloads() -> Iterator[Any]:
        yield from ({} for _ in range(2 * CHUNK_JOBS))
        raise LookupError("the caller's own trouble")

    with pytest.raises(LookupError, match="trouble"):
        sync.enqueue_many("greet", payloads())
    assert direct.execute("select count(*) from jobd.jobs").fetchall() == [(0,)]
    assert len(sync.enqueue_many("greet", ({} for _ in range(CHUNK_JOBS + 1)))) == CHUNK_JOBS + 1


def test_a_callers_connection_needs_no_thread(database_url: str, direct: psycopg.Connection[Any]):
    before = background_threads()
    sync = SyncClient(client_of(database_url))
    with direct.transaction():
        enqueued = sync.enqueue("greet", connection=direct)
    assert background_threads() == before
    assert sync.get(enqueued.id).kind == "greet"
    assert len(background_threads()) == len(before) + 1
    sync.close()


def test_threads_share_one_client(sync: SyncClient):
    with ThreadPoolExecutor(8) as threads:
        enqueued = list(threads.map(lambda n: sync.enqueue("greet", {"n": n}), range(64)))
        jobs = list(threads.map(lambda answer: sync.get(answer.id), enqueued))
    assert sorted(job.payload["n"] for job in jobs) == list(range(64))


def test_a_closed_client_leaves_nothing_and_starts_anew(sync: SyncClient, direct: psycopg.Connection[Any]):
    before = background_threads()
    enqueued = sync.enqueue("greet")
    sync.close()
    assert background_threads() == before
    sync.close()
    assert sync.get(enqueued.id).id == enqueued.id


def test_a_call_that_has_to_wait_ends_within_its_limit(database_url: str, direct: psycopg.Connection[Any]):
    sync = SyncClient(client_of(database_url, call_timeout=2))
    sync.list()
    with direct.transaction():
        direct.execute("select jobd.enqueue('greet', unique_key => 'k')")
        with pytest.raises(CallTimeout, match=r"enqueue did not end within 2 s"):
            sync.enqueue("greet", unique_key="k")
    assert sync.enqueue("greet", unique_key="k").duplicate
    sync.close()


def test_an_interrupted_call_is_cancelled_and_its_connection_given_back(
    database_url: str, direct: psycopg.Connection[Any]
):
    sync = SyncClient(client_of(database_url, call_timeout=30))
    sync.list()
    observer = psycopg.connect(direct.info.dsn, autocommit=True)

    def interrupt_when_blocked() -> None:
        blocked = "select 1 from pg_stat_activity where %s = any (pg_blocking_pids(pid))"
        while not observer.execute(blocked, [direct.info.backend_pid]).fetchone():
            pass
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    with direct.transaction():
        direct.execute("select jobd.enqueue('greet', unique_key => 'k')")
        watcher = threading.Thread(target=interrupt_when_blocked)
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            sync.enqueue("greet", unique_key="k")
        watcher.join()
    assert [sync.enqueue("greet", unique_key="k").duplicate for _ in range(3)] == [True] * 3
    observer.close()
    sync.close()


def test_a_coroutine_that_really_waits_is_a_mistake_of_ours():
    with pytest.raises(RuntimeError, match="only an event loop"):
        driven(asyncio.sleep(0))


PREAMBLE = """
import os, sys
from jobd.client import Client
from jobd.door import Database
from jobd.pool import Pool
from jobd.events import Events
from jobd.registry import Registry
from jobd.sync import SyncClient
pool = Pool(Database(sys.argv[1], application="script"), size=2, call_timeout=5)
sync = SyncClient(Client(pool, registry=Registry(), events=Events()))
sync.enqueue("parent")
"""

FORK = """
child = os.fork()
if child == 0:
    sync.enqueue("child")
    sync.enqueue_many("child", [{}, {}])
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
sync.enqueue("parent")
print(len(sync.list(kind="child")), len(sync.list(kind="parent")))
"""


def run_script(text: str, url: str) -> subprocess.CompletedProcess[str]:
    # Python 3.12 and later warn of any fork while threads run; applications that do it live with that.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", text, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_forked_child_goes_on_and_so_does_its_parent(database_url: str):
    ended = run_script(PREAMBLE + FORK, database_url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "3 2\n", "")


def test_a_script_that_closes_nothing_ends_quietly_and_says_goodbye(
    database_url: str, direct: psycopg.Connection[Any], pooler: PgBouncer | None
):
    ended = run_script(PREAMBLE, database_url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    sessions = "select count(*) from pg_stat_activity where application_name = 'script'"
    # A pooler keeps its own connection to the server, whoever has left.
    if pooler is None:
        # The server ends a session a moment after the goodbye.
        asyncio.run(eventually(lambda: direct.execute(sessions).fetchall() == [(0,)]))
