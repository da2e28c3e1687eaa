"""`python -m benchmarks`: run the workloads, write results/results.json, results.md and the charts."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

import psycopg

from benchmarks.bench import Bench, OutOfTime
from benchmarks.contestant import names, stores
from benchmarks.machine import description
from benchmarks.options import Options, parse
from benchmarks.report import markdown
from benchmarks.results import Results
from benchmarks.venvs import Missing
from benchmarks.verdicts import verdicts
from jobd.errors import ConfigError


def main() -> None:
    options = parse()
    # So that `timeout` and a service manager leave no server behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = run(options)
    except Missing as error:
        sys.exit(f"python -m benchmarks: {error}")
    table = write(results, options)
    if importlib.util.find_spec("matplotlib"):
        from benchmarks.charts import draw

        draw(results, options.results)
    else:
        print("no charts: run with `uv run --group bench`", file=sys.stderr)
    print(results.as_json() if options.print_json else table)


def write(results: Results, options: Options) -> str:
    """Write what there is by now; return the table."""
    table = markdown(results, [] if options.quick else verdicts(results))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "results.json").write_text(results.as_json() + "\n")
    (options.results / "results.md").write_text(table)
    return table


def run(options: Options) -> Results:
    """Every workload that was asked for, on servers that live as long as this call."""
    bench = Bench(options)
    started = time.time()
    before = _before(options)
    bench.results = before.without(options.workloads)
    first = before.environment
    try:
        _prepare(bench)
        bench.results.environment = {
            "run": _after(first, "run", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))),
            "command": _after(first, "command", " ".join(["python -m benchmarks", *options.told])),
            **description(),
            **bench.servers(),
            "rounds": options.rounds,
            "pairs": options.sizes.pairs,
            "growth finished": options.sizes.growth_finished,
            "contestants": first.get("contestants", {})
            | {each.name: " ".join(each.about.pins) or "this tree" for each in bench.contestants},
            "Python": first.get("Python", {}) | {each.name: each.python for each in bench.contestants},
            "stores": stores(),
            "left out": [name for name in names() if name not in options.contestants],
        }
        for workload in options.workloads:
            _one(bench, workload)
            write(bench.results, options)
    except OutOfTime:
        bench.note("--quick: five minutes are over, the rest was left out")
    except KeyboardInterrupt:
        bench.note("interrupted: the rest was left out")
    finally:
        bench.close()
    minutes = first.get("minutes", 0.0) + (time.time() - started) / 60
    bench.results.environment["minutes"] = round(minutes, 1)
    return bench.results


def _before(options: Options) -> Results:
    """What this run goes on with."""
    path = options.results / "results.json"
    return Results.from_json(path.read_text()) if options.join and path.exists() else Results()


def _after(first: Mapping[str, Any], name: str, value: str) -> str:
    """What is told of a run in parts: of each."""
    return f"{first[name]}; {value}" if name in first else value


def _prepare(bench: Bench) -> None:
    """Raises Missing, with what to do about it, where there is no server to measure on."""
    try:
        bench.prepare()
    except (ConfigError, OSError, psycopg.Error) as error:
        raise Missing(
            f"no server to measure on, and none was left behind: {error}\n"
            f"Is another run using {bench.options.cache}? Then wait for it, or give another --cache."
            " Else delete that folder and run again."
        ) from error


def _one(bench: Bench, workload: str) -> None:
    """A workload that breaks takes no other with it: hours of measuring stand behind it."""
    bench.check_time()
    try:
        importlib.import_module(f"benchmarks.workloads.{workload}").run(bench)
    except (OutOfTime, KeyboardInterrupt):
        raise
    except Exception as error:
        traceback.print_exc()
        bench.note(f"{workload}: broken: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
