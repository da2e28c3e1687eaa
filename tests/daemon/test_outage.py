"""The database goes away and comes back: nothing is lost, nothing is counted against anybody."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.daemon.board import Board
from tests.daemon.daemons import Daemons
from tests.daemon.gates import waited_for
from tests.daemon.outage import outage, prepare
from tests.postgres import PostgresServer
from tests.signals import eventually


@pytest.fixture
def database_url(own_postgres: PostgresServer) -> str:
    return prepare(own_postgres)


@pytest.fixture
def direct_database_url(database_url: str) -> str:
    return database_url


async def test_an_immediate_restart_under_load_loses_no_job_and_ends_each_once(
    own_postgres: PostgresServer, daemons: Daemons, board: Board
):
    working = [await daemons.start(lease="10s") for _ in range(2)]
    rng = random.Random(7)
    payloads = [{"seconds": rng.uniform(0, 0.3)} for _ in range(1500)]
    ids = await board.jobs.enqueue_many("nap", payloads)
    await board.reach(300, "succeeded", timeout=30)
    async with outage(own_postgres, seconds=0):
        pass
    await board.reach(1500, "succeeded", timeout=30)
    assert await board.query("select id from jobd.all_jobs where crashes > 0 or state <> 'succeeded'") == []
    assert len(await board.runs(ids)) == 1500
    for daemon in working:
        daemon.terminate()
        assert await daemon.ended() == 0


@pytest.mark.parametrize(
    ("lease", "heartbeat", "seconds"),
    [
        ("2s", "0.5s", 6),
        pytest.param("30s", "10s", 120, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
)
async def test_an_outage_longer_than_every_lease_loses_no_result_and_counts_no_crash(
    own_postgres: PostgresServer,
    daemons: Daemons,
    board: Board,
    tmp_path: Path,
    lease: str,
    heartbeat: str,
    seconds: float,
):
    settings = {"lease": lease, "heartbeat": heartbeat}
    working = [await daemons.start("--concurrency", "20", **settings) for _ in range(2)]
    soon, late = tmp_path / "soon", tmp_path / "late"
    ready = await board.jobs.enqueue_many("wait", [{"path": str(soon)}] * 20)
    going_on = await board.jobs.enqueue_many("wait", [{"path": str(late)}] * 20)
    await waited_for(soon, 20)
    await waited_for(late, 20)
    async with outage(own_postgres, seconds=seconds):
        soon.touch()  # these results are ready while nobody can write them down
        await asyncio.gather(*[daemon.logged("lease lost", timeout=seconds) for daemon in working])
    late.touch()
    await board.reach(40, "succeeded", timeout=30)
    assert await board.query("select id from jobd.all_jobs where crashes > 0 or attempt <> 1") == []
    assert await board.runs(ready) == dict.fromkeys(ready, 1)
    assert set((await board.runs(going_on)).values()) <= {1, 2}
    for daemon in working:
        assert not any("lost workers" in line["event"] for line in daemon.lines)
        daemon.terminate()
        assert await daemon.ended() == 0


async def test_an_outage_shorter_than_the_lease_interrupts_no_handler(
    own_postgres: PostgresServer, daemons: Daemons, board: Board, tmp_path: Path
):
    daemon = await daemons.start(lease="20s")
    gate = tmp_path / "gate"
    ids = await board.jobs.enqueue_many("wait", [{"path": str(gate)}] * 10)
    await waited_for(gate, 10)
    async with outage(own_postgres, seconds=0):
        await daemon.logged("database lost")
    gate.touch()
    await board.reach(10, "succeeded")
    assert await board.runs(ids) == dict.fromkeys(ids, 1)


async def test_a_daemon_waits_for_a_database_that_is_not_there_yet(
    own_postgres: PostgresServer, daemons: Daemons, board: Board
):
    job = await board.jobs.enqueue("add", {"a": 1, "b": 2})
    async with outage(own_postgres, seconds=0, mode="fast"):
        daemon = await daemons.begin(migrate="auto")
        await daemon.logged("waiting for the database")
    await daemon.logged("started")
    await board.in_state(job.id, "succeeded")


async def test_a_daemon_that_waits_for_its_database_still_ends_on_sigterm(
    own_postgres: PostgresServer, daemons: Daemons
):
    async with outage(own_postgres, seconds=0, mode="fast"):
        daemon = await daemons.begin()
        await daemon.logged("waiting for the database")
        daemon.terminate()
        assert await daemon.ended() == 0


@pytest.mark.slow
async def test_a_daemon_that_ends_during_an_outage_says_what_it_could_not_write(
    own_postgres: PostgresServer, daemons: Daemons, board: Board, tmp_path: Path
):
    daemon = await daemons.start()
    gate = tmp_path / "gate"
    await board.jobs.enqueue("wait", {"path": str(gate)})
    await waited_for(gate)
    async with outage(own_postgres, seconds=0, mode="fast"):
        gate.touch()
        daemon.terminate()
        daemon.terminate()
        assert await daemon.ended(timeout=40) == 1
        assert (await daemon.logged("could not be written"))["lost"] == 1


async def test_readiness_tells_that_the_schedules_cannot_be_looked_at(
    own_postgres: PostgresServer, daemons: Daemons
):
    daemon = await daemons.start()
    async with httpx.AsyncClient(base_url=daemon.address) as client:

        async def answer() -> dict[str, Any]:
            return (await client.get("/readyz")).json()

        await eventually(answer, until=lambda told: told["scheduler"]["running"])
        async with outage(own_postgres, seconds=0):
            told = await eventually(answer, until=lambda told: not told["scheduler"]["running"])
            assert told["scheduler"]["reason"]
            # Also when it has no lease any more, and so asks nothing of the database.
            told = await eventually(answer, until=lambda told: "no heartbeat" in str(told["reasons"]))
            assert told["scheduler"] == {
                "running": False,
                "lead": "follower",
                "schedules": 0,
                "reason": told["scheduler"]["reason"],
            }
            assert "no heartbeat was confirmed for" in told["scheduler"]["reason"]
        await eventually(answer, until=lambda told: told["scheduler"]["running"], timeout=30)


async def test_without_a_lease_no_older_trouble_is_told_as_why_no_schedule_fires(
    own_postgres: PostgresServer, daemons: Daemons, board: Board
):
    daemon = await daemons.start()
    async with httpx.AsyncClient(base_url=daemon.address) as client:

        async def reason() -> str:
            return str((await client.get("/readyz")).json()["scheduler"]["reason"])

        await eventually(reason, until=lambda why: why == "None")
        await board.query("alter table jobd.schedules rename to hidden")
        await eventually(reason, until=lambda why: "look at the schedules failed" in why)
        async with outage(own_postgres, seconds=0):
            await eventually(reason, until=lambda why: "no heartbeat was confirmed for" in why)
        await board.query("alter table jobd.hidden rename to schedules")
        await eventually(reason, until=lambda why: why == "None", timeout=30)
