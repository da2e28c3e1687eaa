"""Operations on many jobs read a page at a time, at a million rows and whatever the statistics say; and
what is asked of one job reads so much and no more.

The live jobs have the three wrong statistics of test_plans.py; those of the history are right, or missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from jobd import sql
from jobd.sweep import BATCH, FIRST_ID, LONG_PAGE
from tests.postgres import PostgresServer
from tests.store.million import STATISTICS, WORKER, Million, Reading, million

pytestmark = pytest.mark.timeout(180)

SWEEP, READING, STANDING = sql.blocks("sweep"), sql.blocks("reading"), sql.blocks("standing")
HALF = 500
FILTERS: dict[str, Any] = {
    "queues": ["q1"], "kinds": ["kind1", "kind2"], "states": ["ready", "dead"], "tenants": None,
    "use_cases": None, "tags": ["a"], "error_types": None, "error": "x",
}  # fmt: skip


@pytest.fixture(scope="module")
def everything(postgres: PostgresServer, migrated_template: str) -> Iterator[Million]:
    with postgres.database(migrated_template) as name, million(postgres.dsn(name)) as jobs:
        yield jobs


@pytest.fixture(params=STATISTICS)
def jobs(everything: Million, request: pytest.FixtureRequest) -> Million:
    everything.assume(request.param)
    return everything


@pytest.fixture(scope="module")
def _ended(postgres: PostgresServer, migrated_template: str) -> Iterator[Million]:
    with postgres.database(migrated_template) as name, million(postgres.dsn(name)) as jobs:
        jobs.end(100_000, days_ago=1)
        jobs.end(1_000_000, days_ago=0)
        yield jobs


@pytest.fixture(scope="module", params=["never analysed", "analysed"])
def ended(_ended: Million, request: pytest.FixtureRequest) -> Million:
    if request.param == "analysed":
        _ended.analyze_history()
    else:
        _ended.forget_history()
    return _ended


def assert_reads(reading: Reading, at_least: int, at_most: int) -> None:
    assert "Seq Scan" not in reading.scans, reading.plan
    assert at_least <= reading.rows <= at_most, reading.plan


@pytest.mark.parametrize("page", [BATCH, LONG_PAGE])
@pytest.mark.parametrize("where", ["the start", "the middle"])
def test_a_page_of_live_jobs_is_what_is_read(jobs: Million, page: int, where: str):
    start = FIRST_ID if where == "the start" else jobs.ids("true", 1)[0]
    already = {"queue": "q2", "asked": True, "run_at": None, "priority": 3}
    arguments = {"start": start, "page": page, **FILTERS, "since": None, "until": "9999-01-01", **already}
    reading = jobs.explain(READING["matching"], arguments)
    # In the middle the table may end before the page does.
    assert_reads(reading, page if where == "the start" else 0, page)


def moves(ids: list[UUID]) -> dict[str, dict[str, Any]]:
    audit = {"ids": ids, "states": ["scheduled", "ready"], "audit_id": WORKER}
    return {
        "cancel_many": {**audit, "states": ["scheduled", "ready", "running"], "reason": "x"},
        "reschedule_many": {**audit, "run_at": None, "priority": 9},
        "move_many": {**audit, "queue": "other"},
        "delete_many": audit,
    }


@pytest.mark.parametrize("move", moves([]))
@pytest.mark.parametrize("state", ["ready", "scheduled", "running"])
def test_a_move_of_live_jobs_reads_these_alone(jobs: Million, move: str, state: str):
    ids = jobs.ids(f"state = '{state}'", HALF)
    reading = jobs.explain(SWEEP[move], moves(ids)[move])
    assert_reads(reading, HALF, 3 * HALF)
    assert not {"ended", "tombstone"} & reading.functions


@pytest.mark.parametrize("page", [BATCH, LONG_PAGE])
def test_a_page_of_one_day_is_what_is_read_of_the_history(ended: Million, page: int):
    since, until = ended.today()
    arguments = {"start": FIRST_ID, "page": page, **FILTERS, "since": since, "until": until}
    reading = ended.explain(READING["matching_past"], arguments, table="job_history")
    assert_reads(reading, page, page)


@pytest.mark.parametrize("move", ["retry_many", "delete_past"])
def test_a_move_of_jobs_that_have_ended_reads_these_alone(ended: Million, move: str):
    ids = ended.ids("state <> 'running'", HALF)
    ended.clear(ids)
    since, until = ended.today()
    arguments = {"ids": ids, "since": since, "until": until, "audit_id": WORKER}
    reading = ended.explain(SWEEP[move], arguments, table="job_history")
    assert_reads(reading, HALF, 3 * HALF)


# What `Million` lets run.
RUNNING = 1000


@pytest.mark.parametrize("where", ["the front", "the end", "not due"])
def test_why_a_job_waits_reads_the_front_of_its_queue_and_what_runs(jobs: Million, where: str):
    if where == "not due":
        (id,) = jobs.ids("state = 'scheduled'", 1)
    else:
        id = jobs.place("q1", 0 if where == "the front" else 100_000)[2]
    reading = jobs.explain(STANDING["standing"], {"id": id})
    assert_reads(reading, RUNNING, 10_000 + 2 * RUNNING)


def test_whether_a_queue_is_known_reads_no_more_than_one_of_its_jobs(jobs: Million):
    reading = jobs.explain(READING["unknown_queues"], {"names": ["q1", "nobody's"]})
    assert_reads(reading, 0, 2)


def test_the_pace_of_a_queue_reads_the_end_of_todays_history(ended: Million):
    (id,) = ended.ids("state = 'ready'", 1)
    reading = ended.explain(STANDING["standing"], {"id": id}, table="job_history")
    assert reading.scans == {"Tid Range Scan"}, reading.plan
    # Of a million; a page has 8 kB, and the rows of `Million` are short.
    assert_reads(reading, 1000, 50_000)
