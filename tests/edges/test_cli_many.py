"""The verbs that move many jobs by filters: what is asked, counted, told and put down."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from jobd.cli.sweeps import how_far
from jobd.door import Link
from jobd.job import JobState
from jobd.store import Store
from jobd.sweep import BATCH, Tally
from tests.edges.command import ROOT, in_database, jobd
from tests.factories import make_job, make_jobs, query

DAYS_AGO = "2026-01-01T00:00:00Z"


def make(url: str, count: int = 1, **columns: Any) -> list[str]:
    return [str(id) for id in in_database(url, lambda link: make_jobs(link, count, **columns))]


def states(url: str) -> dict[str, int]:
    async def work(link: Link) -> dict[str, int]:
        return {
            row[0]: row[1]
            for row in await query(link, "select state, count(*) from jobd.all_jobs group by 1 order by 1")
        }

    return in_database(url, work)


def test_cancel_by_filters_tells_how_many_and_leaves_the_others(shell: str) -> None:
    make(shell, 2, queue="mail")
    make(shell, queue="mail", state="running")
    make(shell, queue="web")
    answer = jobd("cancel", "--queue", "mail", "--reason", "wrong list")
    assert answer.word == "cancelled 2 jobs, asked the workers of 1 to stop them"
    assert states(shell) == {"cancelled": 2, "ready": 1, "running": 1}
    reasons = {job["reason"] for job in jobd("list", "--state", "cancelled", "--json").json}
    assert reasons == {"wrong list"}


def test_retry_by_filters_means_dead_jobs(shell: str) -> None:
    (id,) = make(shell, state="dead", kind="resize", errors=[{"type": "httpx.ConnectError", "message": "no"}])
    make(shell, state="dead", kind="resize", errors=[{"type": "KeyError", "message": "'x'"}])
    make(shell, state="succeeded", kind="resize")
    assert jobd("retry", "--kind", "resize", "--error-type", "ConnectError").word == "retried 1 job"
    assert jobd("show", id, "--json").json["generation"] == 1
    assert states(shell) == {"dead": 1, "ready": 1, "succeeded": 1}


def test_retry_leaves_what_cannot_go_back_and_says_so(shell: str) -> None:
    make(shell, unique_key="k")
    make(shell, state="dead", unique_key="k")
    make(shell, state="dead")
    answer = jobd("retry", "--all", code=1)
    assert answer.word == "retried 1 job"
    assert answer.err == "1 job stayed: another job holds their unique key\n"


def test_reschedule_by_filters_gives_another_priority(shell: str) -> None:
    (id,) = make(shell, tenant_id="acme")
    make(shell)
    assert jobd("reschedule", "--tenant", "acme", "--priority", 10).word == "rescheduled 1 job"
    assert jobd("show", id, "--json").json["priority"] == 10


def test_reschedule_by_filters_makes_jobs_due(shell: str) -> None:
    make(shell, 2, state="scheduled")
    assert jobd("reschedule", "--state", "scheduled", "--now").word == "rescheduled 2 jobs"
    assert states(shell) == {"ready": 2}


def test_move_takes_ids_and_filters(shell: str) -> None:
    first, second = make(shell, 2, queue="mail")
    assert jobd("move", first, "--to", "slow").word == f"ready {first} in slow"
    answer = jobd("move", "--queue", "mail", "--to", "slow")
    assert answer.word == "moved 1 job"
    assert "slow" not in answer.err
    assert jobd("show", second, "--json").json["queue"] == "slow"


def test_delete_by_filters_leaves_running_jobs(shell: str) -> None:
    for state in JobState:
        make(shell, state=state.value)
    assert jobd("delete", "--all").word == "deleted 5 jobs"
    assert states(shell) == {"running": 1}


def test_running_jobs_that_stay_behind_are_told(shell: str) -> None:
    make(shell, 2, queue="mail", state="running")
    make(shell, queue="mail")
    for words in (("--dry-run",), ()):
        answer = jobd("move", "--queue", "mail", "--to", "slow", *words)
        assert "left 2 jobs that run; those that get another attempt wait in their old queue" in answer.err
    make(shell, kind="resize", state="running")
    answer = jobd("delete", "--kind", "resize")
    assert (answer.word, answer.err) == ("deleted 0 jobs", "left 1 job that runs\n")


def test_a_dry_run_counts_by_state_and_changes_nothing(shell: str) -> None:
    make(shell, 2, queue="mail")
    make(shell, queue="mail", state="scheduled")
    answer = jobd("cancel", "--queue", "mail", "--dry-run")
    assert answer.word == "would cancel 3 jobs (1 scheduled, 2 ready)"
    assert states(shell) == {"ready": 2, "scheduled": 1}
    assert jobd("audit", "--json").json == []


def test_a_limit_bounds_the_count_and_the_deed(shell: str) -> None:
    make(shell, 3)
    assert jobd("cancel", "--all", "--limit", 2, "--dry-run").word == "would cancel 2 jobs (2 ready)"
    assert jobd("cancel", "--all", "--limit", 2).word == "cancelled 2 jobs"
    assert states(shell) == {"cancelled": 2, "ready": 1}


def test_a_filter_given_twice_means_any_of_its_values(shell: str) -> None:
    for queue in ("a", "b", "c"):
        make(shell, queue=queue)
    words = ("--queue", "a", "--queue", "b", "--dry-run")
    assert jobd("cancel", *words).word == "would cancel 2 jobs (2 ready)"


def test_filters_of_age_error_tag_and_use_case_are_passed_on(shell: str) -> None:
    errors = [{"type": "E", "message": "No way"}]
    make(shell, created_at=DAYS_AGO, headers={"tags": ["x"]}, use_case="import", errors=errors)
    make(shell)
    for words in (
        ("--older-than", "7d"),
        ("--tag", "x"),
        ("--use-case", "import"),
        ("--error", "no WAY"),
        ("--older-than", "7d", "--newer-than", "9999d"),
    ):
        assert jobd("cancel", *words, "--dry-run").word.startswith("would cancel 1 job "), words
    assert jobd("cancel", "--newer-than", "7d", "--dry-run").word.startswith("would cancel 1 job ")


def test_a_queue_that_nobody_knows_is_told(shell: str) -> None:
    make(shell, queue="mail")
    answer = jobd("cancel", "--queue", "mial")
    assert answer.word == "cancelled 0 jobs"
    assert "no process and no ready job knows a queue 'mial'" in answer.err
    answer = jobd("move", "--queue", "mail", "--to", "slwo")
    assert (answer.word, "'slwo'" in answer.err, "'mail'" in answer.err) == ("moved 1 job", True, False)


def test_the_audit_shows_who_did_what_to_which_jobs(shell: str) -> None:
    make(shell, 2, queue="mail")
    jobd("reschedule", "--queue", "mail", "--priority", 3)
    jobd("move", "--queue", "mail", "--older-than", "0s", "--to", "slow")
    newest, oldest = jobd("audit", "--json").json
    assert (newest["verb"], newest["jobs"], newest["change"]) == ("move", 2, {"queue": "slow"})
    assert newest["filter"] == {"queue": ["mail"], "state": ["scheduled", "ready"], "older_than": "0s"}
    assert "@" in oldest["who"]
    table = jobd("audit", "-n", 1).out.splitlines()
    assert len(table) == 2
    for word in ("move", "queue=mail state=scheduled,ready older_than=0s", "queue=slow"):
        assert word in table[1]


def test_ids_do_not_need_the_audit(shell: str) -> None:
    (id,) = make(shell)
    jobd("cancel", id)
    assert jobd("audit").err == "nothing was changed by filter yet\n"


def test_a_history_that_takes_long_is_told_before_it_is_looked_through(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobd.cli.sweeps.MANY_ROWS", 0)
    make(shell, state="dead")
    assert "finished jobs: --newer-than 1d would spare" in jobd("retry", "--all", "--dry-run").err
    for words in (("retry", "--state", "dead", "--newer-than", "1d"), ("cancel", "--all")):
        assert jobd(*words, "--dry-run").err == ""


async def make_many(link: Link, count: int) -> None:
    text = "select count(*) from jobd.enqueue_many('noop', array_fill('{}'::jsonb, array[$1::int]))"
    await query(link, text, count)


class Terminal:
    """A verb at a terminal of its own, where a person may answer and interrupt."""

    def __init__(self, *words: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobd", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str) -> None:
        while text not in self.seen:
            assert self._read(), self.seen

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(30)

    def _read(self) -> bool:
        try:
            part = os.read(self._master, 65_536)
        except OSError:  # the other side is closed
            part = b""
        self.seen += part.decode(errors="replace")
        return bool(part)


@pytest.fixture
def terminal(shell: str) -> Callable[..., Terminal]:
    return Terminal


def test_at_a_terminal_it_counts_and_asks_first(shell: str, terminal: Callable[..., Terminal]) -> None:
    make(shell, 2, queue="mail")
    for answer, code, left in (("n\n", 1, {"ready": 2}), ("y\n", 0, {"cancelled": 2})):
        screen = terminal("cancel", "--queue", "mail")
        screen.until("Cancel 2 jobs (2 ready)?")
        assert states(shell) == {"ready": 2}
        screen.type(answer)
        assert (screen.end(), states(shell)) == (code, left)
    assert "cancelled 2 jobs" in screen.seen


def test_at_a_terminal_yes_asks_nothing_and_a_bar_shows_how_far_it_is(
    shell: str, terminal: Callable[..., Terminal]
) -> None:
    make(shell)
    screen = terminal("delete", "--all", "--yes")
    assert screen.end() == 0
    assert "?" not in screen.seen.replace("[?25", "")
    for shown in ("delete", "━", "1 job ", "deleted 1 job"):
        assert shown in screen.seen


def test_the_bar_counts_jobs_where_they_were_counted_and_never_claims_to_be_through() -> None:
    tally = Tally(verb="move", jobs=11_000, busy=10, looked=12_000, extent=60)
    assert how_far(tally, 60_001) == (11_010, 60_001)
    assert how_far(tally, None) == (12_000, None)
    tally.extent = 60_001
    assert how_far(tally, None) == (12_000, 60_001)


def test_where_nothing_matches_nothing_is_asked(shell: str, terminal: Callable[..., Terminal]) -> None:
    screen = terminal("cancel", "--kind", "nothing")
    assert screen.end() == 0
    assert "cancelled 0 jobs" in screen.seen


def test_an_interrupted_operation_says_how_far_it_came(shell: str, terminal: Callable[..., Terminal]) -> None:
    async def block(link: Link) -> None:
        await make_many(link, BATCH)
        connection = await link.opened()
        id = await make_job(link)
        async with connection.transaction():
            await Store(link).reschedule(id, priority=3)
            screen = terminal("cancel", "--all", "--yes")
            screen.until("1,000 jobs")
            screen.process.send_signal(signal.SIGINT)
            assert screen.end() == 130
            assert "stopped: cancelled 1,000 jobs so far; the same command goes on from there" in screen.seen

    in_database(shell, block)
    assert states(shell) == {"cancelled": BATCH, "ready": 1}
    assert "unfinished" in jobd("audit").out
    assert jobd("cancel", "--all").word == "cancelled 1 job"


def test_a_killed_operation_has_done_what_the_audit_says(
    shell: str, terminal: Callable[..., Terminal]
) -> None:
    in_database(shell, lambda link: make_many(link, 30 * BATCH))
    screen = terminal("cancel", "--all", "--yes")
    screen.until("000 jobs")
    screen.process.kill()
    screen.end()

    async def compare(link: Link) -> tuple[int, int, object]:
        (row,) = await query(
            link, "select jobs, (select count(*) from jobd.job_history), ended_at from jobd.audit"
        )
        return row["jobs"], row["count"], row["ended_at"]

    put_down, cancelled, ended_at = in_database(shell, compare)
    assert put_down == cancelled > 0
    if ended_at is None:  # else it was quicker than the kill
        assert "unfinished" in jobd("audit").out
    jobd("cancel", "--all")
    assert states(shell) == {"cancelled": 30 * BATCH}
