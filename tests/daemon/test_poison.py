"""A job that kills its worker each time: it goes dead, and takes nobody with it."""

from __future__ import annotations

import json

import pytest

from tests.daemon.board import Board
from tests.daemon.daemons import DaemonProcess, Daemons

SHORT = {"lease": "1s", "heartbeat": "0.25s"}


async def restart_until_finished(
    daemons: Daemons, board: Board, count: int, **settings: str
) -> DaemonProcess:
    """Start a daemon again whenever it died, as a supervisor does, until `count` jobs are finished."""
    for _ in range(10):
        daemon = await daemons.begin(**settings)
        while daemon.alive:
            if await board.count("finished") >= count:
                return daemon
            await daemon.died_within(0.1)
    raise AssertionError(f"{await board.count('finished')} of {count} finished after ten daemons")


async def test_only_the_poison_job_goes_dead_and_no_innocent_comes_near_the_limit(
    daemons: Daemons, board: Board
):
    innocent = list(await board.jobs.enqueue_many("nap", [{"seconds": 0.02}] * 50))
    poison = await board.jobs.enqueue("poison")
    innocent += await board.jobs.enqueue_many("nap", [{"seconds": 0.02}] * 49)
    last = await restart_until_finished(daemons, board, 100, **SHORT)
    row = await board.row(poison.id)
    assert (row["state"], row["crashes"]) == ("dead", 3)
    assert row["reason"].startswith("crashed")
    errors = json.loads(row["errors"])
    assert [entry["type"] for entry in errors] == ["WorkerLost"] * 3
    rows = await board.query("select state, crashes, attempt from jobd.all_jobs where kind = 'nap'")
    assert {row["state"] for row in rows} == {"succeeded"}
    assert max(row["crashes"] for row in rows) < 3
    assert {row["attempt"] for row in rows} == {1}
    assert len(daemons.started) == 4
    last.terminate()
    assert await last.ended() == 0


@pytest.mark.slow
async def test_without_a_crash_limit_a_job_is_tried_for_ever(daemons: Daemons, board: Board, tmp_path):
    gate = tmp_path / "gate"
    job = await board.jobs.enqueue("tripwire", {"path": str(gate)})
    for _ in range(4):
        daemon = await daemons.begin(crash_limit="0", **SHORT)
        assert await daemon.ended() == 9
    gate.touch()
    await daemons.start(crash_limit="0", **SHORT)
    row = await board.in_state(job.id, "succeeded")
    assert (row["crashes"], row["attempt"]) == (4, 1)
