"""One job through a daemon that runs in this process."""

from __future__ import annotations

from typing import Any

from jobd import Job, Jobs
from jobd.events import JobFinished
from jobd.ids import uuid7
from tests.signals import expect


async def ran(jobs: Jobs, kind: str, payload: Any = None, **options: Any) -> tuple[JobFinished, Job]:
    """Enqueue a job and wait for the end of its first run; return that event and the job as it is then."""
    id = uuid7()
    async with expect(jobs.events, JobFinished, id=id) as finished:
        await jobs.enqueue(kind, payload, id=id, **options)
    return finished.event, await jobs.get(id)
