"""The same drain with a million jobs of the far future and five million finished ones, and without.

Both databases stay for all of their drains, so each finds what the one before it left behind.
"""

from __future__ import annotations

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed, Unsupported
from benchmarks.store import PostgresStore
from benchmarks.workloads.drain import drain, size

WITHOUT, WITH = "without", "with"


def run(bench: Bench) -> None:
    for contestant in bench.contenders:
        if contestant.durable and not contestant.name.startswith("bare"):
            try:
                _contestant(bench, contestant)
            except (Failed, Unsupported) as error:
                bench.note(f"backlog, {contestant.name}: {error}")


def _contestant(bench: Bench, contestant: Contestant) -> None:
    jobs = min(bench.sizes.backlog_jobs, size(bench, contestant))
    databases = {WITHOUT: "bench_without", WITH: "bench_with"}
    try:
        with bench.store(contestant, database=databases[WITHOUT]):
            pass
        with bench.store(contestant, database=databases[WITH]) as store:
            assert isinstance(store, PostgresStore)
            bench.say(f"backlog {contestant.name}: filling")
            future = contestant.run("future", bench.sizes.backlog_scheduled, url=store.url)["jobs"]
            past = contestant.run("past", bench.sizes.backlog_finished, url=store.url)["jobs"]
            store.connection.execute("vacuum analyze")
        bench.note(f"backlog, {contestant.name}: {future:,.0f} scheduled and {past:,.0f} finished jobs")

        def measure(variant: str) -> dict[str, float]:
            return _drained(bench, contestant, databases[variant], jobs)

        cases = [Case(contestant, variant) for variant in databases]
        # One round of a rival tells a factor of ten; nobody's bar is nearer.
        rounds = None if contestant.name == "jobd" else 1
        bench.rounds("backlog", cases, lambda case: measure(case.variant), rounds=rounds)
        if contestant.name == "jobd":
            bench.walk(
                "backlog",
                lambda: measure(WITH)["drain_per_second"],
                lambda: measure(WITHOUT)["drain_per_second"],
            )
    finally:
        for database in databases.values():
            bench.postgres.drop(database)


def _drained(bench: Bench, contestant: Contestant, database: str, jobs: int) -> dict[str, float]:
    with bench.open(contestant, database=database) as store:
        contestant.run("enqueue", jobs, url=store.url)
        store.settle()
        drained = drain(bench, contestant, store, jobs)
    if drained is None:
        raise Failed(f"{jobs} jobs were done before the first look: give it more")
    return {"jobs": drained.jobs, **drained.as_metrics()}
