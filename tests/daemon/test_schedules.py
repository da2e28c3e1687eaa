"""Daemons of which one fires schedules: whoever of them is killed, no occurrence is lost or doubled."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from jobd.door import Database
from tests.daemon.board import Board
from tests.daemon.daemons import DaemonProcess, Daemons
from tests.signals import eventually

SECOND = timedelta(seconds=1)
# The lease is 5 s, and is looked at each second. Measured generously: machines are busy.
HANDOVER = 15.0
# What a fire can be held up at.
HOLDS = {
    "at its proof": "select from jobd.leader for update",
    "at the history": "lock table jobd.schedule_runs in share row exclusive mode",
    "at the jobs": "lock table jobd.jobs in share row exclusive mode",
}
WAITING = """
select pid from pg_stat_activity where query like '-- jobd: fire%' and wait_event_type = 'Lock'
"""
LEADER = "select worker_id::text, term from jobd.leader where lease_until >= clock_timestamp()"


async def leader(
    board: Board, daemons: list[DaemonProcess], *, after_term: int = 0
) -> tuple[DaemonProcess, int]:
    """Wait for one of these to lead in a later term; return it and the term."""
    of = {daemon.worker: daemon for daemon in daemons}
    rows = await eventually(
        lambda: board.query(LEADER),
        until=lambda rows: bool(rows) and rows[0]["worker_id"] in of and rows[0]["term"] > after_term,
        timeout=HANDOVER,
    )
    return of[rows[0]["worker_id"]], rows[0]["term"]


async def fires(board: Board, count: int) -> None:
    """Wait for so many more occurrences to run."""
    before = await board.scalar("select count(*) from jobd.schedule_runs where outcome = 'ran'")
    await eventually(
        lambda: board.scalar("select count(*) from jobd.schedule_runs where outcome = 'ran'"),
        until=lambda now: now >= before + count,
        timeout=20,
    )


async def add_each_second(board: Board) -> None:
    await board.jobs.schedules.add("s", "every 1s", "noop", catch_up="all", cap=1000, max_instances=1000)


async def told_once(board: Board) -> int:
    """Each second from the first to the last has run, once, as one job; return how many there were."""
    await board.jobs.schedules.pause("s")
    rows = await board.query("select * from jobd.schedule_runs order by fire_at")
    assert {(row["outcome"], row["count"]) for row in rows} == {("ran", 1)}
    first = rows[0]["fire_at"]
    assert [row["fire_at"] for row in rows] == [first + n * SECOND for n in range(len(rows))]
    entry = await board.jobs.schedules.get("s")
    assert (entry.decided_until, entry.runs) == (rows[-1]["fire_at"], len(rows))
    await board.reach(len(rows), "succeeded")
    made = await board.query("select id, headers ->> 'fire_at' as fire_at from jobd.all_jobs")
    assert {row["id"]: row["fire_at"] for row in made} == {
        row["job_id"]: row["fire_at"].isoformat() for row in rows
    }
    return len(rows)


@pytest.mark.timeout(180)
async def test_the_leader_is_killed_again_and_again(daemons: Daemons, board: Board):
    await add_each_second(board)
    working = [await daemons.start() for _ in range(2)]
    term = 0
    for _ in range(3):
        victim, term = await leader(board, working, after_term=term)
        await fires(board, 2)
        victim.kill()
        killed_at = time.monotonic()
        await victim.ended()
        working.remove(victim)
        await leader(board, working, after_term=term)
        await fires(board, 1)
        print(f"the lead moved and fired within {time.monotonic() - killed_at:.1f} s")
        working.append(await daemons.start())
    assert await told_once(board) > 6


@pytest.mark.timeout(120)
@pytest.mark.parametrize("held", HOLDS.values(), ids=HOLDS.keys())
async def test_the_leader_is_killed_within_a_fire(
    daemons: Daemons, board: Board, direct_database_url: str, held: str
):
    await add_each_second(board)
    working = [await daemons.start() for _ in range(2)]
    victim, term = await leader(board, working)
    await fires(board, 1)
    holder = await Database(direct_database_url).connect()
    try:
        await holder.execute("begin")
        await holder.execute(held)
        await eventually(lambda: board.query(WAITING))
        victim.kill()
        await victim.ended()
    finally:
        await holder.close()
    working.remove(victim)
    await leader(board, working, after_term=term)
    await fires(board, 1)
    assert await told_once(board) > 2
