"""A worker that dies, or that is taken for dead: its jobs run again, and it can do no harm any more."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.daemon.board import Board
from tests.daemon.daemons import Daemons
from tests.daemon.gates import waited_for

LEASE = 2.0


async def test_jobs_of_a_killed_worker_run_again_within_the_lease_and_five_seconds(
    daemons: Daemons, board: Board, tmp_path: Path
):
    victim = await daemons.start()
    gate = tmp_path / "gate"
    ids = await board.jobs.enqueue_many("wait", [{"path": str(gate)}] * 50)
    await waited_for(gate, 50)
    survivor = await daemons.start()
    # Only who was confirmed for a whole lease may take others for dead.
    await board.confirmed(survivor.worker, seconds=LEASE)
    victim.kill()
    # All at the same time, however long each takes: none has to wait for another to end.
    await board.reach(50, "running", timeout=LEASE + 5, worker=survivor.worker)
    gate.touch()
    await board.reach(50, "succeeded", timeout=10)
    assert await board.runs(ids) == dict.fromkeys(ids, 2)


async def test_a_worker_that_was_stopped_past_its_lease_changes_nothing_and_works_again(
    daemons: Daemons, board: Board, tmp_path: Path
):
    sleeper = await daemons.start("--only", "worker")
    gate = tmp_path / "gate"
    await board.jobs.enqueue_many("wait", [{"path": str(gate)}] * 20)
    await waited_for(gate, 20)
    sleeper.signal(signal.SIGSTOP)
    other = await daemons.start()
    await other.logged("jobs of lost workers put back")
    gate.touch()  # the stopped one will find its handlers done, too
    await board.reach(20, "succeeded")
    before = await board.query("select * from jobd.job_history order by id")
    sleeper.signal(signal.SIGCONT)
    await sleeper.logged("took this worker for dead")
    assert await board.query("select * from jobd.job_history order by id") == before
    assert all(row["claim_no"] == 4 and row["worker_id"] == before[0]["worker_id"] for row in before)
    other.terminate()
    assert await other.ended() == 0
    again = await board.jobs.enqueue("add", {"a": 1, "b": 2})
    assert (await board.jobs.wait(again.id, timeout=10)).result == 3
    assert sleeper.alive


async def test_late_writes_of_a_stopped_worker_do_not_touch_the_run_that_replaced_its_own(
    daemons: Daemons, board: Board, tmp_path: Path
):
    gate = tmp_path / "gate"
    sleeper = await daemons.start("--only", "worker")
    job = await board.jobs.enqueue("wait", {"path": str(gate)})
    await waited_for(gate)
    sleeper.signal(signal.SIGSTOP)
    other = await daemons.start()
    await other.logged("jobs of lost workers put back")
    running = await board.in_state(job.id, "running")
    sleeper.signal(signal.SIGCONT)
    await sleeper.logged("took this worker for dead")
    await sleeper.logged("claim lost")
    assert await board.row(job.id) == running
    assert (running["claim_no"], running["crashes"]) == (3, 1)
    gate.touch()
    row = await board.in_state(job.id, "succeeded")
    assert (row["claim_no"], row["worker_id"]) == (4, running["worker_id"])
