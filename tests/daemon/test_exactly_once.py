"""`ctx.transaction()`: whatever happens to workers, each job leaves one row."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from tests.daemon.board import Board
from tests.daemon.daemons import Daemons
from tests.daemon.gates import waited_for

KILLS = 6
BATCH = 170


@pytest.mark.timeout(180)
async def test_jobs_that_insert_a_row_leave_exactly_one_each_though_workers_are_killed_at_random(
    daemons: Daemons, board: Board
):
    rng = random.Random(11)
    settings = {"crash_limit": "0", "lease": "1s", "heartbeat": "0.25s", "pool_size": "8"}
    ids: list[UUID] = []
    working = [await daemons.start("--concurrency", "10", **settings) for _ in range(2)]
    for _ in range(KILLS):
        for daemon in working:
            await board.at_work(daemon.pid)
        done = len(ids)
        payloads = [{"seconds": rng.uniform(0, 0.3)} for _ in range(BATCH)]
        ids += await board.jobs.enqueue_many("insert_late", payloads)
        # At a moment that depends on nothing but how far the work is.
        await board.reach(done + int(BATCH / 2 * rng.random()), "succeeded", timeout=60)
        victim = working.pop(rng.randrange(2))
        victim.kill()
        await victim.ended()
        working.append(await daemons.start("--concurrency", "10", **settings))
        await board.reach(len(ids), "succeeded", timeout=60)
    rows = await board.query("select job_id, count(*) as rows from public.effects group by job_id")
    assert {row["job_id"]: row["rows"] for row in rows} == dict.fromkeys(ids, 1)
    crashed = await board.scalar("select count(*) from jobd.all_jobs where crashes > 0")
    assert crashed > 0


async def test_a_worker_that_was_stopped_in_its_transaction_cannot_commit_it(
    daemons: Daemons, board: Board, tmp_path
):
    import signal

    gate = tmp_path / "gate"
    sleeper = await daemons.start("--only", "worker")
    job = await board.jobs.enqueue("insert_slowly", {"path": str(gate)})
    await waited_for(gate)
    sleeper.signal(signal.SIGSTOP)
    other = await daemons.start()
    await other.logged("jobs of lost workers put back")
    gate.touch()
    await board.in_state(job.id, "succeeded")
    sleeper.signal(signal.SIGCONT)
    await sleeper.logged("took this worker for dead")
    sleeper.terminate()
    assert await sleeper.ended() == 0
    (effect,) = await board.effects("inserted")
    assert (effect["claim_no"], effect["pid"]) == (3, other.pid)
