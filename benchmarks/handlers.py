"""The application that the benchmarks run."""

from __future__ import annotations

from jobd import Jobs

jobs = Jobs()


@jobs.handler("noop")
async def noop(n: int) -> None:
    """Nothing: what is measured is everything around it."""
