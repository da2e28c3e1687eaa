"""The application that the benchmarks run."""

from __future__ import annotations

import time

from jobd import Jobs

jobs = Jobs()


@jobs.handler("noop")
async def noop(n: int) -> None:
    """Nothing: what is measured is everything around it."""


@jobs.handler("clock")
async def clock() -> float:
    """When this line ran."""
    return time.time()
