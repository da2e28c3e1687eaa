"""The verb that says why a job is where it is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jobd.door import Link
from tests.edges.command import in_database, jobd
from tests.factories import SECOND, make_job, make_worker, query


def test_explain_names_each_reason_on_a_line_of_its_own_with_its_time(shell: str) -> None:
    async def waiting(link: Link) -> UUID:
        await query(
            link,
            "insert into jobd.queues (name, paused_at, paused_by)"
            " values ('mail', now() - interval '2 h', E'kim\\x1b[2J')",
        )
        await make_worker(link, queues=["mail"], kinds=["noop"])
        run_at = datetime.now(UTC) + timedelta(hours=3)
        return await make_job(link, queue="mail", state="scheduled", run_at=run_at)

    id = in_database(shell, waiting)
    head, due, paused = jobd("explain", id).out.splitlines()
    assert head == "noop in queue mail is scheduled:"
    assert re.fullmatch(r"- it is due in 2h59m\d+s \(([\d-]+ )?\d\d:\d\d(:\d\d)?\)", due), due
    assert re.fullmatch(
        r"- queue mail is paused for 2h(\d+s)? by kim\\x1b\[2J: `jobd queues resume mail`", paused
    ), paused


def test_explain_answers_programs_by_name(shell: str) -> None:
    async def waiting(link: Link) -> tuple[UUID, datetime]:
        await make_worker(link, queues=["default"], kinds=["noop"])
        run_at = datetime.now(UTC) + 3600 * SECOND
        return await make_job(link, state="scheduled", run_at=run_at), run_at

    id, run_at = in_database(shell, waiting)
    answer = jobd("explain", id, "--json").json
    (reason,) = answer.pop("reasons")
    assert answer == {"id": str(id), "state": "scheduled", "queue": "default", "kind": "noop"}
    assert set(reason) == {"why", "text", "until"} and reason["why"] == "not_due"
    assert datetime.fromisoformat(reason["until"]) == run_at


def test_explain_of_a_job_that_is_not_there_says_so(shell: str) -> None:
    unknown = UUID(int=7)
    assert str(unknown) in jobd("explain", unknown, code=1).err
