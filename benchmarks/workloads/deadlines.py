"""More jobs with deadlines than a worker gets through: how many end in time under policy `drop`.

Eight slots and runs of 20 ms, offered 1.2 and 2 times what they can take for some seconds, with
tolerances from 50 ms to 3 s. Beside it stands what a single queue in the order of deadlines would begin
by their deadlines, whose looks cost nothing: no real queue begins more.
"""

from __future__ import annotations

import heapq
import json
import random
import time
from collections.abc import Iterable
from datetime import timedelta

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed
from benchmarks.store import PostgresStore, until_done
from benchmarks.workloads.latency import WARM_UP

SLOTS = 8
SERVICE_SECONDS = 0.02
LOADS = (1.2, 2.0)
TOLERANCES = (0.1, 0.5, 2.0)
# When a job comes, and by when it shall begin, in seconds.
Due = tuple[float, float]

ENQUEUE = "select jobd.enqueue('nap', %s::jsonb, delay_tolerance => %s::interval, deadline_policy => 'drop')"


def run(bench: Bench) -> None:
    if (jobd := bench.get("jobd")) is None:
        return
    bench.rounds(
        "deadlines",
        [Case(jobd, f"load {load:g}") for load in LOADS],
        lambda case: _overload(bench, jobd, float(case.variant.split()[1])),
    )


def arrivals(rng: random.Random, *, load: float, seconds: float) -> list[Due]:
    """Jobs at random, as many as keep the slots that much more than busy."""
    at, found = 0.0, list[Due]()
    while (at := at + rng.expovariate(load * SLOTS / SERVICE_SECONDS)) < seconds:
        found.append((at, at + rng.choice(TOLERANCES) * rng.uniform(0.5, 1.5)))
    return found


def met_by_earliest_deadline_first(
    jobs: Iterable[Due], *, slots: int = SLOTS, service: float = SERVICE_SECONDS
) -> int:
    """How many begin by their deadlines in a single queue in that order, whose looks cost nothing."""
    free, waiting, met = [0.0] * slots, list[float](), 0
    coming = iter([*sorted(jobs), None])
    job = next(coming)
    while job is not None or waiting:
        now = heapq.heappop(free)
        if not waiting and job is not None:
            now = max(now, job[0])
        while job is not None and job[0] <= now:
            heapq.heappush(waiting, job[1])
            job = next(coming)
        while waiting and waiting[0] < now:
            heapq.heappop(waiting)
        if waiting:
            heapq.heappop(waiting)
            met += 1
            now += service
        heapq.heappush(free, now)
    return met


def _overload(bench: Bench, jobd: Contestant, load: float) -> dict[str, float]:
    jobs = arrivals(random.Random(load), load=load, seconds=bench.sizes.deadlines_seconds)
    payload = json.dumps({"seconds": SERVICE_SECONDS})
    with bench.store(jobd) as store:
        assert isinstance(store, PostgresStore)
        with bench.working(jobd, store.url, arguments=f"--concurrency {SLOTS}") as worker:
            # How long a run takes is known before the flood.
            store.connection.execute(
                "select jobd.enqueue('nap', %s::jsonb) from generate_series(1, %s)", [payload, WARM_UP]
            )
            if until_done(store, worker, seconds=30) is None:
                raise Failed("the worker did not begin")
            began = time.monotonic()
            for at, deadline in jobs:
                time.sleep(max(0.0, began + at - time.monotonic()))
                store.connection.execute(ENQUEUE, [payload, timedelta(seconds=deadline - at)])
            late = time.monotonic() - began - jobs[-1][0]
            if until_done(store, worker, seconds=30) is None:
                raise Failed("jobs were left long after their deadlines")
            worker.stop()
        ended = store.value(
            "select count(*) from jobd.job_history where state = 'succeeded' and deadline_policy = 'drop'"
        )
    if late > SERVICE_SECONDS:
        raise Failed(f"the last job was sent {late * 1000:.0f} ms late")
    best = met_by_earliest_deadline_first(jobs)
    return {"jobs": len(jobs), "best": best, "ended": ended, "of_best": ended / best}
