"""A handler that blocks the work loop stops neither the lease nor the probes."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.daemon.board import Board
from tests.daemon.daemons import Daemons
from tests.signals import eventually


def lag(metrics: str) -> float:
    found = re.search(r"^jobd_loop_lag_seconds (\S+)$", metrics, re.MULTILINE)
    assert found, metrics
    return float(found[1])


@pytest.mark.parametrize(
    ("lease", "heartbeat", "seconds"),
    [
        ("2s", "0.5s", 5),
        pytest.param("10s", "3s", 60, marks=[pytest.mark.slow, pytest.mark.timeout(150)]),
    ],
)
async def test_a_blocked_loop_keeps_its_lease_and_metrics_answer_and_show_the_lag(
    daemons: Daemons, board: Board, tmp_path: Path, lease: str, heartbeat: str, seconds: float
):
    settings = {"lease": lease, "heartbeat": heartbeat}
    judge = await daemons.start("--only", "scheduler", **settings)
    blocked = await daemons.start(**settings)
    gate = tmp_path / "gate"
    job = await board.jobs.enqueue("block_until", {"path": str(gate)})

    async with httpx.AsyncClient(base_url=blocked.address) as client:

        async def metrics() -> str:
            answer = await client.get("/metrics", timeout=2)
            assert answer.status_code == 200
            return answer.text

        await eventually(metrics, until=lambda text: lag(text) > seconds, timeout=seconds + 30)
        assert (await client.get("/livez", timeout=2)).status_code == 200
        assert (await client.get("/readyz", timeout=2)).status_code in {200, 503}
        gate.touch()
        row = await board.in_state(job.id, "succeeded")
        assert (row["attempt"], row["crashes"], row["claim_no"]) == (1, 0, 2)
        await eventually(metrics, until=lambda text: lag(text) < 1)
    assert not any("lost" in line["event"] for line in [*blocked.lines, *judge.lines])


async def test_jobs_that_were_claimed_while_the_loop_was_blocked_run_once(daemons: Daemons, board: Board):
    await daemons.start("--concurrency", "10", "--only", "worker")
    done = 0
    for turns in (2, 3, 4):
        # The jobs that end at once make room for another claim, and the one behind them blocks the loop when
        # that claim was sent: until its answer is read, nobody holds what it claimed, and beats give it back.
        async with board.jobs.client.pool.connection() as connection, connection.transaction():
            await board.jobs.enqueue_many("noop", [{}] * 9, connection=connection)
            await board.jobs.enqueue("block_later", {"seconds": 1.7, "turns": turns}, connection=connection)
            await board.jobs.enqueue_many("noted", [{}] * 20, connection=connection)
        done += 30
        await board.reach(done, "succeeded")
    rows = await board.query("select job_id, count(*) as runs from public.effects group by job_id")
    assert [row["runs"] for row in rows] == [1] * 60
