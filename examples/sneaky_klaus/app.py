"""The application factory: handlers, what they are given, and what opens with a worker.

jobd run --app examples.sneaky_klaus.app:jobs
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from jobd import Jobs

from . import exchanges, nightly
from .clock import Clock
from .exchanges import Pool
from .reminders import send_reminders


def create_jobs(*, clock: Clock | None = None, **settings: Any) -> Jobs:
    """The application's jobs; settings as `Jobs()` takes them."""
    jobs = Jobs(**settings)
    clock = clock or Clock()
    jobs.handler("send_reminders", timeout="1m")(send_reminders)
    nightly.declare(jobs, clock)
    jobs.resource(Clock, clock)

    @jobs.lifespan
    async def database() -> AsyncIterator[Pool]:
        assert jobs.settings.database_url is not None  # a daemon has one
        async with exchanges.opened(jobs.settings.database_url) as pool:
            yield pool

    return jobs


jobs = create_jobs()
