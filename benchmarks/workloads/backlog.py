"""The same drain with a million jobs of the far future and five million finished ones, and without.

jobd's two databases are filled once and stay for all of its drains, so each finds what the one before it left
behind. A rival gets a tenth of the backlog, one drain with it and one without, each in a store of its own;
one in Redis no more than it can enqueue in some seconds. The table says how many.
"""

from __future__ import annotations

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed, Unsupported
from benchmarks.store import PostgresStore, RedisStore
from benchmarks.workloads.drain import drain, pilot, size

WITHOUT, WITH = "without", "with"
DATABASES = {WITHOUT: "bench_without", WITH: "bench_with"}


def run(bench: Bench) -> None:
    if jobd := bench.get("jobd"):
        try:
            _ours(bench, jobd)
        except Failed as error:
            bench.note(f"backlog, jobd: failed: {error}", details=error.details)
    for rival in bench.rivals:
        try:
            jobs = min(bench.sizes.backlog_jobs, size(bench, rival))
        except (Failed, Unsupported) as error:
            bench.note(f"backlog, {rival.name}: failed: {error}", details=getattr(error, "details", ""))
            continue
        _rival(bench, rival, jobs)


def _ours(bench: Bench, jobd: Contestant) -> None:
    jobs = bench.sizes.backlog_jobs
    try:
        with bench.store(jobd, database=DATABASES[WITHOUT]):
            pass
        with bench.store(jobd, database=DATABASES[WITH]) as store:
            filled = _fill(bench, jobd, store, bench.sizes.backlog_scheduled, bench.sizes.backlog_finished)
        held = {WITHOUT: {"scheduled": 0.0, "finished": 0.0}, WITH: filled}

        def measure(case: Case) -> dict[str, float]:
            with bench.open(jobd, database=DATABASES[case.variant]) as store:
                return held[case.variant] | _drained(bench, jobd, store, jobs)

        cases = (Case(jobd, WITH), Case(jobd, WITHOUT))
        bench.pairs("backlog", "backlog", cases, measure, "drain_per_second")
    finally:
        for database in DATABASES.values():
            bench.postgres.drop(database)


def _rival(bench: Bench, rival: Contestant, jobs: int) -> None:
    scheduled = bench.sizes.backlog_scheduled // bench.sizes.rival_share
    finished = bench.sizes.backlog_finished // bench.sizes.rival_share
    if not rival.durable:
        most = int(pilot(bench, rival).enqueue_per_second * bench.sizes.rival_seconds)
        scheduled, finished = min(scheduled, most), min(finished, most)

    def measure(case: Case) -> dict[str, float]:
        with bench.store(rival) as store:
            held = {"scheduled": 0.0, "finished": 0.0}
            if case.variant == WITH:
                held = _fill(bench, rival, store, scheduled, finished)
            return held | _drained(bench, rival, store, jobs)

    # One round tells a factor of ten; nobody's bar is nearer.
    bench.rounds("backlog", [Case(rival, WITHOUT), Case(rival, WITH)], measure, rounds=1)


def _fill(
    bench: Bench, contestant: Contestant, store: PostgresStore | RedisStore, scheduled: int, finished: int
) -> dict[str, float]:
    """How many of either there are now; 0 where the library has or keeps none. Unsupported without both."""
    bench.say(f"backlog {contestant.name}: filling")
    held = {"scheduled": 0.0, "finished": 0.0}
    for name, verb, count in (("scheduled", "future", scheduled), ("finished", "past", finished)):
        try:
            held[name] = contestant.run(verb, count, url=store.url)["jobs"]
        except Unsupported:
            continue
    if not any(held.values()):
        raise Unsupported("neither scheduled jobs nor a history")
    if isinstance(store, PostgresStore):
        store.connection.execute("vacuum analyze")
    return held


def _drained(
    bench: Bench, contestant: Contestant, store: PostgresStore | RedisStore, jobs: int
) -> dict[str, float]:
    contestant.run("enqueue", jobs, url=store.url)
    store.settle()
    drained = drain(bench, contestant, store, jobs)
    if drained is None:
        raise Failed(f"{jobs} jobs were done before the first look: give it more")
    return {"jobs": drained.jobs, **drained.as_metrics()}
