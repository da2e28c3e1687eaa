"""What `explain` says while real daemons take jobs, put them back, and die."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from jobd.standing import Why
from tests.daemon.board import Board
from tests.daemon.daemons import Daemons
from tests.signals import eventually


async def first(board: Board, id: UUID) -> Why:
    return (await board.jobs.explain(id)).reasons[0].why


async def test_a_kind_that_no_daemon_knows_is_told_also_when_it_was_put_back(daemons: Daemons, board: Board):
    job = await board.jobs.enqueue("nobodys")
    assert await first(board, job.id) == Why.NO_WORKER
    await daemons.start()
    await eventually(lambda: board.row(job.id), until=lambda row: row["claim_no"] == 2)
    assert await first(board, job.id) == Why.KIND_UNKNOWN


async def test_a_worker_that_dies_is_told_as_silent_or_lost_until_the_job_is_rescued(
    daemons: Daemons, board: Board, tmp_path: Path
):
    settings = {"lease": "3s", "heartbeat": "1s"}
    dies = await daemons.start(**settings)
    job = await board.jobs.enqueue("wait", {"path": str(tmp_path / "gate")})
    await board.in_state(job.id, "running")
    # A beat that is late makes it silent for a moment.
    await eventually(lambda: first(board, job.id), until=lambda why: why == Why.RUNNING)
    dies.kill()
    await dies.ended()
    gone = (Why.WORKER_SILENT, Why.WORKER_LOST)
    await eventually(lambda: first(board, job.id), until=lambda why: why in gone)
    await daemons.start(**settings)
    (tmp_path / "gate").touch()
    await board.in_state(job.id, "succeeded")
    assert await first(board, job.id) == Why.ENDED
