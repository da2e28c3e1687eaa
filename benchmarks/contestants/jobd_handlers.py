"""The application that jobd runs here."""

from __future__ import annotations

import asyncio
import atexit

from benchmarks.contestants.program import burn, save_stamps, stamp
from jobd import Jobs

jobs = Jobs()
atexit.register(save_stamps)


@jobs.handler("noop")
async def noop(n: int) -> None:
    """Nothing, or BENCH_WORK_US of CPU: what is measured is everything around it."""
    burn()


@jobs.handler("nap")
async def nap(seconds: float, sent: int | None = None) -> None:
    """Take a while without CPU; a job with a time keeps how long ago that was."""
    if sent is not None:
        stamp(sent)
    await asyncio.sleep(seconds)


@jobs.handler("stamp")
async def stamped(sent: int) -> None:
    """Keep how long ago the producer made the call."""
    stamp(sent)
