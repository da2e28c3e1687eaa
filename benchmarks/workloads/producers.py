"""What waking workers costs ten producers that commit single enqueues: jobd's own enqueue, by pgbench.

The same statement runs twice: as shipped, and with a `jobd.wake` that does nothing.

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
SILENT = """
do $$
declare wake oid := (select oid from pg_proc where pronamespace = 'jobd'::regnamespace and proname = 'wake');
begin
    execute format('create or replace function jobd.wake(%s) returns %s language sql as %L',
                   pg_get_function_arguments(wake), pg_get_function_result(wake),
                   case pg_get_function_result(wake) when 'void' then 'select' else 'select null' end);
end $$
"""


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
            if store.value("select count(*) from pg_proc where proname = 'wake'") != 1:
                raise Failed("there is no single function jobd.wake to silence")
            store.connection.execute(SILENT)
        busy = where == "load"
        jobd.run("enqueue", BUSY_JOBS if busy else 1, url=store.url)
        # migrate=off: the start would put jobd.wake back.
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
