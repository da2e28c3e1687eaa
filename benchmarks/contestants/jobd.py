"""jobd, as its users start it: `jobd run` with metrics and logging at their defaults.

Only the HTTP port is another, 0 for any free one. BENCH_JOBD_ARGUMENTS adds flags, for the workloads that
compare settings.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.contestants.program import URL, Load, on_signal, program

STORE = "postgresql"

os.environ["JOBD_DATABASE_URL"] = URL
# History is kept for 14 days, and a partition is a day. Yesterday may be within the last hours, which count.
PAST_DAYS = range(2, 14)
APP = "benchmarks.contestants.jobd_handlers:jobs"


async def install() -> None:
    from jobd.migrate import migrate

    await migrate(URL)


async def enqueue(count: int) -> dict[str, float]:
    from benchmarks.contestants.jobd_handlers import jobs

    async with jobs:
        before = _memory("VmRSS")
        start = time.perf_counter()
        await jobs.enqueue_many("noop", ({"n": number} for number in range(count)))
        seconds = time.perf_counter() - start
        return {"jobs": count, "seconds": seconds, "memory_bytes": max(0, _memory("VmHWM") - before)}


async def produce(load: Load) -> dict[str, float]:
    from benchmarks.contestants.jobd_handlers import jobs

    name = "sent" if load.kind == "stamp" else "n"
    async with jobs:
        return await load.run(lambda kind, value: jobs.enqueue(kind, {name: value}))


def work(concurrency: int | None) -> None:
    flags = shlex.split(os.environ.get("BENCH_JOBD_ARGUMENTS", ""))
    if concurrency is not None:
        flags += ["--concurrency", str(concurrency)]
    daemon = subprocess.Popen(
        [sys.executable, "-m", "jobd", "run", "--app", APP, "--http-port", "0", *flags],
        stdout=sys.stderr,
    )
    on_signal(lambda: daemon.send_signal(signal.SIGTERM))
    if code := daemon.wait():
        raise SystemExit(f"jobd run ended with code {code}")


def describe() -> dict[str, str]:
    return {
        # Each by its own index, the waiting ones from their end: what is done already is never read.
        "unfinished": "select case"
        " when exists (select from (select from jobd.jobs"
        "     where queue = 'default' and state = 'ready' and crashes = 0"
        "       and concurrency_key is null and use_case is null"
        "     order by priority, deadline_at desc, id desc limit 1) t) then 1"
        " when exists (select from (select from jobd.jobs"
        "     where queue = 'default' and state = 'ready'"
        "       and (concurrency_key is not null or use_case is not null)"
        "     order by priority, deadline_at desc, id desc limit 1) t) then 1"
        " when exists (select from jobd.jobs where state = 'running' and worker_id is not null) then 1"
        " when exists (select from jobd.jobs where state = 'scheduled' and run_at < now() + interval '1 day')"
        " then 1 else 0 end",
        # past() writes days that are over, so that counting looks into today's partition alone.
        "completed": "select count(*) from jobd.job_history where state = 'succeeded'"
        " and finished_at > now() - interval '12 hours'",
        "times": "select extract(epoch from finished_at)::float8 from jobd.job_history"
        " where finished_at > now() - interval '12 hours' order by 1",
    }


async def future(count: int) -> float:
    from benchmarks.contestants.jobd_handlers import jobs

    async with jobs:
        start = time.perf_counter()
        await jobs.enqueue_many("noop", ({"n": number} for number in range(count)), delay="365d")
        return time.perf_counter() - start


def past(count: int) -> float:
    """Copies of a row that a job left when it ran, spread over the days that the history keeps by default."""
    asyncio.run(_one_job())
    subprocess.run(
        [sys.executable, "-m", "jobd", "run", "--app", APP, "--http-port", "0", "--until-idle"],
        check=True,
        stdout=sys.stderr,
    )
    return asyncio.run(_copies(count))


async def _one_job() -> None:
    from benchmarks.contestants.jobd_handlers import jobs

    async with jobs:
        await jobs.enqueue("noop", {"n": 0})


async def _copies(count: int) -> float:
    import asyncpg

    connection = await asyncpg.connect(URL)
    start = time.perf_counter()
    columns = [
        str(row["attname"])
        for row in await connection.fetch(
            "select attname from pg_attribute where attrelid = 'jobd.job_history'::regclass"
            " and attnum > 0 and not attisdropped and attgenerated = '' order by attnum"
        )
    ]
    for number, days_ago in enumerate(PAST_DAYS):
        share = count // len(PAST_DAYS) + (number < count % len(PAST_DAYS))
        day = await connection.fetchval(f"select (now() at time zone 'UTC')::date - {days_ago}")
        partition = f"jobd.job_history_{day:%Y%m%d}"
        await connection.execute(
            f"create table if not exists {partition} partition of jobd.job_history"
            f" for values from ('{day} 00:00+00') to ('{day} 00:00+00'::timestamptz + interval '1 day')"
        )
        values = ", ".join(
            {
                "id": "jobd.uuid7()",
                "finished_at": f"'{day} 00:00+00'::timestamptz"
                f" + (n - 0.5) * interval '1 day' / {max(share, 1)}",
            }.get(column, f"h.{column}")
            for column in columns
        )
        await connection.execute(
            f"insert into {partition} ({', '.join(columns)}) select {values}"
            f" from generate_series(1, $1::int) n, (select * from jobd.job_history"
            " where finished_at > now() - interval '12 hours' limit 1) h",
            share,
            timeout=None,
        )
    await connection.execute("vacuum analyze jobd.job_history", timeout=None)
    await connection.close()
    return time.perf_counter() - start


def _memory(name: str) -> int:
    """A size of this process, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    program(
        install=install,
        enqueue=enqueue,
        produce=produce,
        work=work,
        describe=describe,
        future=future,
        past=past,
    )
