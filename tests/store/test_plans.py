"""The hot statements read little more than they return, at a million rows and whatever the statistics say.

A queue's statistics are always stale: they were gathered when it was empty, or full of something else.
What is asserted is the generic plan, which a prepared statement gets after five executions, and the
rows that it really read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobd import sql
from tests.postgres import PostgresServer
from tests.store.million import BATCH, QUEUES, STATISTICS, WORKER, Million, Reading, million

pytestmark = pytest.mark.timeout(180)

KEYS = 1000
LIFECYCLE = sql.blocks("lifecycle")
FLEET = sql.blocks("fleet")


@pytest.fixture(scope="module")
def everything(postgres: PostgresServer, migrated_template: str) -> Iterator[Million]:
    with postgres.database(migrated_template) as name, million(postgres.dsn(name)) as jobs:
        jobs.keyed(50_000, KEYS)
        yield jobs


@pytest.fixture(params=STATISTICS)
def jobs(everything: Million, request: pytest.FixtureRequest) -> Million:
    everything.assume(request.param)
    return everything


def claim(jobs: Million, rooms: dict[str, int], *, floor: int | None = None) -> Reading:
    """`floor`: that many of the first queue's jobs lie before it."""
    nothing: list[Any] = [None] * len(rooms)
    priorities, deadlines, ids = list(nothing), list(nothing), list(nothing)
    if floor is not None:
        priorities[0], deadlines[0], ids[0] = jobs.place(next(iter(rooms)), floor)
    return jobs.explain(
        LIFECYCLE["claim"],
        {
            "worker_id": WORKER,
            "queues": list(rooms),
            "rooms": list(rooms.values()),
            "limited": [False] * len(rooms),
            "limited_kinds": [],
            "skipped_kinds": [],
            "floor_priorities": priorities,
            "floor_deadlines": deadlines,
            "floor_ids": ids,
        },
    )


def succeed(jobs: Million) -> Reading:
    ids = jobs.ids(f"worker_id = '{WORKER}'", BATCH)
    return jobs.explain(
        LIFECYCLE["succeed"], {"ids": ids, "claim_nos": [1] * BATCH, "results": [None] * BATCH}
    )


def succeed_tersely(jobs: Million) -> Reading:
    ids = jobs.ids(f"worker_id = '{WORKER}'", BATCH)
    return jobs.explain(LIFECYCLE["succeed_tersely"], {"ids": ids, "claim_nos": [1] * BATCH})


def finish(jobs: Million, states: list[str]) -> Reading:
    count = BATCH // len(states)
    ids = jobs.ids(f"worker_id = '{WORKER}'", count * len(states))
    nothing = [None] * len(ids)
    return jobs.explain(
        LIFECYCLE["finish"],
        {
            "ids": ids,
            "claim_nos": [1] * len(ids),
            "states": states * count,
            "reasons": nothing,
            "delays": nothing,
            "unburned": [False] * len(ids),
            "errors": nothing,
        },
    )


def assert_reads(reading: Reading, returned: int) -> None:
    assert reading.returned == returned
    assert "Seq Scan" not in reading.scans, reading.plan
    assert reading.rows <= 4 * max(returned, 1), reading.plan


@pytest.mark.parametrize("queues", [QUEUES, QUEUES[:1]])
def test_claim_with_a_floor_reads_what_it_takes(jobs: Million, queues: tuple[str, ...]):
    reading = claim(jobs, dict.fromkeys(queues, BATCH // len(queues)), floor=5_000)
    assert_reads(reading, BATCH)


@pytest.mark.parametrize("suspects", [0, 1])
def test_looking_for_victims_where_there_are_none_reads_nothing(jobs: Million, suspects: int):
    arguments = {"queues": list(QUEUES), "rooms": [BATCH] * len(QUEUES), "skipped_kinds": []}
    reading = jobs.explain(
        LIFECYCLE["claim_victims"],
        {"worker_id": WORKER, "suspects": suspects, "suspect_from": 2, **arguments},
    )
    assert "Seq Scan" not in reading.scans, reading.plan
    assert reading.rows == 0, reading.plan


@pytest.mark.parametrize("queues", [QUEUES, QUEUES[:1]])
def test_claim_reads_what_it_takes(jobs: Million, queues: tuple[str, ...]):
    reading = claim(jobs, dict.fromkeys(queues, BATCH // len(queues)))
    assert_reads(reading, BATCH)


def test_stage_reads_what_it_moves(jobs: Million):
    reading = jobs.explain(LIFECYCLE["stage"], {"batch": BATCH})
    assert "Seq Scan" not in reading.scans, reading.plan
    assert BATCH <= reading.rows <= 4 * BATCH, reading.plan


@pytest.mark.parametrize("states", [["dead"], ["scheduled"], ["cancelled", "dead", "scheduled", "ready"]])
def test_finish_reads_what_it_ends(jobs: Million, states: list[str]):
    assert_reads(finish(jobs, states), BATCH)


def test_succeed_reads_what_it_ends(jobs: Million):
    reading = succeed(jobs)
    assert "Seq Scan" not in reading.scans, reading.plan
    assert BATCH <= reading.rows <= 4 * BATCH, reading.plan


def test_succeed_tersely_reads_what_it_ends(jobs: Million):
    reading = succeed_tersely(jobs)
    assert "Seq Scan" not in reading.scans, reading.plan
    assert BATCH <= reading.rows <= 4 * BATCH, reading.plan


def test_the_row_of_the_history_is_made_without_calling_a_function(jobs: Million):
    """`jobd.ended` is put into the statement by the planner; called for each row, it doubles the cost."""
    assert "ended" not in succeed(jobs).functions
    assert not {"ended", "tombstone"} & finish(jobs, ["dead"]).functions
    assert "tombstone" not in succeed_tersely(jobs).functions


def test_rescue_reads_what_runs(jobs: Million):
    assert_reads(jobs.explain(LIFECYCLE["rescue"], {"batch": BATCH, "crash_limit": 3}), BATCH)


def test_release_reads_what_it_gives_back(jobs: Million):
    ids = jobs.ids(f"worker_id = '{WORKER}'", BATCH)
    assert_reads(jobs.explain(LIFECYCLE["release"], {"ids": ids, "claim_nos": [1] * BATCH}), BATCH)


def test_expire_reads_what_has_expired_and_no_more(jobs: Million):
    reading = jobs.explain(LIFECYCLE["expire"], {"batch": BATCH})
    assert "Seq Scan" not in reading.scans, reading.plan
    assert reading.rows <= 4 * BATCH, reading.plan


# Jobs that run, by what `Million` makes.
RUNNING = 1000
# Claims under limits, and those beside ten thousand tenants of whom only a few have jobs.
FAIR = (
    "insert into jobd.queues (name, fair) values ('q0', true);"
    "insert into jobd.tenants (id, max_pending) select 'idle' || n, 5 from generate_series(1, 10000) n"
)
GOVERNED = {
    "max_running": ("insert into jobd.queues (name, max_running) values ('q0', 100000)", "q0"),
    "fair": (FAIR, "q0"),
    "tenant": ("insert into jobd.tenants (id, max_running) values ('tenant0', 100000)", "q0"),
    "key": ("insert into jobd.kinds (name, key_limit) values ('noop', 5)", "keyed"),
}


@pytest.mark.parametrize("limit", GOVERNED)
def test_a_claim_under_limits_reads_what_it_takes_and_what_runs(jobs: Million, limit: str):
    said, queue = GOVERNED[limit]
    claim = jobs.claim_governed(said, {queue: BATCH})
    assert claim.taken == BATCH
    assert "jobs" not in claim.whole and "tenants" not in claim.whole
    assert claim.fetched["jobs"] <= 4 * BATCH + RUNNING
    assert claim.fetched["tenants"] <= 2 * BATCH


def test_a_claim_that_looks_behind_a_long_backlog_reads_so_much_and_no_more(jobs: Million):
    claim = jobs.claim_governed("select", {"keyed": 4 * BATCH})
    assert claim.taken == KEYS
    assert "jobs" not in claim.whole
    # Twice what there is room for, the running jobs, and so many of each key.
    assert claim.fetched["jobs"] <= 2 * (RUNNING + KEYS) + 10 * 4 * BATCH


def test_whether_a_queue_is_under_limits_takes_a_row_or_two_of_it(jobs: Million):
    queues = [*QUEUES, "keyed", "empty"]
    reading = jobs.explain(FLEET["governing"], {"queues": queues})
    assert reading.returned == len(queues)
    assert "Seq Scan" not in reading.scans, reading.plan
    assert reading.rows <= 2 * len(queues), reading.plan


def test_the_next_due_job_is_one_row(jobs: Million):
    assert_reads(jobs.explain(LIFECYCLE["next_due"], {}), 1)


def test_one_job_is_found_by_its_id(jobs: Million):
    (id,) = jobs.ids(f"worker_id = '{WORKER}'", 1)
    assert_reads(jobs.explain(LIFECYCLE["progress"], {"id": id, "claim_no": 1, "progress": "{}"}), 1)
    assert_reads(jobs.explain(LIFECYCLE["cancel"], {"id": id, "reason": "x"}), 1)
