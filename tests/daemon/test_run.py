"""What `jobd run` serves, and when it ends by itself."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.daemon.board import Board
from tests.daemon.daemons import Daemons
from tests.signals import eventually


async def test_until_idle_ends_when_nothing_is_left_to_run(daemons: Daemons, board: Board):
    ids = list(await board.jobs.enqueue_many("nap", [{"seconds": 0.01}] * 200))
    ids.append((await board.jobs.enqueue("noop", delay="0.01s")).id)
    later = await board.jobs.enqueue("noop", delay="1h")
    daemon = await daemons.start("--until-idle")
    assert await daemon.ended() == 0
    assert await board.runs(ids) == dict.fromkeys(ids, 1)
    assert (await board.row(later.id))["state"] == "scheduled"
    assert await board.scalar("select count(*) from jobd.workers") == 0


async def test_until_idle_on_an_empty_queue_ends_at_once(daemons: Daemons, board: Board):
    daemon = await daemons.start("--until-idle")
    assert await daemon.ended(timeout=5) == 0


async def test_until_idle_waits_for_what_is_running(daemons: Daemons, board: Board, tmp_path: Path):
    gate = tmp_path / "gate"
    job = await board.jobs.enqueue("wait", {"path": str(gate)})
    daemon = await daemons.start("--until-idle")
    await board.in_state(job.id, "running")
    gate.touch()
    assert await daemon.ended() == 0
    assert (await board.row(job.id))["state"] == "succeeded"


async def test_several_daemons_drain_a_queue_together_and_run_each_job_once(daemons: Daemons, board: Board):
    ids = await board.jobs.enqueue_many("noop", [{}] * 3000)
    crew = await asyncio.gather(*[daemons.start("--until-idle", "--concurrency", "20") for _ in range(3)])
    assert [await daemon.ended() for daemon in crew] == [0, 0, 0]
    assert await board.runs(ids) == dict.fromkeys(ids, 1)


async def test_a_worker_only_serves_no_http(daemons: Daemons, board: Board):
    daemon = await daemons.start("--only", "worker")
    job = await board.jobs.enqueue("noop")
    await board.in_state(job.id, "succeeded")
    assert (await daemon.logged("started"))["address"] is None
    open_sockets = set()
    for path in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            open_sockets.add(str(path.readlink())[8:-1])
    table = [line.split() for line in Path(f"/proc/{daemon.pid}/net/tcp").read_text().splitlines()[1:]]
    assert not open_sockets & {
        inode for _, _, _, state, *_, inode in (row[:10] for row in table) if state == "0A"
    }


async def test_http_only_runs_no_job(daemons: Daemons, board: Board):
    daemon = await daemons.start("--only", "http")
    job = await board.jobs.enqueue("noop")
    async with httpx.AsyncClient(base_url=daemon.address) as client:
        metrics = (await client.get("/metrics")).text
    assert 'jobd_jobs_ready{queue="default"} 1' in metrics
    assert (await board.row(job.id))["claim_no"] == 0


async def test_queue_serves_only_the_queues_that_are_named(daemons: Daemons, board: Board):
    mine = await board.jobs.enqueue("noop", queue="mine")
    other = await board.jobs.enqueue("noop")
    daemon = await daemons.start("--queue", "mine", "--until-idle")
    assert await daemon.ended() == 0
    assert (await board.row(mine.id))["state"] == "succeeded"
    assert (await board.row(other.id))["claim_no"] == 0


async def test_metrics_and_readiness_of_a_daemon_that_works(daemons: Daemons, board: Board):
    daemon = await daemons.start()
    job = await board.jobs.enqueue("add", {"a": 1, "b": 1})
    await board.in_state(job.id, "succeeded")
    async with httpx.AsyncClient(base_url=daemon.address) as client:
        ready = await client.get("/readyz")

        async def page() -> str:
            return (await client.get("/metrics")).text

        # The end of a job counts once the answer to it has been read.
        counted = 'jobd_jobs_finished_total{kind="add",outcome="succeeded",queue="default"} 1'
        metrics = await eventually(page, until=lambda text: counted in text)
    assert ready.status_code == 200, ready.text
    scheduler = ready.json()["scheduler"]
    assert scheduler.pop("lead") in ("leader", "follower")
    assert scheduler == {"running": True, "schedules": 0, "reason": None}
    assert "jobd_database_up 1" in metrics
    assert "jobd_slots" in metrics
    assert 'jobd_schedules{state="active"} 0' in metrics


async def test_readiness_tells_why_no_schedule_fires_from_a_process(daemons: Daemons, board: Board):
    daemon = await daemons.start("--only", "worker", "--only", "http")
    async with httpx.AsyncClient(base_url=daemon.address) as client:
        ready = await eventually(
            lambda: client.get("/readyz"), until=lambda answer: answer.status_code == 200
        )
    assert ready.json()["scheduler"] == {
        "running": False,
        "lead": None,
        "schedules": 0,
        "reason": "this process has not the role scheduler",
    }


async def test_a_database_without_the_schema_is_refused_when_migrations_are_off(
    empty_database_url: str, tmp_path: Path
):
    from tests.daemon.daemons import daemons_on

    async with daemons_on(empty_database_url) as daemons:
        daemon = await daemons.begin(migrate="off")
        assert await daemon.ended() == 1
        assert "jobd migrate" in daemon.output


@pytest.mark.timeout(120)
async def test_ten_daemons_may_start_on_an_empty_database_at_once(empty_database_url: str):
    from tests.daemon.daemons import daemons_on

    async with daemons_on(empty_database_url, migrate="auto") as daemons:
        crew = await asyncio.gather(*[daemons.begin("--until-idle") for _ in range(10)])
        assert [await daemon.ended(timeout=60) for daemon in crew] == [0] * 10
