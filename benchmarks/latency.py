"""From the enqueue call on an idle daemon to the handler's first line, by NOTIFY and by polling alone.

Both ends read the same machine's clock: the caller before it enqueues, the handler when it starts.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from typing import Any

from benchmarks.handlers import jobs
from jobd.migrate import migrate


async def latency(url: str, *, count: int, notify: bool) -> dict[str, Any]:
    """Milliseconds from call to start: median, 99th percentile and worst."""
    await migrate(url)
    jobs.overrides["database_url"] = url
    daemon = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobd", "run", "--app", "benchmarks.handlers:jobs"),
        *("--log-level", "warning", "--http-port", "0"),
        env={**os.environ, "JOBD_DATABASE_URL": url, "JOBD_NOTIFY": "on" if notify else "off"},
    )
    try:
        async with jobs:
            waits = [await _one() for _ in range(count + 5)][5:]  # the first few warm connections and plans
    finally:
        daemon.terminate()
        await daemon.wait()
    ordered = sorted(waits)
    return {
        "notify": notify,
        "median_ms": statistics.median(ordered),
        "p99_ms": ordered[int(len(ordered) * 0.99) - 1],
        "worst_ms": ordered[-1],
    }


async def _one() -> float:
    await asyncio.sleep(random.uniform(0.05, 0.15))
    called = time.time()
    job = await jobs.enqueue("clock")
    done = await jobs.wait(job.id, timeout=30)
    return float((done.result - called) * 1000)
