"""What waking workers costs ten producers that commit single enqueues, by pgbench.

    shipped  the statement with which jobd's client enqueues a job
    silent   the insert in it and nothing else: neither the look for sleepers nor the notification

    load   one worker that is busy all the time (1 ms of CPU a job), so that nobody needs to be woken
    idle   one worker with nothing else to do, which falls asleep whenever it has caught up

And once for everybody, by the library's own client: ten at a time from two processes, beside a worker.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Case
from benchmarks.contestant import Contestant, Failed
from benchmarks.store import PostgresStore, until_completed, until_done
from jobd.sql import blocks

PRODUCERS = 10
CLIENTS = "two clients"
BUSY_US = 1_000
BUSY_JOBS = 2_000
# The values of a plain job, in place of the statement's parameters.
VALUES = {
    "kind": "'noop'",
    "payload": """'{"n": 1}'""",
    "queue": "'default'",
    "priority": "0",
    "deadline_policy": "'run'",
    "id": "jobd.uuid7()",
}
INSERT = re.compile(r"with made as \((.*?)\n\)\n", re.DOTALL)


def run(bench: Bench) -> None:
    if jobd := bench.get("jobd"):
        for where in ("load", "idle"):
            cases = (Case(jobd, f"{where}, as shipped"), Case(jobd, f"{where}, silent"))
            measure = partial(_silenced, bench, jobd, where, cases[1])
            bench.pairs(f"producers {where}", "producers", cases, measure, "enqueued_per_second")
    clients = [Case(each, CLIENTS) for each in bench.contenders if not each.name.startswith("bare")]
    bench.rounds("producers", clients, lambda case: _clients(bench, case.contestant), rounds=1)


def _clients(bench: Bench, contestant: Contestant) -> dict[str, float]:
    """Every library's own single enqueues, while a worker takes them."""
    flags = ("--seconds", bench.sizes.producers_seconds, "--tasks", PRODUCERS // 2)
    with ExitStack() as ending:
        store = ending.enter_context(bench.store(contestant))
        worker = ending.enter_context(bench.working(contestant, store.url))
        # The worker is there once it has done something.
        contestant.run("produce", "--seconds", 0.5, "--tasks", 1, "--rate", 10, url=store.url)
        if until_done(store, worker, seconds=60) is None:
            raise Failed("a job of the warm-up was not done within 60 s")
        producers = [contestant.start("produce", *flags, url=store.url) for _ in range(2)]
        for each in producers:
            ending.callback(each.kill)
        answers = [each.wait(seconds=60 + bench.sizes.producers_seconds) for each in producers]
        worker.stop()
    return {"enqueued_per_second": sum(answer["jobs"] / answer["seconds"] for answer in answers)}


def _silenced(bench: Bench, jobd: Contestant, where: str, silent: Case, case: Case) -> dict[str, float]:
    return _measure(bench, jobd, where, wakes=case != silent)


def _measure(bench: Bench, jobd: Contestant, where: str, *, wakes: bool) -> dict[str, float]:
    with bench.store(jobd) as store:
        assert isinstance(store, PostgresStore)
        busy = where == "load"
        jobd.run("enqueue", BUSY_JOBS if busy else 1, url=store.url)
        with bench.working(jobd, store.url, work_us=BUSY_US if busy else 0) as worker:
            until_completed(store, 0, worker)
            said = _pgbench(bench, store.database, enqueue(wakes=wakes))
            worker.stop()
    found = re.search(r"tps = ([\d.]+)", said)
    if found is None:
        raise Failed(f"pgbench: {said[-300:]}")
    return {"enqueued_per_second": float(found[1])}


def enqueue(*, wakes: bool) -> str:
    """The statement of one enqueue, with or without all that wakes workers."""
    block = blocks("entry")["enqueue_new"]
    text = block.text
    for place, name in reversed([*enumerate(block.parameters, 1)]):
        text = text.replace(f"${place}::", f"{VALUES.get(name, 'null')}::")
    if not wakes:
        found = INSERT.search(text)
        if found is None:
            raise Failed("enqueue_new is not an insert and a look for sleepers any more: what to silence?")
        text = found[1]
    return re.sub(r"--.*", "", text) + ";\n"


def _pgbench(bench: Bench, database: str, text: str) -> str:
    with tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder:
        script = Path(folder) / "enqueue.sql"
        script.write_text(text)
        Path(folder).chmod(0o755)
        return bench.postgres.pgbench(
            *("-n", "-M", "prepared", "-c", str(PRODUCERS), "-j", "2", "-f", str(script)),
            *("-T", str(int(bench.sizes.producers_seconds)), database),
        )
