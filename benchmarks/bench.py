"""What a workload works with: the servers, the contestants, a fresh store, and the order of measuring.

    rounds   forth and back: a b c, c b a, a b c ...     every contestant, `--rounds` times
    walk     A B B A A B B A ...                         two cases of a close bar, ten pairs

A contestant that fails is noted, left out of the rest of that workload and tried again in the next.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import venvs
from benchmarks.contestant import FOLDER, OWN, Contestant, Failed, Running, Unsupported, declared
from benchmarks.options import QUICK_SECONDS, Options
from benchmarks.results import Results, Sample, Walk
from benchmarks.servers import Postgres, Redis
from benchmarks.store import PostgresStore, RedisStore
from benchmarks.wording import public


@dataclass(frozen=True)
class Case:
    """Who is measured, and in which setting."""

    contestant: Contestant
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.contestant.name} {self.variant}".strip()


@dataclass(frozen=True)
class Pilot:
    """What a contestant does in a second, roughly; infinite where it was over before the first look."""

    enqueue_per_second: float
    drain_per_second: float


class OutOfTime(Exception):
    """--quick has used its five minutes."""


class Bench:
    """The servers and contestants of one run: prepare() starts them, close() stops whatever runs by then."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.sizes = options.sizes
        self.results = Results()
        # What the pilots have told (workloads/drain.py).
        self.pilots: dict[str, Pilot] = {}
        self.contestants: list[Contestant] = []
        self._described: dict[str, dict[str, Any]] = {}
        self._installed: set[str] = set()
        self._started = time.monotonic()
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None

    def prepare(self) -> None:
        """Make the environments and start the servers that they need.

        A contestant whose environment or server cannot be had is left out, with a note. Raises ConfigError
        when PostgreSQL does not start.
        """
        self.postgres  # noqa: B018 - without it there is nothing to measure
        self.contestants = [made for name in self.options.contestants if (made := self._made(name))]
        # Making environments is not part of the five minutes.
        self._started = time.monotonic()

    def _made(self, name: str) -> Contestant | None:
        try:
            about = declared((FOLDER / f"{name}.py").read_text())
            if about.store == "redis":
                self.redis  # noqa: B018 - started now, so that it is missed now
            if name in OWN:
                python = self.options.python
                executable = venvs.ours(python, self.options.cache) if python else sys.executable
            else:
                assert about.python is not None
                self.say(f"{name}: {', '.join(about.pins)}")
                executable = venvs.rival(name, pins=about.pins, python=about.python, cache=self.options.cache)
            version = venvs.version(Path(executable))
        except (venvs.Missing, ValueError) as error:
            self.note(f"{name} left out: {error}", details=getattr(error, "details", ""))
            return None
        return Contestant(name, about, Path(executable), version)

    @property
    def contenders(self) -> list[Contestant]:
        """Whom a workload that is not about every rival measures: with --quick, only our own."""
        if not self.options.quick:
            return self.contestants
        return [each for each in self.contestants if each.name in OWN]

    @property
    def rivals(self) -> list[Contestant]:
        """The contenders that are not ours."""
        return [each for each in self.contenders if each.name not in OWN]

    @property
    def postgres(self) -> Postgres:
        if self._postgres is None:
            self._postgres = Postgres(self.options.cache / "postgres")
        return self._postgres

    @property
    def redis(self) -> Redis:
        if self._redis is None:
            self._redis = Redis(self.options.cache / "redis")
        return self._redis

    def get(self, name: str) -> Contestant | None:
        """A contestant of this run, by name."""
        return next((each for each in self.contestants if each.name == name), None)

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:6.0f} s  {text}", file=sys.stderr, flush=True)

    def note(self, text: str, *, details: str = "") -> None:
        """A line under the tables; `details`, and what tells of this machine, for the terminal alone."""
        self.say("\n".join(filter(None, (text, details))))
        if (told := public(text)) not in self.results.notes:
            self.results.notes.append(told)

    def check_time(self) -> None:
        """Raise OutOfTime when too little of the five minutes is left to begin something."""
        if self.options.quick and time.monotonic() - self._started > QUICK_SECONDS - 30:
            raise OutOfTime

    @contextmanager
    def store(
        self, contestant: Contestant, *, database: str = "bench"
    ) -> Iterator[PostgresStore | RedisStore]:
        """A fresh store, installed: in PostgreSQL a copy of what was installed once."""
        if contestant.about.store == "redis":
            self.redis.command("FLUSHALL")
            contestant.run("install", url=self.redis.url)
            yield RedisStore(self.redis, self._describe(contestant, self.redis.url))
            return
        template = f"bench_of_{contestant.name}{contestant.edition}"
        if template not in self._installed:
            contestant.run("install", url=self.postgres.fresh(template))
            self._installed.add(template)
        self.postgres.fresh(database, template=template)
        with self.open(contestant, database=database) as store:
            yield store

    def _describe(self, contestant: Contestant, url: str) -> dict[str, Any]:
        """Asked once: it is the same for every store."""
        name = f"{contestant.name}{contestant.edition}"
        if name not in self._described:
            self._described[name] = contestant.run("describe", url=url)
        return self._described[name]

    @contextmanager
    def open(self, contestant: Contestant, *, database: str) -> Iterator[PostgresStore]:
        """A database that is there already."""
        described = self._describe(contestant, self.postgres.url(database))
        store = PostgresStore(self.postgres, database, described)
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def working(
        self, contestant: Contestant, url: str, *, stamps: str = "", work_us: int = 0, arguments: str = ""
    ) -> Iterator[Running]:
        """A worker; stopped in order at the end, unless that happened inside, and killed after an error."""
        concurrency = self.options.concurrency
        worker = contestant.start(
            "work",
            *(() if concurrency is None else ("--concurrency", concurrency)),
            url=url,
            BENCH_STAMPS=stamps,
            BENCH_WORK_US=str(work_us),
            BENCH_JOBD_ARGUMENTS=arguments,
        )
        try:
            yield worker
            if worker.process.poll() is None:
                worker.stop()
        finally:
            worker.kill()

    def rounds(
        self,
        workload: str,
        cases: Sequence[Case],
        measure: Callable[[Case], Mapping[str, float]],
        *,
        rounds: int | None = None,
    ) -> None:
        """Measure every case in every round and keep the samples."""
        left_out: set[str] = set()
        for number in range(rounds or self.options.rounds):
            for case in cases if number % 2 == 0 else list(reversed(cases)):
                if str(case) in left_out:
                    continue
                self.check_time()
                try:
                    metrics = dict(measure(case))
                except Unsupported as error:
                    left_out.add(str(case))
                    self.note(f"{workload}, {case}: not supported ({error})")
                except Failed as error:
                    left_out.add(str(case))
                    self.note(f"{workload}, {case}: failed: {error}", details=error.details)
                else:
                    self.keep(workload, case, number + 1, metrics)

    def keep(self, workload: str, case: Case, number: int, metrics: Mapping[str, float]) -> None:
        """Add a sample to the results."""
        self.results.samples.append(
            Sample(workload, case.contestant.name, case.variant, number, dict(metrics))
        )
        self.say(f"{workload} {case}: " + ", ".join(f"{k} {v:,.4g}" for k, v in metrics.items()))

    def pairs(
        self,
        bar: str,
        workload: str,
        cases: tuple[Case, Case],
        measure: Callable[[Case], Mapping[str, float]],
        metric: str,
    ) -> None:
        """A walk of two cases of one workload whose measurements are its samples too.

        Without pairs, rounds instead: nothing is measured twice.
        """
        if not self.sizes.pairs:
            self.rounds(workload, cases, measure)
            return
        numbers = {case: itertools.count(1) for case in cases}

        def one(case: Case) -> float:
            metrics = measure(case)
            self.keep(workload, case, next(numbers[case]), metrics)
            return metrics[metric]

        self.walk(bar, lambda: one(cases[0]), lambda: one(cases[1]))

    def walk(self, bar: str, a: Callable[[], float], b: Callable[[], float]) -> None:
        """Measure A and B in ABBA order, as many pairs as the run's sizes say; none with --quick."""
        order: list[tuple[str, float]] = []
        try:
            for number in range(self.sizes.pairs):
                for letter in "AB" if number % 2 == 0 else "BA":
                    order.append((letter, (a if letter == "A" else b)()))
                self.say(f"{bar} pair {number + 1}: " + ", ".join(f"{x} {y:,.4g}" for x, y in order[-2:]))
        except (Failed, Unsupported) as error:
            self.note(f"{bar}: failed: {error}", details=getattr(error, "details", ""))
            order = order[: len(order) // 2 * 2]
        if order:
            self.results.walks.append(Walk(bar, tuple(order)))

    def servers(self) -> dict[str, dict[str, str]]:
        """The settings of those that run, for the report."""
        found = {"PostgreSQL": self.postgres.settings}
        return found | ({"Redis": self._redis.settings} if self._redis else {})

    def close(self) -> None:
        """Stop the servers, and delete their data unless --keep says otherwise."""
        with ExitStack() as ending:
            if not self.options.keep:
                ending.callback(self._forget)
            for server in (self._postgres, self._redis):
                if server is not None:
                    ending.callback(server.stop)

    def _forget(self) -> None:
        for name in ("postgres", "redis"):
            shutil.rmtree(self.options.cache / name, ignore_errors=True)
