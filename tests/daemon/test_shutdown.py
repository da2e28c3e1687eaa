"""The ladder of a shutdown: stop claiming, let handlers end, cancel them, write it all down, say goodbye."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.daemon.board import Board
from tests.daemon.daemons import Daemons
from tests.daemon.gates import waited_for
from tests.signals import eventually


async def assert_nothing_left(board: Board) -> None:
    assert await board.count("running") == 0
    assert await board.scalar("select count(*) from jobd.workers") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_handlers_may_end_within_the_grace_while_nothing_new_is_claimed(
    daemons: Daemons, board: Board, tmp_path: Path, number: signal.Signals
):
    daemon = await daemons.start()
    gate = tmp_path / "gate"
    ids = await board.jobs.enqueue_many("wait", [{"path": str(gate)}] * 5)
    await waited_for(gate, 5)
    daemon.signal(number)
    await daemon.logged("stopping")
    await board.claims_end(1)
    left = await board.jobs.enqueue("noop")
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{daemon.address}/readyz")
    assert answer.status_code == 503
    assert "shutting down" in answer.text
    gate.touch()
    assert await daemon.ended() == 0
    assert await board.runs(ids) == dict.fromkeys(ids, 1)
    assert (await board.row(left.id))["claim_no"] == 0
    await assert_nothing_left(board)


async def test_the_lead_goes_to_another_while_handlers_still_end(
    daemons: Daemons, board: Board, tmp_path: Path
):
    daemon = await daemons.start(shutdown_grace="5m")
    gate = tmp_path / "gate"
    await board.jobs.enqueue("wait", {"path": str(gate)})
    await waited_for(gate)
    await eventually(lambda: board.query("select from jobd.leader where lease_until > now()"))
    daemon.terminate()
    # Given up, not run out.
    await eventually(lambda: board.query("select from jobd.leader where lease_until = '-infinity'"))
    assert daemon.alive
    assert await board.count("running") == 1
    async with httpx.AsyncClient() as client:

        async def told() -> tuple[bool, str, str]:
            scheduler = (await client.get(f"{daemon.address}/readyz")).json()["scheduler"]
            return scheduler["running"], scheduler["lead"], scheduler["reason"]

        # It learns that from an answer.
        await eventually(told, until=lambda now: now == (False, "follower", "shutting down"))
    gate.touch()
    assert await daemon.ended() == 0
    await assert_nothing_left(board)


async def test_handlers_that_do_not_end_within_the_grace_are_cancelled_and_their_jobs_go_back_unburned(
    daemons: Daemons, board: Board, tmp_path: Path
):
    daemon = await daemons.start(shutdown_grace="0.5s")
    never = tmp_path / "never"
    job = await board.jobs.enqueue("wait_noted", {"path": str(never)})
    await waited_for(never)
    daemon.terminate()
    assert await daemon.ended() == 0
    row = await board.row(job.id)
    assert (row["state"], row["attempt"], row["crashes"], row["errors"]) == ("ready", 0, 0, "[]")
    assert row["claim_no"] == 2
    assert [effect["what"] for effect in await board.effects("%")] == ["started"]
    await assert_nothing_left(board)


async def test_a_second_sigterm_cuts_the_grace(daemons: Daemons, board: Board, tmp_path: Path):
    daemon = await daemons.start(shutdown_grace="10m")
    never = tmp_path / "never"
    job = await board.jobs.enqueue("wait", {"path": str(never)})
    await waited_for(never)
    daemon.terminate()
    await daemon.logged("stopping")
    daemon.terminate()
    assert await daemon.ended(timeout=5) == 0
    assert (await board.row(job.id))["state"] == "ready"
    await assert_nothing_left(board)


async def test_a_handler_that_swallows_its_cancellation_does_not_hold_up_the_end(
    daemons: Daemons, board: Board, tmp_path: Path
):
    daemon = await daemons.start(shutdown_grace="0.2s")
    never = tmp_path / "never"
    jobs = [await board.jobs.enqueue(kind, {"path": str(never)}) for kind in ("stubborn", "wait")]
    await waited_for(never, 2)
    daemon.terminate()
    assert await daemon.ended() == 0
    for job in jobs:
        row = await board.row(job.id)
        assert (row["state"], row["attempt"]) == ("ready", 0)
    await assert_nothing_left(board)


@pytest.mark.parametrize("kind", [pytest.param("thread_wait", marks=pytest.mark.slow), "process_wait"])
async def test_a_thread_or_a_process_that_never_returns_does_not_hold_up_the_end(
    daemons: Daemons, board: Board, tmp_path: Path, kind: str
):
    daemon = await daemons.start(shutdown_grace="0.2s")
    never = tmp_path / "never"
    job = await board.jobs.enqueue(kind, {"path": str(never)})
    await waited_for(never)
    daemon.terminate()
    assert await daemon.ended() == 0
    row = await board.row(job.id)
    assert (row["state"], row["attempt"]) == ("ready", 0)
    await assert_nothing_left(board)


async def test_a_job_is_not_handed_back_while_its_thread_goes_on(
    daemons: Daemons, board: Board, tmp_path: Path
):
    gate = tmp_path / "gate"
    daemon = await daemons.start(shutdown_grace="0.1s")
    job = await board.jobs.enqueue("thread_wait", {"path": str(gate)})
    await waited_for(gate)
    daemon.terminate()
    await daemon.logged("stopping handlers that have not ended")
    assert (await board.row(job.id))["state"] == "running"
    gate.touch()
    assert await daemon.ended() == 0
    assert (await board.row(job.id))["state"] == "succeeded"
    assert await board.runs([job.id]) == {job.id: 1}


async def test_sigterm_while_a_handler_blocks_the_loop_is_obeyed_when_it_turns_again(
    daemons: Daemons, board: Board, tmp_path: Path
):
    daemon = await daemons.start()
    gate = tmp_path / "gate"
    job = await board.jobs.enqueue("block_until", {"path": str(gate)})
    await waited_for(gate)
    daemon.terminate()
    gate.touch()
    assert await daemon.ended() == 0
    assert (await board.row(job.id))["state"] == "succeeded"
    await assert_nothing_left(board)


@pytest.mark.slow
async def test_two_sigterms_end_a_daemon_whose_loop_is_blocked_for_good(
    daemons: Daemons, board: Board, tmp_path: Path
):
    daemon = await daemons.start(shutdown_grace="0.5s")
    never = tmp_path / "never"
    job = await board.jobs.enqueue("block_until", {"path": str(never)})
    await waited_for(never)
    daemon.terminate()
    daemon.terminate()
    assert await daemon.ended() == 70
    row = await board.row(job.id)
    assert (row["state"], row["attempt"], row["crashes"]) == ("ready", 0, 0)
    await assert_nothing_left(board)


async def test_a_daemon_that_handlers_terminate_still_writes_their_results(daemons: Daemons, board: Board):
    daemon = await daemons.start()
    job = await board.jobs.enqueue("terminate_self", {"times": 1})
    assert await daemon.ended() == 0
    assert (await board.row(job.id))["state"] == "succeeded"


async def test_an_idle_daemon_ends_at_once(daemons: Daemons, board: Board):
    daemon = await daemons.start(shutdown_grace="10m")
    await eventually(lambda: board.scalar("select count(*) from jobd.workers"))
    daemon.terminate()
    began = time.monotonic()
    assert await daemon.ended() == 0
    assert time.monotonic() - began < 3
    await assert_nothing_left(board)


async def test_the_jobs_of_a_daemon_that_ended_are_taken_by_another_at_once(
    daemons: Daemons, board: Board, tmp_path: Path
):
    gate = tmp_path / "gate"
    leaving = await daemons.start(lease="30s", shutdown_grace="0s")
    ids = await board.jobs.enqueue_many("wait", [{"path": str(gate)}] * 20)
    await waited_for(gate, 20)
    await daemons.start(lease="30s")
    gate.touch()
    leaving.terminate()
    await board.reach(20, "succeeded", timeout=10)
    assert set((await board.runs(ids)).values()) <= {1, 2}
    assert await board.query("select id from jobd.all_jobs where crashes > 0 or attempt <> 1") == []
