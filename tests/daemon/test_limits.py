"""Limits over all daemons hold at every commit, whoever is killed, and are made use of."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.daemon.audit import TRIGGER, Mark, audit, events
from tests.daemon.board import Board, board_on
from tests.daemon.daemons import Daemons, daemons_on
from tests.daemon.outage import DATABASE, prepare
from tests.postgres import PostgresServer, running_server

COUNT = 700
DAEMONS = 4
KILLS = 5
FLAGS = ("--queue", "mail", "--queue", "default", "--concurrency", "20")
SETTINGS = {"crash_limit": "1000", "lease": "1s", "heartbeat": "0.25s", "poll_interval": "1s"}
LIMITS = {
    ("queue", "mail"): 6,
    ("tenant", "t0"): 3,
    ("use_case", "labels"): 4,
    # Nothing is said of them.
    ("use_case", "reports"): 10,
    **{("key", f"wide{n}"): 2 for n in range(3)},
    **{("key", f"narrow{n}"): 1 for n in range(6)},
    **{("key", f"lined{n}"): 1 for n in range(6)},
}

SAID = """
insert into jobd.queues (name, max_running) values ('mail', 6);
insert into jobd.tenants (id, max_running) values ('t0', 3);
insert into jobd.use_cases (name, max_running) values ('labels', 4);
insert into jobd.kinds (name, key_limit, ordered) values ('wide', 2, false), ('lined', 5, true)
"""

JOBS = """
insert into jobd.jobs (id, queue, kind, tenant_id, use_case, concurrency_key, state, priority, run_at,
                       deadline_at, deadline_policy, payload, max_attempts, created_at)
select jobd.uuid7(), j.queue, j.kind, j.tenant_id, j.use_case, j.concurrency_key, 'ready', j.priority, now(),
       now(), 'run', jsonb_build_object('seconds', j.seconds, 'fails', j.fails), 10, now()
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::float8[], $8::int[])
       as j (queue, kind, tenant_id, use_case, concurrency_key, priority, seconds, fails)
"""

# Some that wait, into the other queue: whoever counts them just now must not start them there.
MOVED = """
update jobd.jobs j set queue = case j.queue when 'mail' then 'default' else 'mail' end
 where j.id = any (array(select r.id from jobd.jobs r where r.state = 'ready' and r.kind <> 'lined'
                          order by random() limit 20 for update skip locked))
"""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with running_server(track_commit_timestamp="on") as server:
        yield server


@pytest.fixture
async def daemons(server: PostgresServer) -> AsyncIterator[Daemons]:
    async with daemons_on(prepare(server)) as daemons:
        yield daemons


@pytest.fixture
async def board(daemons: Daemons) -> AsyncIterator[Board]:
    async with board_on(daemons.database_url) as board:
        yield board


def ordered(mark: Mark) -> bool:
    return mark.kind == "lined"


def some_job(rng: random.Random) -> tuple[object, ...]:
    """Of a limited queue or another, and so on; the columns of JOBS."""
    kind = rng.choice(["wide", "narrow", "lined"])
    key = f"{kind}{rng.randrange(3 if kind == 'wide' else 6)}"
    # In order there is one line a key, whatever else its jobs are.
    return (
        "default" if kind == "lined" else rng.choice(["mail", "mail", "default"]),
        kind,
        None if kind == "lined" else rng.choice(["t0", "t1", None]),
        None if kind == "lined" else rng.choice(["labels", "reports", None, None]),
        key if kind == "lined" or rng.random() < 0.5 else None,
        rng.randrange(2),
        rng.uniform(0.02, 0.2),
        int(rng.random() < 0.1),
    )


@pytest.mark.timeout(180)
async def test_limits_hold_at_every_commit_and_are_reached_though_daemons_are_killed_at_random(
    server: PostgresServer, daemons: Daemons, board: Board
):
    rng = random.Random(5)
    server.execute(SAID, DATABASE)
    server.execute(TRIGGER, DATABASE)
    working = [await daemons.begin(*FLAGS, **SETTINGS) for _ in range(DAEMONS)]
    for daemon in working:
        await daemon.logged("started")
    jobs = [some_job(rng) for _ in range(COUNT)]
    await board.query(JOBS, *(list(column) for column in zip(*jobs, strict=True)))
    for kill in range(KILLS):
        await board.reach(int(COUNT * (kill + rng.random()) / (KILLS + 1)), "succeeded", timeout=60)
        victim = working.pop(rng.randrange(DAEMONS))
        victim.kill()
        for _ in range(20):
            await board.query(MOVED)
        await victim.ended()
        working.append(await daemons.begin(*FLAGS, **SETTINGS))
        # Where they start slower than they are killed, nobody is left to claim anything.
        await working[-1].logged("started")
    await board.reach(COUNT, "succeeded", timeout=60)

    found = audit(await events(board), LIMITS, ordered=ordered)
    # Exactly: a limit that is never reached would hold by itself.
    assert {scope: found.most[scope] for scope in LIMITS} == LIMITS
    assert found.out_of_order == []
    assert {scope: seconds for scope, seconds in found.idle.items() if seconds >= 2} == {}
    assert found.idle
    assert await board.scalar("select count(*) from jobd.job_history where crashes > 0") > 0
