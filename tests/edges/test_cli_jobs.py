"""The verbs about jobs, against a real database: what is typed, what is stored, what is printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobd.cli.output import brief
from jobd.door import Link
from jobd.job import FinishedRun, JobState
from jobd.options import EnqueueOptions, JobOptions
from jobd.store import Store
from tests.edges.command import in_database, jobd
from tests.factories import make_job, make_jobs

NOBODY = "0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10"

APP = """
from jobd import Jobs

jobs = Jobs()

@jobs.handler("resize", queue="images")
async def resize(key: str) -> None: ...
"""


def stored(url: str, **columns: Any) -> UUID:
    async def work(link: Link) -> UUID:
        return await make_job(link, **columns)

    return in_database(url, work)


def shown(id: object) -> Any:
    return jobd("show", id, "--json").json


def test_enqueue_prints_the_id_and_stores_the_payload(shell: str) -> None:
    id = jobd("enqueue", "resize", '{"key": "ä.png"}').word
    job = shown(id)
    assert (job["kind"], job["queue"], job["state"]) == ("resize", "default", "ready")
    assert job["payload"] == {"key": "ä.png"}


def test_a_job_that_is_not_kept_is_shown_with_what_is_known_of_it(shell: str) -> None:
    async def end(link: Link) -> UUID:
        id = await make_job(link, state="running", queue="pings")
        await Store(link).succeed_tersely([FinishedRun(id, 1, JobState.SUCCEEDED)])
        return id

    id = in_database(shell, end)
    printed = jobd("show", id).out
    for word in (str(id), "noop", "succeeded", "finished at", "not kept: queue pings keeps no successes"):
        assert word in printed
    for word in ("payload", "created at", "attempt", "None"):
        assert word not in printed
    job = shown(id)
    assert (job["kept"], job["payload"], job["created_at"], job["attempt"]) == (False, None, None, None)
    assert str(id) in jobd("list", "--queue", "pings").out
    assert "queue 'pings' did not keep" in jobd("retry", id, code=1).err


def test_enqueue_reads_the_payload_from_stdin(shell: str) -> None:
    id = jobd("enqueue", "resize", "-", stdin='{"key": "b.png"}').word
    assert shown(id)["payload"] == {"key": "b.png"}


def test_enqueue_without_a_payload_stores_an_empty_one(shell: str) -> None:
    assert shown(jobd("enqueue", "tidy").word)["payload"] == {}


OPTIONS: dict[str, tuple[tuple[object, ...], Any]] = {
    "delay": (("--in", "1h"), None),
    "queue": (("--queue", "slow"), "slow"),
    "priority": (("--priority", "-3"), -3),
    "tenant_id": (("--tenant", "t1"), "t1"),
    "use_case": (("--use-case", "billing"), "billing"),
    "concurrency_key": (("--concurrency-key", "user:7"), "user:7"),
    "delay_tolerance": (("--delay-tolerance", "1h"), 3600),
    "deadline_policy": (("--deadline-policy", "drop"), "drop"),
    "max_attempts": (("--max-attempts", 4), 4),
    "backoff": (("--backoff", '{"kind": "linear", "base": "9s"}'), "linear"),
    "timeout": (("--attempt-timeout", "5m"), 300),
    "tags": (("--tag", "a", "--tag", "b"), ["a", "b"]),
    "meta": (("--meta", '{"n": 1}'), {"n": 1}),
    "unique_key": (("--unique-key", "k"), "k"),
    "unique_for": (("--unique-for", "waiting"), "waiting"),
    "on_conflict": (("--on-conflict", "replace"), None),
    "id": (("--id", NOBODY), NOBODY),
}


def test_enqueue_passes_every_option_on(shell: str) -> None:
    """But the other way to say when."""
    assert set(OPTIONS) == {*JobOptions.__annotations__, *EnqueueOptions.__annotations__} - {"run_at"}
    jobd("enqueue", "tidy", *[word for said, _ in OPTIONS.values() for word in said])
    job = shown(NOBODY)
    assert job["state"] == "scheduled"
    found = {**job, **job["headers"], "backoff": job["backoff"]["kind"]}
    found |= {name: job[f"{name}_seconds"] for name in ("delay_tolerance", "timeout")}
    expected = {name: value for name, (_, value) in OPTIONS.items() if value is not None}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--attempt-timeout", "soon"), "--attempt-timeout = 'soon': is not a duration"),
        (("--concurrency-key", ""), "--concurrency-key = '': must be 1 to 500 characters long"),
        (("--backoff", "{}}"), "--backoff = '{}}': is not JSON"),
        (("--deadline-policy", "drop"), "--deadline-policy = 'drop': needs a delay_tolerance"),
    ],
)
def test_enqueue_names_a_wrong_option_as_it_was_typed(
    shell: str, words: tuple[object, ...], told: str
) -> None:
    assert told in jobd("enqueue", "tidy", *words, code=2).err


def test_enqueue_at_an_instant_without_an_offset_means_local_time(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        id = jobd("enqueue", "tidy", "--at", "2099-01-02T08:00").word
        assert "2099-01-02 08:00:00 CET" in jobd("show", id).out
    finally:
        monkeypatch.undo()
        time.tzset()


def test_enqueue_at_an_instant_with_an_offset_means_that_one(shell: str) -> None:
    id = jobd("enqueue", "tidy", "--at", "2099-01-02T08:00+01:00").word
    assert datetime.fromisoformat(shown(id)["run_at"]) == datetime(2099, 1, 2, 7, tzinfo=UTC)


def test_enqueue_of_a_taken_unique_key_prints_the_holder_and_says_so(shell: str) -> None:
    first = jobd("enqueue", "tidy", "--unique-key", "k").word
    second = jobd("enqueue", "tidy", "--unique-key", "k")
    assert second.word == first
    assert "nothing new" in second.err


def test_enqueue_with_json_tells_whether_the_job_is_new(shell: str) -> None:
    id = str(uuid4())
    assert jobd("enqueue", "tidy", "--id", id, "--json").json == {
        "id": id,
        "created": True,
        "replaced": False,
        "shed": False,
    }
    assert jobd("enqueue", "tidy", "--id", id, "--json").json == {
        "id": id,
        "created": False,
        "replaced": False,
        "shed": False,
    }


def test_enqueue_replaces_what_a_waiting_job_is_to_do(shell: str) -> None:
    words = ("--unique-key", "k", "--unique-for", "waiting", "--on-conflict", "replace", "--in", "1h")
    id = jobd("enqueue", "tidy", '{"n": 1}', *words).word
    second = jobd("enqueue", "tidy", '{"n": 2}', *words)
    assert second.word == id
    assert "has the new payload" in second.err
    assert shown(id)["payload"] == {"n": 2}
    assert "until it is claimed" in jobd("show", id).out


def test_enqueue_rejects_a_key_that_is_held(shell: str) -> None:
    id = jobd("enqueue", "tidy", "--unique-key", "k", "--unique-for", "24h").word
    refused = jobd(
        "enqueue", "tidy", "--unique-key", "k", "--unique-for", "24h", "--on-conflict", "reject", code=1
    )
    assert f"'k' is held by job {id}" in refused.err


def test_enqueue_with_an_application_uses_its_handlers_queue(shell: str, folder: Path) -> None:
    (folder / "gallery.py").write_text(APP)
    id = jobd("enqueue", "resize", '{"key": "a"}', "--app", "gallery:jobs").word
    assert shown(id)["queue"] == "images"


def test_enqueue_waits_no_longer_than_its_timeout(shell: str) -> None:
    answer = jobd("enqueue", "tidy", "--wait", "--timeout", "10ms", code=1)
    assert "is still ready after 0.01 s" in answer.err


def test_enqueue_waits_for_a_job_that_has_ended_already(shell: str) -> None:
    id = stored(shell, state="succeeded", kind="tidy")
    assert jobd("enqueue", "tidy", "--id", id, "--wait").err.endswith("succeeded\n")


def test_enqueue_waiting_for_a_dead_job_ends_with_1_and_tells_why(shell: str) -> None:
    error = {"attempt": 1, "type": "ValueError", "message": "no\x1b[2Jsuch file", "traceback": ""}
    id = stored(shell, state="dead", kind="tidy", errors=[error])
    answer = jobd("enqueue", "tidy", "--id", id, "--wait", code=1)
    assert "dead: ValueError: no\\x1b[2Jsuch file" in answer.err


def test_list_filters_and_shows_the_newest_first(shell: str) -> None:
    old, new = (str(id) for id in in_database(shell, lambda link: make_jobs(link, 2, kind="tidy")))
    stored(shell, kind="other")
    answer = jobd("list", "--kind", "tidy", "--state", "ready", "--json")
    assert [job["id"] for job in answer.json] == [new, old]
    table = jobd("list", "--kind", "tidy").out.splitlines()
    assert table[0].split()[:4] == ["id", "kind", "queue", "state"]
    assert [line.split()[0] for line in table[1:]] == [new, old]


def test_list_goes_on_where_the_page_before_ended(shell: str) -> None:
    ids = [str(id) for id in in_database(shell, lambda link: make_jobs(link, 3))]
    page = jobd("list", "--limit", 1, "--before", ids[2], "--json").json
    assert [job["id"] for job in page] == [ids[1]]


def test_list_of_nothing_prints_nothing_on_stdout(shell: str) -> None:
    answer = jobd("list")
    assert (answer.out, answer.err) == ("", "no jobs\n")


def test_show_prints_payload_result_and_errors_for_people(shell: str) -> None:
    error = {
        "attempt": 1,
        "at": "2026-01-01T00:00:00+00:00",
        "type": "KeyError",
        "message": "'x'",
        "traceback": "Traceback (most recent call last):\n  File ...\nKeyError: 'x'",
    }
    id = stored(shell, state="succeeded", payload={"a": 1}, result=[2], errors=[error], attempt=2)
    out = jobd("show", id).out
    assert "state        succeeded" in out
    assert '"a": 1' in out
    assert "error of attempt 1" in out
    assert out.count("KeyError: 'x'") == 1


def test_show_with_json_has_instants_in_iso_and_durations_in_seconds(shell: str) -> None:
    job = shown(stored(shell, timeout=timedelta(minutes=2)))
    assert datetime.fromisoformat(job["created_at"]).utcoffset() == timedelta(0)
    assert job["timeout_seconds"] == 120.0


def test_nothing_that_a_terminal_would_act_upon_is_printed(shell: str) -> None:
    hostile = "\x1b]0;owned\x07 \x9b31m \u202egnp.exe \r\n fake line"
    id = stored(
        shell, state="dead", payload={"name": hostile}, result=hostile, tenant_id=hostile, reason=hostile
    )
    printed = [jobd("show", id).out, jobd("list").out, jobd("show", id, "--json").out]
    for text in printed:
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(text)
    assert "\\x1b]0;owned\\x07" in printed[0]
    assert shown(id)["payload"]["name"] == hostile
    assert len(printed[1].splitlines()) == 2


def test_cancel_ends_a_waiting_job(shell: str) -> None:
    id = stored(shell, state="ready")
    assert jobd("cancel", id, "--reason", "not needed").word == f"cancelled {id}"
    assert (shown(id)["state"], shown(id)["reason"]) == ("cancelled", "not needed")


def test_cancel_of_a_running_job_is_a_request_whose_first_reason_is_kept(shell: str) -> None:
    id = stored(shell, state="running")
    for reason in ("wrong customer", "again"):
        assert jobd("cancel", id, "--reason", reason).word == f"asked the worker to stop {id}"
    assert shown(id)["cancel_requested_at"] is not None

    async def kept(link: Link) -> object:
        connection = await link.opened()
        return await connection.fetchval("select cancel_reason from jobd.jobs where id = $1", id)

    assert in_database(shell, kept) == "wrong customer"


def test_retry_makes_a_finished_job_ready_again(shell: str) -> None:
    id = stored(shell, state="dead")
    assert jobd("retry", id).word == f"ready {id} (generation 1)"


def test_moves_that_are_refused_do_not_hold_up_the_others(shell: str) -> None:
    running, dead = stored(shell, state="running"), stored(shell, state="dead")
    answer = jobd("retry", running, NOBODY, dead, code=1)
    assert answer.word == f"ready {dead} (generation 1)"
    assert f"cannot retry job {running}: it is running" in answer.err
    assert f"no job {NOBODY}" in answer.err


def test_reschedule_moves_a_job_in_time(shell: str) -> None:
    id = stored(shell, state="ready")
    assert jobd("reschedule", id, "--in", "1h", "--priority", 7).word == f"scheduled {id}"
    assert shown(id)["priority"] == 7


def test_reschedule_to_now_makes_a_scheduled_job_ready(shell: str) -> None:
    id = stored(shell, state="scheduled")
    assert jobd("reschedule", id, "--now").word == f"ready {id}"


def test_delete_removes_a_job(shell: str) -> None:
    id = stored(shell, state="dead")
    assert jobd("delete", id).word == f"deleted {id}"
    assert "no job" in jobd("show", id, code=1).err


def test_instants_in_columns_leave_out_what_they_share_with_now() -> None:
    now = datetime(2026, 6, 15, 12, tzinfo=UTC).astimezone()
    assert brief(now.replace(hour=9, minute=5, second=7), now=now) == "09:05:07"
    assert brief(now.replace(day=3, hour=9, minute=5), now=now) == "06-03 09:05"
    assert brief(now.replace(year=2027), now=now) == "2027-06-15"
    assert brief(None) == ""
