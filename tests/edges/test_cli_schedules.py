"""The verbs about schedules: what they change in the database, and what they print."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jobd import Schedule
from jobd.door import Link
from jobd.terms import ScheduleOptions
from tests.edges.command import in_database, jobd
from tests.factories import make_job, query

APP = """
from jobd import Jobs

jobs = Jobs()

@jobs.handler("resize", queue="images")
async def resize(key: str) -> None: ...
"""
NIGHTLY = ("schedules", "add", "nightly", "30 2 * * *", "report")


def listed(*words: str) -> dict[str, Any]:
    return {entry["id"]: entry for entry in jobd("schedules", "list", *words, "--json").json}


def test_a_schedule_is_added_and_listed_with_its_next_time(shell: str) -> None:
    added = jobd(*NIGHTLY, '{"n": 1}', "--tz", "Europe/Berlin", "--queue", "reports").word
    assert added.startswith("schedule nightly occurs first at ")
    entry = listed()["nightly"]
    said = ("expression", "time_zone", "kind", "queue", "payload", "owner", "catch_up", "overlap", "runs")
    assert [entry[name] for name in said] == [
        *("30 2 * * *", "Europe/Berlin", "report", "reports", {"n": 1}, "api", "last", "skip", 0)
    ]
    head, row = jobd("schedules", "list").out.splitlines()
    assert head.split() == ["id", "when", "zone", "kind", "next", "last", "runs", "owner", "state"]
    assert row.startswith("nightly")


RULES: dict[str, tuple[tuple[object, ...], Any]] = {
    "dst": (("--dst", "both"), "both"),
    "seconds": (("--seconds", "last"), "last"),
    "anchor": (("--anchor", "2026-01-01T00:00Z"), "2026-01-01T00:00:00+00:00"),
    "starts_at": (("--starts-at", "2099-01-01T01:00+01:00"), "2099-01-01T00:00:00+00:00"),
    "ends_at": (("--ends-at", "2100-01-01T00:00Z"), "2100-01-01T00:00:00+00:00"),
    "max_runs": (("--max-runs", 7), 7),
    "jitter": (("--jitter", "10s"), 10),
    "catch_up": (("--catch-up", "all"), "all"),
    "cap": (("--cap", 9), 9),
    "stagger": (("--stagger", "2s"), 2),
    "misfire_grace": (("--misfire-grace", "1h"), 3600),
    "overlap": (("--overlap", "queue"), "queue"),
    "max_instances": (("--max-instances", 3), 3),
    "tz": (("--tz", "Europe/Berlin"), "Europe/Berlin"),
    "queue": (("--queue", "mail"), "mail"),
    "priority": (("--priority", -2), -2),
    "tenant_id": (("--tenant", "acme"), "acme"),
    "use_case": (("--use-case", "billing"), "billing"),
    "concurrency_key": (("--concurrency-key", "nightly"), "nightly"),
    "delay_tolerance": (("--delay-tolerance", "1h"), 3600),
    "deadline_policy": (("--deadline-policy", "drop"), "drop"),
    "max_attempts": (("--max-attempts", 2), 2),
    "timeout": (("--timeout", "5m"), 300),
    "backoff": (("--backoff", '{"kind": "linear", "base": "9s"}'), "linear"),
    "tags": (("--tag", "a", "--tag", "b"), ["a", "b"]),
    "meta": (("--meta", '{"n": 1}'), {"n": 1}),
}


def test_every_option_of_a_schedule_is_one_here(shell: str) -> None:
    assert set(RULES) == set(ScheduleOptions.__annotations__)
    words = [word for said, _ in RULES.values() for word in said]
    jobd("schedules", "add", "s", "30 2 * * * 15", "report", *words)
    entry = listed()["s"]
    found = {
        **{name: value for name, value in entry.items() if name in RULES},
        "tz": entry["time_zone"],
        "backoff": entry["backoff"]["kind"],
        **{name: value for name, value in entry["headers"].items() if name in RULES},
    }
    seconds = ("jitter", "stagger", "misfire_grace", "delay_tolerance", "timeout")
    found |= {name: entry[f"{name}_seconds"] for name in seconds}
    assert found == {name: value for name, (_, value) in RULES.items()}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--misfire-grace", "soon"), "--misfire-grace = 'soon': is not a duration"),
        (("--tenant", "t" * 256), "--tenant = "),
        (("--backoff", "quadratic"), "--backoff.kind = 'quadratic'"),
        (("--backoff", "{}}"), "--backoff = '{}}': is not JSON"),
        (("--meta", "{'a': 1}"), "--meta = \"{'a': 1}\": is not JSON"),
        (("--ends-at", "noon"), "--ends-at = 'noon': is not an instant"),
        (("--cap", 5000), "--cap = 5000: must be at most 1000"),
        (("--overlap", "wait"), "--overlap = 'wait': must be skip, queue or replace"),
    ],
)
def test_a_wrong_option_is_named_as_it_was_typed(shell: str, words: tuple[object, ...], told: str) -> None:
    assert told in jobd(*NIGHTLY, *words, code=2).err
    assert listed() == {}


def test_with_an_application_the_payload_has_to_fit_its_handler(shell: str, folder: Path) -> None:
    (folder / "gallery.py").write_text(APP)
    words = ("schedules", "add", "often", "every 15m", "resize")
    assert "payload $.key: missing" in jobd(*words, "--app", "gallery:jobs", code=2).err
    jobd(*words, '{"key": "a.png"}', "--app", "gallery:jobs")
    assert (listed()["often"]["queue"], listed()["often"]["payload"]) == ("images", {"key": "a.png"})


def test_an_id_that_exists_is_refused_unless_it_is_to_be_replaced(shell: str) -> None:
    jobd(*NIGHTLY)
    assert "schedule 'nightly' exists already" in jobd(*NIGHTLY, code=1).err
    jobd("schedules", "add", "nightly", "every 15m", "report", "--replace")
    assert listed()["nightly"]["expression"] == "every 15m"


def test_a_list_shows_those_whose_ids_begin_so(shell: str) -> None:
    for id in ("reminder_1", "reminder_2", "nightly"):
        jobd("schedules", "add", id, "@daily", "report")
    assert sorted(listed()) == ["nightly", "reminder_1", "reminder_2"]
    assert sorted(listed("reminder_")) == ["reminder_1", "reminder_2"]
    empty = jobd("schedules", "list", "nothing_")
    assert (empty.out, empty.err.strip()) == ("", "no schedules whose ids begin with 'nothing_'")


def test_one_is_paused_resumed_and_removed(shell: str) -> None:
    jobd(*NIGHTLY)
    assert jobd("schedules", "pause", "nightly").word == "schedule nightly is paused"
    assert listed()["nightly"]["paused_at"] is not None
    assert "paused by " in jobd("schedules", "list").out
    assert jobd("schedules", "resume", "nightly").word == "schedule nightly runs again"
    assert listed()["nightly"]["paused_at"] is None
    assert jobd("schedules", "remove", "nightly").word == "schedule nightly is removed"
    assert listed() == {}


@pytest.mark.parametrize("verb", ["remove", "pause", "resume", "trigger"])
def test_one_that_is_not_there_is_refused(shell: str, verb: str) -> None:
    assert "no schedule 'nightli'" in jobd("schedules", verb, "nightli", code=1).err


def test_a_trigger_prints_the_job_that_it_made(shell: str) -> None:
    jobd(*NIGHTLY, '{"n": 1}')
    id = jobd("schedules", "trigger", "nightly").word
    job = jobd("show", id, "--json").json
    assert (job["kind"], job["state"], job["payload"]) == ("report", "ready", {"n": 1})
    assert listed()["nightly"]["runs"] == 0


def test_the_history_tells_what_became_of_each_job(shell: str) -> None:
    jobd(*NIGHTLY)

    async def dead(link: Link) -> UUID:
        errors = [{"type": "ValueError", "message": "no rows"}]
        job = await make_job(link, kind="report", state="dead", errors=errors)
        ran = "insert into jobd.schedule_runs (schedule_id, fire_at, last_at, outcome, job_id)"
        await query(link, f"{ran} values ('nightly', '2026-03-01', '2026-03-01', 'ran', $1)", job)
        return job

    failed = str(in_database(shell, dead))
    waiting = jobd("schedules", "trigger", "nightly").word
    newest, oldest = jobd("schedules", "history", "nightly", "--json").json
    said = ("job_id", "job_type", "outcome", "reason", "success", "error_message")
    assert [newest[name] for name in said] == [waiting, "report", "ran", "triggered", None, None]
    assert [oldest[name] for name in said] == [failed, "report", "ran", None, False, "ValueError: no rows"]
    assert (newest["started_at"], newest["completed_at"]) == (None, None)
    assert oldest["started_at"] <= oldest["completed_at"]
    table = jobd("schedules", "history", "nightly").out
    assert all(word in table for word in (waiting, "triggered", failed, "dead"))
    assert len(jobd("schedules", "history", "nightly", "--count", 1, "--json").json) == 1


def test_a_job_that_never_started_has_no_start_in_the_history(shell: str) -> None:
    jobd(*NIGHTLY)
    jobd("cancel", jobd("schedules", "trigger", "nightly").word, "--reason", "not today")
    (told,) = jobd("schedules", "history", "nightly", "--json").json
    assert (told["started_at"], told["success"], told["error_message"]) == (None, False, "not today")
    assert told["completed_at"] is not None


def test_a_stretch_of_missed_occurrences_is_one_line(shell: str) -> None:
    missed = (
        "insert into jobd.schedule_runs (schedule_id, fire_at, last_at, count, outcome, reason) values"
        " ('nightly', '2026-03-01T02:30Z', '2026-03-09T02:30Z', 9, 'missed', 'misfire_grace')"
    )
    in_database(shell, lambda link: query(link, missed))
    (line,) = jobd("schedules", "history", "nightly").out.splitlines()[1:]
    assert "missed x 9" in line
    assert "misfire_grace" in line
    assert "nothing has become of a schedule 'other' yet" in jobd("schedules", "history", "other").err


def test_a_preview_marks_the_nights_when_the_clocks_change(folder: object) -> None:
    words = ("schedules", "preview", "30 2 * * *", "--tz", "Europe/Berlin")
    answer = jobd(*words, "--after", "2026-03-27T12:00+01:00", "--count", 3)
    means, *fires = answer.out.splitlines()
    assert "Europe/Berlin" in means
    assert fires == [
        "Sat 2026-03-28 02:30:00 CET (UTC+0100)",
        "Sun 2026-03-29 03:00:00 CEST (UTC+0200)  <- clocks go forward by 60 min that day",
        "Mon 2026-03-30 02:30:00 CEST (UTC+0200)",
    ]
    as_json = jobd(*words, "--after", "2026-03-27T12:00+01:00", "--count", 2, "--json").json
    assert as_json == {"means": means, "fires": ["2026-03-28T01:30:00+00:00", "2026-03-29T01:00:00+00:00"]}


def test_a_preview_chooses_h_by_the_id_as_the_schedule_does(shell: str) -> None:
    assert "give an id" in jobd("schedules", "preview", "H 2 * * *", code=2).err
    (fire,) = jobd("schedules", "preview", "H 2 * * *", "--id", "s", "--count", 1, "--json").json["fires"]
    jobd("schedules", "add", "s", "H 2 * * *", "report")
    assert jobd("schedules", "preview", "H 2 * * *", "--id", "s", "--json").json["means"].startswith("At 02:")
    assert Schedule.parse("H 2 * * *", id="s").next_after(datetime.now(UTC)) == datetime.fromisoformat(fire)


def test_a_preview_counts_an_interval_from_its_anchor(folder: object) -> None:
    words = ("every 1h", "--anchor", "2030-01-01T00:20Z", "--after", "2030-05-01T00:00Z", "--count", 1)
    assert jobd("schedules", "preview", *words, "--json").json["fires"] == ["2030-05-01T00:20:00+00:00"]


def test_a_preview_of_what_is_over_says_so(folder: object) -> None:
    answer = jobd("schedules", "preview", "2020-01-01T00:00Z")
    assert answer.err.strip() == "it never occurs after that"
    assert len(answer.out.splitlines()) == 1
