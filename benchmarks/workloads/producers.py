"""What waking workers costs ten producers that commit single enqueues: jobd's own enqueue, by pgbench.

The same statement runs twice: as shipped, and without its notification.

    load   one worker that is busy all the time (1 ms of CPU a job), so that nobody needs to be woken
    idle   one worker with nothing else to do, which falls asleep whenever it has caught up
"""

from __future__ import annotations

import re
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed
from benchmarks.store import PostgresStore, until_completed

PRODUCERS = 10
BUSY_US = 1_000
BUSY_JOBS = 2_000
ENQUEUE = """select jobd.enqueue(kind => 'noop', payload => '{"n": 1}');\n"""
NOTIFY = "perform pg_notify('jobd_wake', enqueue.queue);"
DEFINITION = "select pg_get_functiondef(oid) from pg_proc where proname = 'enqueue'"


def run(bench: Bench) -> None:
    if (jobd := bench.get("jobd")) is None:
        return
    kinds = [(where, wakes) for where in ("load", "idle") for wakes in (True, False)]
    cases = {
        Case(jobd, f"{where}, {'as shipped' if wakes else 'silent'}"): (where, wakes)
        for where, wakes in kinds
    }
    bench.rounds("producers", list(cases), lambda case: _measure(bench, jobd, *cases[case]))
    for where in ("load", "idle"):
        rate = partial(_rate, bench, jobd, where)
        bench.walk(f"producers {where}", partial(rate, True), partial(rate, False))


def _rate(bench: Bench, jobd: Contestant, where: str, wakes: bool) -> float:
    return _measure(bench, jobd, where, wakes)["enqueued_per_second"]


def _measure(bench: Bench, jobd: Contestant, where: str, wakes: bool) -> dict[str, float]:
    with bench.store(jobd) as store:
        assert isinstance(store, PostgresStore)
        if not wakes:
            definition = str(store.value(DEFINITION))
            if definition.count(NOTIFY) != 1:
                raise Failed("jobd.enqueue does not notify in one place: what to silence?")
            store.connection.execute(definition.replace(NOTIFY, "null;"))
        busy = where == "load"
        jobd.run("enqueue", BUSY_JOBS if busy else 1, url=store.url)
        # migrate=off: the start might put the function back.
        with bench.working(
            jobd, store.url, work_us=BUSY_US if busy else 0, arguments="--migrate off"
        ) as worker:
            until_completed(store, 0, worker)
            said = _pgbench(bench, store.database)
            worker.stop()
    found = re.search(r"tps = ([\d.]+)", said)
    if found is None:
        raise Failed(f"pgbench: {said[-300:]}")
    return {"enqueued_per_second": float(found[1])}


def _pgbench(bench: Bench, database: str) -> str:
    with tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder:
        script = Path(folder) / "enqueue.sql"
        script.write_text(ENQUEUE)
        Path(folder).chmod(0o755)
        return bench.postgres.pgbench(
            *("-n", "-M", "prepared", "-c", str(PRODUCERS), "-j", "2", "-f", str(script)),
            *("-T", str(int(bench.sizes.producers_seconds)), database),
        )
