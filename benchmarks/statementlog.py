"""PostgreSQL's log of a database with log_min_duration_statement = 0: what was run, and how long it took.

A client that prepares sends `parse` once and `bind` with `execute` together afterwards, so a round trip is
a parse, an execute or a simple statement. The log's line prefix is set in servers.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ENTRY = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d [\d:.]+ \w+)\|(?P<pid>\d+)\|(?P<database>[^|]*)\|(?P<application>[^|]*)\| "
    r"(?P<text>.*)$"
)
DURATION = re.compile(r"^LOG:\s+duration: (?P<ms>[\d.]+) ms\s+(?P<rest>.*)$", re.DOTALL)
STEP = re.compile(
    r"^(?:(?P<step>parse|bind|execute) (?:<unnamed>|[^:\s]+)|(?P<plain>statement)): (?P<sql>.*)$", re.DOTALL
)


@dataclass(frozen=True)
class Entry:
    """One step of one statement. Milliseconds."""

    step: str
    sql: str
    ms: float

    @property
    def is_round_trip(self) -> bool:
        return self.step != "bind"


def entries(lines: Iterable[str], *, database: str, without: str) -> list[Entry]:
    """The durations that sessions of `database` logged, but for those of application `without`."""
    found: list[Entry] = []
    for text in _records(lines, database, without):
        duration = DURATION.match(text)
        if duration and (step := STEP.match(duration["rest"])):
            found.append(
                Entry(step["step"] or "statement", " ".join(step["sql"].split()), float(duration["ms"]))
            )
    return found


def _records(lines: Iterable[str], database: str, without: str) -> Iterable[str]:
    record: list[str] | None = None
    for line in lines:
        head = ENTRY.match(line.rstrip("\n"))
        if head is None:
            if record is not None:
                record.append(line.rstrip("\n"))
            continue
        if record is not None:
            yield "\n".join(record)
        ours = head["database"] != database or head["application"] == without
        record = None if ours else [head["text"]]
    if record is not None:
        yield "\n".join(record)


def milliseconds_by_statement(found: Iterable[Entry]) -> dict[str, list[float]]:
    """Per statement the durations of its runs, planning (bind) included where it came right before."""
    runs: dict[str, list[float]] = defaultdict(list)
    bound: dict[str, float] = {}
    for entry in found:
        if entry.step == "bind":
            bound[entry.sql] = entry.ms
        elif entry.step != "parse":
            runs[entry.sql].append(entry.ms + bound.pop(entry.sql, 0.0))
    return dict(runs)


class StatementLog:
    """What the server logs from now on."""

    def __init__(self, path: Path, *, database: str, without: str) -> None:
        self._path = path
        self._database = database
        self._without = without
        self._offset = path.stat().st_size

    def read(self) -> list[Entry]:
        with self._path.open(errors="replace") as file:
            file.seek(self._offset)
            return entries(file, database=self._database, without=self._without)
