"""explain, of a job that runs, of one whose worker is lost, and of one that has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.job import Job, JobState
from jobd.reader import Reader
from jobd.reasons import ended, reasons
from jobd.standing import Reason, Why
from tests.factories import SECOND, make_job, make_worker, scalar
from tests.store.explaining import first, told, whys


@pytest.fixture
async def worker(door: Link) -> UUID:
    return await make_worker(door, queues=["default"], kinds=["noop"])


async def test_running_where_and_since_when(door: Link, reader: Reader, worker: UUID):
    now = datetime.now(UTC)
    id = await make_job(door, state="running", worker_id=worker, attempt=2, claimed_at=now - 65 * SECOND)
    text = await first(reader, id, Why.RUNNING, at=now)
    assert text == f"attempt 2 runs on worker {worker} (testhost, process 1) for 1m5s"


async def test_asked_to_stop(door: Link, reader: Reader, worker: UUID):
    id = await make_job(
        door, state="running", worker_id=worker, cancel_requested_at=datetime.now(UTC) - 3.5 * SECOND
    )
    assert await whys(reader, id) == [Why.RUNNING, Why.STOPPING]


async def test_its_worker_is_stopping(door: Link, reader: Reader):
    now = datetime.now(UTC)
    worker = await make_worker(door, stopping_at=now - 5 * SECOND)
    id = await make_job(door, state="running", worker_id=worker)
    text = await first(reader, id, Why.RUNNING, at=now)
    assert text.endswith(", which is stopping since 5s")


async def test_a_deadline_stops_what_runs_past_it(door: Link, reader: Reader, worker: UUID):
    id = await make_job(
        door, state="running", worker_id=worker, deadline_policy="drop", delay_tolerance=9 * SECOND
    )
    deadline = (await reader.get(id)).deadline_at
    for at, text in (
        (deadline - 9 * SECOND, "its handler is stopped at its deadline, in 9s"),
        (deadline + 5 * SECOND, "its deadline was 5s ago: its handler was to stop then"),
    ):
        assert (await told(reader, id, at=at))[-1].text == text


async def silent(
    door: Link, *, beat: float, lease: float, now: datetime | None = None, **columns: Any
) -> UUID:
    """A running job whose worker was last heard of so many seconds ago."""
    now = now or datetime.now(UTC)
    worker = await make_worker(door, beat_at=now - beat * SECOND, lease_until=now + lease * SECOND)
    return await make_job(door, state="running", worker_id=worker, **columns)


async def another(door: Link, *, since: float, now: datetime | None = None, **columns: Any) -> UUID:
    """A worker that is alive, with a lease of 30 s."""
    since_when = (now or datetime.now(UTC)) - since * SECOND
    return await make_worker(door, confirmed_since=since_when, **columns)


async def up_for_an_hour(door: Link, id: UUID, reader: Reader, now: datetime) -> list[Reason]:
    """The reasons at that moment, as if the server had not just been started."""
    standing = await reader.standing(id, now=now)
    assert standing is not None
    rescue_at = await scalar(
        door,
        "select min(confirmed_since + (lease_until - beat_at)) from jobd.workers"
        " where lease_until > now() and id <> $1 and stopping_at is null and roles && '{worker,scheduler}'",
        standing.worker_id,
    )
    return reasons(replace(standing, rescue_at=rescue_at))


async def test_its_worker_is_silent(door: Link, reader: Reader):
    now = datetime.now(UTC)
    await another(door, since=3600)
    id = await silent(door, beat=25, lease=5, now=now)
    silence, runs = await up_for_an_hour(door, id, reader, now)
    assert (silence.why, runs.why) == (Why.WORKER_SILENT, Why.RUNNING)
    assert silence.text.endswith(
        "(testhost, process 1) was not heard of for 25s; unless it is, in 5s the job is put back"
    )
    assert silence.until == now + 5 * SECOND


async def test_a_beat_that_is_not_due_yet_is_not_missed(door: Link, reader: Reader):
    id = await silent(door, beat=9, lease=21)
    assert await whys(reader, id) == [Why.RUNNING]


async def test_its_worker_is_lost(door: Link, reader: Reader):
    now = datetime.now(UTC)
    await another(door, since=3600)
    id = await silent(door, beat=42, lease=-12, now=now)
    (reason,) = await up_for_an_hour(door, id, reader, now)
    assert reason.why == Why.WORKER_LOST
    assert reason.text.endswith(" is lost: it was last heard of 42s ago; any moment now the job is put back")


async def test_who_has_just_come_does_not_rescue_yet(door: Link, reader: Reader):
    now = datetime.now(UTC)
    await another(door, since=18, now=now)
    (reason,) = await up_for_an_hour(door, await silent(door, beat=42, lease=-12, now=now), reader, now)
    assert "; in 12s the job is put back" in reason.text
    assert reason.until == now + 12 * SECOND


async def test_a_server_that_was_just_started_lets_nobody_be_taken_for_lost(door: Link, reader: Reader):
    await another(door, since=36_000_000)
    standing = await reader.standing(await silent(door, beat=42.5, lease=-12.5))
    started = await scalar(door, "select pg_postmaster_start_time()")
    assert standing is not None and standing.rescue_at is not None
    assert standing.rescue_at >= started + 29 * SECOND


@pytest.mark.parametrize("alone", ["nobody", "one that stops", "one that serves HTTP"])
async def test_nobody_is_there_to_rescue_it(door: Link, reader: Reader, alone: str):
    if alone == "one that stops":
        await another(door, since=3600, stopping_at=datetime.now(UTC))
    elif alone == "one that serves HTTP":
        await another(door, since=3600, roles=["http"])
    id = await silent(door, beat=42.5, lease=-12.5)
    (reason,) = await told(reader, id)
    assert reason.text.endswith(
        "; once another worker is alive, the job is put back: start one with `jobd run`"
    )
    assert reason.until is None


async def test_a_job_that_shall_stop_ends_with_its_worker(door: Link, reader: Reader, worker: UUID):
    id = await silent(door, beat=42.5, lease=-12.5, cancel_requested_at=datetime.now(UTC), crashes=2)
    (reason,) = await told(reader, id)
    assert reason.why == Why.WORKER_LOST and reason.text.endswith(" the job ends cancelled")


async def test_one_crash_more_may_be_its_last(door: Link, reader: Reader, worker: UUID):
    (reason,) = await told(reader, await silent(door, beat=42.5, lease=-12.5, crashes=2))
    assert reason.text.endswith(
        "the job is put back (or ends dead, if `crash_limit`, 3 unless set, is 3 or less)"
    )


async def test_its_worker_has_lost_its_row(door: Link, reader: Reader, worker: UUID):
    gone = await make_job(door, state="running", worker_id=uuid4())
    assert "any moment now the job is put back" in await first(reader, gone, Why.WORKER_LOST)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


ENDED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def past(**columns: Any) -> Job:
    """A job that has ended."""
    row: dict[str, Any] = dict.fromkeys(field.name for field in fields(Job))
    row |= {
        "id": UUID(int=1),
        "state": JobState.DEAD,
        "attempt": 0,
        "claim_no": 0,
        "errors": [],
        "kept": True,
    }
    return Job(**row | {"finished_at": ENDED_AT} | columns)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (
            {"state": JobState.SUCCEEDED, "attempt": 2, "claim_no": 4, "claimed_at": ENDED_AT},
            "it succeeded at 2026-01-02 04:04:05 CET in attempt 2",
        ),
        (
            {"state": JobState.CANCELLED, "attempt": 3, "claim_no": 6, "reason": "while it waited"},
            "it was cancelled at 2026-01-02 04:04:05 CET after attempt 3: while it waited",
        ),
        (
            {"state": JobState.CANCELLED, "attempt": 0, "claim_no": 2, "reason": "after a snooze"},
            "it was cancelled at 2026-01-02 04:04:05 CET: after a snooze",
        ),
        (
            {"state": JobState.CANCELLED, "reason": "no more"},
            "it was cancelled at 2026-01-02 04:04:05 CET without having run: no more",
        ),
        (
            {"reason": "shed: too many"},
            "it died at 2026-01-02 04:04:05 CET without having run: shed: too many;"
            " `jobd retry 00000000-0000-0000-0000-000000000001` runs it again",
        ),
        (
            {
                "state": JobState.CANCELLED,
                "attempt": None,
                "kept": False,
                "reason": "not kept: queue t keeps nothing",
            },
            "it was cancelled at 2026-01-02 04:04:05 CET: not kept: queue t keeps nothing",
        ),
    ],
)
def test_it_has_ended_and_when(berlin: None, columns: dict[str, Any], text: str):
    (reason,) = ended(past(**columns))
    assert (reason.why, reason.text) == (Why.ENDED, text)


async def test_it_has_ended_and_why(door: Link, reader: Reader):
    error = {"attempt": 3, "type": "OSError", "message": "disk full", "traceback": None}
    id = await make_job(door, state="dead", attempt=3, reason="attempts used up", errors=[error])
    text = await first(reader, id, Why.ENDED)
    assert text.startswith("it died at ")
    assert f" in attempt 3: attempts used up (OSError: disk full); `jobd retry {id}` runs it again" in text
    done = await first(reader, await make_job(door, state="succeeded"), Why.ENDED)
    assert done.startswith("it succeeded at ")
