"""What claim, stage, finish, rescue and prune cost with few rows and with millions, statement by statement.

Two databases: `few` with 1,000 jobs and 1,000 finished, `many` with 10,000,000 jobs, half of them ready and
of low priority, half scheduled for next year, and 5,000,000 finished (50,000,000 with --full). A visit starts
`jobd run` on one of them, with the statement log on, and 10,000 jobs to claim and finish, 2,000 that are due
to be staged, 2,000 whose worker is gone. A statement's cost is what it took in all, by that visit's jobs.

Prune is the look for days that are over, a run; dropping such a day is left out, since it removes files.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from psycopg import sql as sqltext

from benchmarks.bench import Bench
from benchmarks.contestant import Contestant, Failed
from benchmarks.results import Sample, Walk
from benchmarks.servers import OURS
from benchmarks.statementlog import Entry, StatementLog, milliseconds_by_statement
from benchmarks.store import PostgresStore, until_completed

VISIT_JOBS = 10_000
STAGED = 2_000
ORPHANS = 2_000
VISIT_SECONDS = 120
DATABASES = {"few": "bench_few", "many": "bench_many"}

# By the name that each of jobd's statements bears in its first line.
# A claim that takes less has found nothing.
EMPTY_MS = 0.5
# Due and not staged, or running without a worker.
APART = (
    "select count(*) from jobd.jobs j where j.state = 'scheduled' and j.run_at <= now()"
    " or j.state = 'running' and not exists (select from jobd.workers w where w.id = j.worker_id)"
)
NAMED = re.compile(r"^-- jobd: (\w+)")
STEPS = {
    "prune": {"prune"},
    "rescue": {"rescue"},
    "stage": {"stage"},
    "finish": {"succeed", "finish"},
    "claim": {"claim", "claim_victims"},
}


def run(bench: Bench) -> None:
    if (jobd := bench.get("jobd")) is None:
        return
    try:
        for size, database in DATABASES.items():
            with bench.store(jobd, database=database) as store:
                assert isinstance(store, PostgresStore)
                bench.say(f"growth: filling {size}")
                _fill(bench, jobd, store, many=size == "many")
        _visits(bench, jobd)
    except Failed as error:
        bench.note(f"growth: failed: {error}", details=error.details)
    finally:
        for database in DATABASES.values():
            bench.postgres.drop(database)


def _visits(bench: Bench, jobd: Contestant) -> None:
    order: dict[str, list[tuple[str, float]]] = {step: [] for step in STEPS}
    for size in DATABASES:
        _visit(bench, jobd, size)  # the first one warms caches
    for number in range(max(bench.sizes.pairs, bench.options.rounds)):
        sizes = list(DATABASES) if number % 2 else list(reversed(DATABASES))
        for size in sizes:
            costs = _visit(bench, jobd, size)
            for step, us in costs.items():
                order[step].append(("A" if size == "many" else "B", us))
            bench.say(f"growth {size}: " + ", ".join(f"{step} {us:.3g} us" for step, us in costs.items()))
    for step, steps in order.items():
        few = [us for letter, us in steps if letter == "B"]
        many = [us for letter, us in steps if letter == "A"]
        if len(few) != len(many) or not few:
            bench.note(f"growth: {step} was not seen in every visit")
            continue
        for number, (few_us, many_us) in enumerate(zip(few, many, strict=True)):
            metrics = {"few_us": few_us, "many_us": many_us, "ratio": many_us / few_us}
            bench.results.samples.append(Sample("growth", "jobd", step, number + 1, metrics))
        if bench.sizes.pairs:
            bench.results.walks.append(Walk(f"growth {step}", tuple(steps)))


def _visit(bench: Bench, jobd: Contestant, size: str) -> dict[str, float]:
    """Microseconds a job of each step; of prune, a run."""
    database = DATABASES[size]
    with bench.open(jobd, database=database) as store:
        jobd.run("enqueue", VISIT_JOBS + STAGED + ORPHANS, url=store.url)
        _set_apart(store)
        store.settle()
        store.connection.execute("checkpoint")
        before = store.completed()
        bench.postgres.log_statements(database, on=True)
        log = StatementLog(bench.postgres.log, database=database, without=OURS)
        # A short lease, so that the leader finds orphans and prunes within the visit.
        with bench.working(jobd, store.url, arguments="--lease 3s") as worker:
            until_completed(store, before + VISIT_JOBS + STAGED + ORPHANS - 1, worker, seconds=VISIT_SECONDS)
            _until_apart_are_done(store, seconds=VISIT_SECONDS)
            _until_pruned(log, seconds=VISIT_SECONDS)
            done = store.completed() - before
            worker.stop()
        bench.postgres.log_statements(database, on=False)
        return costs(log.read(), {"claim": done, "finish": done, "stage": STAGED, "rescue": ORPHANS})


def costs(entries: Iterable[Entry], jobs: dict[str, int]) -> dict[str, float]:
    """Microseconds of each step: in all by the jobs it handled, or by its runs where `jobs` leaves it out."""
    found: dict[str, list[float]] = {}
    for text, runs in milliseconds_by_statement(entries).items():
        if (step := _step(text)) is not None:
            # A claim that found nothing is no work; where there is a backlog there is none.
            found.setdefault(step, []).extend(ms for ms in runs if step != "claim" or ms >= EMPTY_MS)
    return {step: sum(runs) * 1000 / jobs.get(step, len(runs)) for step, runs in found.items()}


def _step(text: str) -> str | None:
    named = NAMED.match(text)
    return next((step for step, names in STEPS.items() if named and named[1] in names), None)


def _until_apart_are_done(store: PostgresStore, *, seconds: float) -> None:
    """What `_set_apart` made has been staged and rescued; in a backlog other jobs are done meanwhile."""
    deadline = time.monotonic() + seconds
    while store.value(APART):
        if time.monotonic() > deadline:
            raise Failed("not all jobs that were due or orphaned were staged and rescued")
        time.sleep(0.2)


def _until_pruned(log: StatementLog, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not any(_step(entry.sql) == "prune" for entry in log.read()):
        if time.monotonic() > deadline:
            return
        time.sleep(0.2)


def _set_apart(store: PostgresStore) -> None:
    """Of the jobs just enqueued, make some due but not staged, and some of a worker that is gone."""
    pick = (
        "where id in (select id from jobd.jobs where state = 'ready' and crashes = 0 and queue = 'default'"
        " order by priority desc limit %s)"
    )
    store.connection.execute(f"update jobd.jobs set state = 'scheduled', run_at = now() {pick}", [STAGED])
    store.connection.execute(
        "update jobd.jobs set state = 'running', worker_id = gen_random_uuid(), claimed_at = now(),"
        f" claim_no = claim_no + 1, attempt = 1 {pick}",
        [ORPHANS],
    )


def _fill(bench: Bench, jobd: Contestant, store: PostgresStore, *, many: bool) -> None:
    jobs = bench.sizes.growth_many if many else bench.sizes.growth_few
    finished = bench.sizes.growth_finished if many else bench.sizes.growth_few
    jobd.run("past", finished, url=store.url)
    jobd.run("enqueue", 1, url=store.url)
    copies(store, jobs // 2, {"priority": "-1000"})
    copies(
        store,
        jobs // 2,
        {
            "state": "'scheduled'",
            "run_at": "now() + interval '365 days'",
            "deadline_at": "now() + interval '365 days'",
        },
    )
    store.connection.execute("vacuum analyze")
    bench.note(f"growth: {jobs:,} jobs, {finished:,} finished in `{'many' if many else 'few'}`")


def copies(store: PostgresStore, count: int, changed: dict[str, str]) -> None:
    """Copies of the ready job there is, but for what is `changed`; the columns are whatever the table has."""
    columns = [
        str(row[0])
        for row in store.connection.execute(
            "select attname from pg_attribute where attrelid = 'jobd.jobs'::regclass"
            " and attnum > 0 and not attisdropped and attgenerated = '' order by attnum"
        )
    ]
    values = {"id": "jobd.uuid7()", **changed}
    store.connection.execute(
        sqltext.SQL(
            "insert into jobd.jobs ({columns}) select {values} from generate_series(1, {count}) n,"
            " (select * from jobd.jobs where state = 'ready' and priority = 0 limit 1) j"
        ).format(
            columns=sqltext.SQL(", ".join(columns)),
            values=sqltext.SQL(", ".join(values.get(name, f"j.{name}") for name in columns)),
            count=sqltext.Literal(count),
        )
    )
