"""A worker that dies with claims in hand that had not begun: they run once, and are none the worse for it."""

from __future__ import annotations

from pathlib import Path

from tests.daemon.board import Board
from tests.daemon.daemons import Daemons
from tests.signals import eventually


async def test_what_a_killed_worker_held_runs_once_and_counts_that_crash_alone(
    daemons: Daemons, board: Board, tmp_path: Path
):
    victim = await daemons.start(concurrency="4", app="tests.daemon.patient:jobs")
    gate = tmp_path / "gate"
    # It learns that the kind is quick, so that it takes what waits behind the four that are not.
    await board.jobs.enqueue_many("step", [{}] * 200)
    await board.reach(200, "succeeded")
    stuck = [{"name": f"stuck {n}", "path": str(gate)} for n in range(4)]
    ids = await board.jobs.enqueue_many("step", [*stuck, *({"name": f"held {n}"} for n in range(3))])
    await board.reach(7, "running")
    await eventually(lambda: board.effects("began stuck%"), until=lambda rows: len(rows) == 4)
    victim.kill()
    await victim.ended()
    assert await board.count("running") == 7
    assert [row["what"] for row in await board.effects("began held%")] == []
    survivor = await daemons.start(concurrency="4")
    await survivor.logged("jobs of lost workers put back")
    await board.reach(4, "running")
    gate.touch()
    await board.reach(207, "succeeded")
    rows = await board.query("select crashes, attempt from jobd.job_history where id = any ($1::uuid[])", ids)
    assert [tuple(row) for row in rows] == [(1, 1)] * 7
    began = [row["what"] for row in await board.effects("began held%")]
    assert sorted(began) == [f"began held {n}" for n in range(3)]
    assert len(await board.effects("began stuck%")) == 8


async def test_until_idle_does_not_leave_behind_what_it_held(daemons: Daemons, board: Board, tmp_path: Path):
    gate = tmp_path / "gate"
    await board.jobs.enqueue_many("step", [{}] * 200)
    stuck = await board.jobs.enqueue("step", {"path": str(gate)})
    await board.jobs.enqueue_many("step", [{}] * 5)
    daemon = await daemons.start("--until-idle", concurrency="1", poll_interval="30s")
    await board.in_state(stuck.id, "running")
    # What it took beyond its slot goes back, in a moment.
    await eventually(lambda: board.count("running"), until=lambda count: count == 1)
    gate.touch()
    assert await daemon.ended() == 0
    assert await board.count("succeeded") == 206
