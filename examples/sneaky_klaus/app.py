"""The application factory: handlers, what they are given, and what opens with a worker.

jobd run --app examples.sneaky_klaus.app:jobs
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

from jobd import JobContext, Jobs

from . import exchanges
from .clock import Clock
from .exchanges import Pool
from .nightly import NIGHTLY, auto_complete_exchanges, enqueue_next, purge_old_exchanges
from .reminders import send_reminders


def create_jobs(*, clock: Clock | None = None, **settings: Any) -> Jobs:
    """The application's jobs; settings as `Jobs()` takes them."""
    jobs = Jobs(**settings)
    clock = clock or Clock()
    jobs.handler("send_reminders", timeout="1m")(send_reminders)
    jobs.handler("auto_complete_exchanges", max_attempts=5)(auto_complete_exchanges)
    jobs.handler("purge_old_exchanges", max_attempts=5)(purge_old_exchanges)
    jobs.resource(Clock, clock)

    @jobs.lifespan
    async def database() -> AsyncIterator[Pool]:
        assert jobs.settings.database_url is not None  # a daemon has one
        async with exchanges.opened(jobs.settings.database_url) as pool:
            for kind in NIGHTLY:
                await enqueue_next(jobs, kind, after=clock.now(), clock=clock)
            yield pool

    @jobs.middleware
    async def again_tomorrow(ctx: JobContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        if ctx.kind in NIGHTLY:
            # An hour on, since this run may be a little early by our clock and must not find itself.
            after = clock.now() + timedelta(hours=1)
            await enqueue_next(jobs, ctx.kind, after=after, clock=clock)
        return await call_next()

    return jobs


jobs = create_jobs()
