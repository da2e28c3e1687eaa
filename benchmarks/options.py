"""What one run of the benchmarks does: the command line, and the sizes of each workload."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import contestant
from benchmarks.venvs import ROOT

WORKLOADS = (
    *("drain", "latency", "steady", "producers", "backlog", "snapshot", "bulk", "processes", "growth"),
    "schedules",
    "limits",
    "fairness",
    "deadlines",
)
QUICK_SECONDS = 300


@dataclass(frozen=True)
class Sizes:
    """How much each workload does."""

    drain_jobs: int = 100_000
    # A contestant drains fewer jobs where those would take it longer.
    drain_seconds: float = 5
    latency_jobs: int = 150
    offered_rate: int = 1_000
    offered_seconds: float = 4
    steady_seconds: float = 6
    rival_steady_seconds: float = 3
    producers_seconds: float = 4
    backlog_jobs: int = 100_000
    backlog_scheduled: int = 1_000_000
    backlog_finished: int = 5_000_000
    snapshot_jobs: int = 200_000
    # Of backlog and snapshot a rival gets this part, and one in Redis what it enqueues in so many seconds.
    rival_share: int = 10
    rival_seconds: float = 5
    bulk_jobs: int = 1_000_000
    processes_jobs: int = 1_000
    fleet_jobs: int = 200_000
    growth_few: int = 1_000
    growth_many: int = 10_000_000
    growth_finished: int = 5_000_000
    schedules: int = 10_000
    schedules_at_once: int = 1_000
    schedules_idle_seconds: float = 30
    schedules_spread_seconds: float = 60
    limits_jobs: int = 100_000
    flood_jobs: int = 100_000
    zipf_jobs: int = 100_000
    idle_batches: int = 20
    deadlines_seconds: float = 5
    pairs: int = 10


QUICK = Sizes(
    drain_jobs=20_000,
    drain_seconds=3,
    latency_jobs=40,
    offered_seconds=3,
    steady_seconds=3,
    producers_seconds=2,
    backlog_jobs=20_000,
    backlog_scheduled=100_000,
    backlog_finished=200_000,
    snapshot_jobs=40_000,
    bulk_jobs=100_000,
    processes_jobs=200,
    fleet_jobs=20_000,
    growth_many=200_000,
    growth_finished=100_000,
    schedules=1_000,
    schedules_at_once=100,
    schedules_idle_seconds=5,
    schedules_spread_seconds=10,
    limits_jobs=20_000,
    flood_jobs=20_000,
    zipf_jobs=50_000,
    idle_batches=10,
    deadlines_seconds=2,
    pairs=0,
)


@dataclass(frozen=True)
class Options:
    """The command line, read."""

    sizes: Sizes
    workloads: tuple[str, ...]
    contestants: tuple[str, ...]
    rounds: int
    quick: bool
    concurrency: int | None
    python: str | None
    cache: Path
    results: Path
    print_json: bool
    keep: bool
    join: bool
    before: str | None
    told: tuple[str, ...]  # the command line, without folders of this machine


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line; ends the process with a message where it is wrong."""
    known = contestant.names()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure jobd beside other job systems and beside PostgreSQL itself;"
        " write a table, JSON and charts.",
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="five minutes, small sizes, one round, no verdicts; results go to quick/",
    )
    add("--full", action="store_true", help="growth with 50 million finished jobs")
    add("--only", metavar="A,B", help=f"these workloads: {','.join(WORKLOADS)}")
    add("--contestants", metavar="A,B", help=f"these contestants: {','.join(known)}")
    add("--rounds", type=int, metavar="N", help="rounds of each workload (3; 1 with --quick)")
    add("--pairs", type=int, metavar="N", help="ABBA pairs for close bars, even, at least 10 (10)")
    add("--jobs", type=int, metavar="N", help="jobs a drain (100,000; 20,000 with --quick)")
    add("--concurrency", type=int, metavar="N", help="of every worker; left out, each library's default")
    add("--python", metavar="X.Y", help="the Python that runs jobd and the bare statements (this one)")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder (%(default)s)")
    add("--cache", type=Path, default=ROOT / ".jobd" / "benchmarks", help="environments, servers' data")
    add(
        "--join",
        action="store_true",
        help="leave what the results' folder holds of other workloads as it is, for a run in parts",
    )
    add("--before", metavar="COMMIT", help="limits: compare with jobd as it was then, by the CPU of a job")
    add("--json", action="store_true", help="print the JSON instead of the table")
    add("--keep", action="store_true", help="leave the servers' data behind")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else Sizes()
    if given.full:
        sizes = replace(sizes, growth_finished=50_000_000)
    if given.jobs:
        sizes = replace(sizes, drain_jobs=given.jobs)
    if given.pairs is not None:
        if given.pairs % 2 or given.pairs < 0:
            parser.error(f"--pairs {given.pairs}: an even number, since ABBA is two pairs")
        sizes = replace(sizes, pairs=given.pairs)
    rounds = given.rounds or (1 if given.quick else 3)
    return Options(
        sizes=sizes,
        workloads=_chosen(parser, "--only", given.only, WORKLOADS),
        contestants=_chosen(parser, "--contestants", given.contestants, known),
        rounds=rounds,
        quick=given.quick,
        concurrency=given.concurrency,
        python=given.python,
        cache=given.cache.absolute(),
        results=(given.results / "quick" if given.quick else given.results).absolute(),
        print_json=given.json,
        keep=given.keep,
        join=given.join,
        before=given.before,
        told=_without_folders(sys.argv[1:] if arguments is None else arguments),
    )


def _without_folders(arguments: Sequence[str]) -> tuple[str, ...]:
    told = []
    words = iter(arguments)
    for word in words:
        if word in ("--results", "--cache"):
            next(words, None)
        elif not word.startswith(("--results=", "--cache=")):
            told.append(word)
    return tuple(told)


def _chosen(
    parser: argparse.ArgumentParser, flag: str, text: str | None, known: tuple[str, ...] | list[str]
) -> tuple[str, ...]:
    if text is None:
        return tuple(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{flag}: there is no {unknown[0]!r}; known are {', '.join(known)}")
    return tuple(name for name in known if name in names)
