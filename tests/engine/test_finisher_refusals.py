"""Ends of runs that the database refuses as they are: stored in another form, and nobody waits for them."""

from __future__ import annotations

import json
import math

import pytest

from jobd import Jobs, JobState
from jobd.door import Link
from jobd.events import EndRefused, JobFinished
from jobd.reader import Reader
from tests.engine.desk import Desk
from tests.engine.running import ran
from tests.factories import make_job, make_jobs, query
from tests.signals import expect

BAD = {
    "NUL in a result": {"result": '"\\u0000"'},
    "no JSON as a result": {"result": "{"},
    "surrogate in a result": {"result": '"\ud800"'},
    "half a surrogate pair, escaped": {"result": '"\\ud800"'},
    "NUL in a reason": {"reason": "a\x00b", "state": JobState.DEAD},
    "surrogate in a reason": {"reason": "a\ud800b", "state": JobState.DEAD},
    "no JSON as an error": {"error": "no json", "state": JobState.DEAD},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
async def test_one_row_that_the_database_refuses_holds_up_no_other(desk: Desk, link: Link, fields: dict):
    ids = await make_jobs(link, 101, state="running")
    bad = ids[37]
    async with expect(desk.events, JobFinished, count=101):
        for id in ids:
            desk.put(id, **(fields if id == bad else {"result": '"fine"'}))
    rows = await query(link, "select id, state, result, reason, errors from jobd.job_history")
    assert len(rows) == 101
    for row in rows:
        if row["id"] == bad:
            assert row["state"] == fields.get("state", "succeeded")
            said = row["reason"] if "state" in fields else json.loads(row["result"])["lost"]
            assert said.startswith("the end of this run could not be stored")
            assert not said.endswith('"')
            kinds = [error["type"] for error in json.loads(row["errors"])]
            assert kinds == ([] if "result" in fields else ["Refused"])
        else:
            assert (row["state"], row["result"], row["reason"]) == ("succeeded", '"fine"', None)
    assert len(desk.holdings) == 0
    assert len(desk.finisher) == 0


async def test_many_bad_rows_are_each_stored_in_another_form(desk: Desk, link: Link):
    ids = await make_jobs(link, 64, state="running")
    async with expect(desk.events, JobFinished, count=64):
        for place, id in enumerate(ids):
            desk.put(id, result="{" if place % 2 else '"fine"')
    lost = "select from jobd.job_history where result->>'lost' like '%could not be stored%'"
    assert len(await query(link, lost)) == 32


async def test_an_end_that_is_refused_in_every_form_holds_up_no_other(desk: Desk, link: Link):
    await query(link, "alter table jobd.job_history add constraint never check (kind <> 'cursed')")
    cursed = await make_job(link, state="running", kind="cursed")
    ids = [*await make_jobs(link, 4, state="running"), cursed]
    async with expect(desk.events, EndRefused, id=cursed), expect(desk.events, JobFinished, count=4):
        for id in ids:
            desk.put(id)
    assert await desk.finisher.drained(10)
    assert len(desk.holdings) == 0
    assert (await Reader(link).get(cursed)).state is JobState.RUNNING


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        (None, None),
        ("NUL \x00", "NUL ␀"),
        ("half \ud800 pair", "half � pair"),
        (float("nan"), "NaN"),
        ([math.inf], ["Infinity"]),
        ({"key": {1, 2}}, None),
        (2**70, str(2**70)),
        (b"\xff\x00", None),
        (object, None),
        ("x" * 2_000_000, None),
        ([[]] * 300_000, None),
    ],
    ids=["none", "nul", "surrogate", "nan", "infinity", "set", "large", "bytes", "class", "2 MB", "wide"],
)
async def test_whatever_a_handler_returns_is_stored_in_some_form(jobs: Jobs, result: object, stored: object):
    @jobs.handler("returns")
    async def returns() -> object:
        return result

    async with jobs.running():
        finished, job = await ran(jobs, "returns")
    assert finished.state == "succeeded"
    if result is None or stored is not None:
        assert job.result == stored
    else:
        assert job.result is not None
        assert len(json.dumps(job.result, separators=(",", ":"))) <= 1_048_576


async def test_results_that_deeply_nest_are_stored_in_some_form(jobs: Jobs):
    @jobs.handler("nests")
    async def nests() -> list:
        nest: list = []
        for _ in range(20_000):
            nest = [nest]
        return nest

    async with jobs.running():
        finished, job = await ran(jobs, "nests")
    assert finished.state == "succeeded"
    assert job.result is not None
