"""A contestant: a program of contestants/ and the interpreter that runs it.

What it needs is read from its source and not by importing it, since its library lives elsewhere.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.venvs import ROOT

FOLDER = ROOT / "benchmarks" / "contestants"
SUPPORT = ("__init__", "program", "jobd_handlers")
OWN = ("jobd", "bare", "bare_fused")
# A verb that takes longer than this hangs.
VERB_SECONDS = 900


class Unsupported(Exception):
    """The contestant has no such verb: the table says "-"."""


class Failed(Exception):
    """A contestant's program ended with an error, or did not get on.

    `details` are the last lines it wrote, for the terminal and not for the report.
    """

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class Declared:
    """What a contestant's source says of it."""

    title: str
    pins: tuple[str, ...]
    python: str | None
    store: str


def declared(source: str) -> Declared:
    """Read the docstring's first line, PINS, PYTHON and STORE. ValueError where STORE is missing."""
    tree = ast.parse(source)
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("PINS", "PYTHON", "STORE"):
                values[name] = ast.literal_eval(node.value)
    if values.get("STORE") not in ("postgresql", "redis"):
        raise ValueError('a contestant declares STORE = "postgresql" or "redis"')
    title = (ast.get_docstring(tree) or "").partition("\n")[0]
    return Declared(
        title=title,
        pins=tuple(values.get("PINS", ())),
        python=values.get("PYTHON"),
        store=values["STORE"],
    )


def names() -> list[str]:
    """Every contestant there is: ours first, then the rivals by name."""
    rivals = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in (*SUPPORT, *OWN))
    return [*OWN, *rivals]


def stores() -> dict[str, str]:
    """Where each of them keeps its jobs, whoever is measured: what a bar over all of them is about."""
    return {name: declared((FOLDER / f"{name}.py").read_text()).store for name in names()}


@dataclass(frozen=True, eq=False)
class Contestant:
    """Runs the verbs of one program against one store."""

    name: str
    about: Declared
    interpreter: Path
    python: str  # its version
    # The tree that it is run from; one of another commit has a name for it.
    root: Path = ROOT
    edition: str = ""

    @property
    def durable(self) -> bool:
        return self.about.store == "postgresql"

    def run(self, verb: str, *arguments: object, url: str, **environment: str) -> dict[str, Any]:
        """Run a verb to its end. Raises Unsupported, or Failed with the last lines it wrote."""
        with tempfile.TemporaryFile("w+") as errors:
            try:
                done = subprocess.run(
                    self._command(verb, *arguments),
                    check=False,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    cwd=self.root,
                    env=self._environment(url, environment),
                    timeout=VERB_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise Failed(f"{self.name} {verb}: no end after {VERB_SECONDS} s") from None
            return self._answer(verb, done.returncode, done.stdout, errors)

    def start(self, verb: str, *arguments: object, url: str, **environment: str) -> Running:
        """Start a verb, usually `work` or a `produce` beside other things."""
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - Running reads it
        process = subprocess.Popen(
            self._command(verb, *arguments),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=self.root,
            env=self._environment(url, environment),
            start_new_session=True,  # by which kill() finds what it started
        )
        return Running(self, verb, process, errors)

    def _command(self, verb: str, *arguments: object) -> list[str]:
        program = str(self.root / FOLDER.relative_to(ROOT) / "program.py")
        return [str(self.interpreter), "-P", program, self.name, verb, *map(str, arguments)]

    def _environment(self, url: str, more: Mapping[str, str]) -> dict[str, str]:
        # Without settings of whoever runs the benchmark: defaults are what is measured.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JOBD_", "PG", "PYTHON", "VIRTUAL_ENV"))
        }
        return {**kept, "BENCH_URL": url, **more}

    def _answer(self, verb: str, code: int, output: str, errors: Any) -> dict[str, Any]:
        errors.seek(0)
        said = errors.read().strip().splitlines()
        if code == 2:
            raise Unsupported(said[-1] if said else f"{self.name} has no {verb}")
        if code != 0:
            last = said[-1] if said else "nothing was said"
            raise Failed(f"{self.name} {verb} ended with code {code}: {last}", details="\n".join(said[-20:]))
        lines = output.strip().splitlines()
        try:
            answer = json.loads(lines[-1])
        except (IndexError, ValueError):
            raise Failed(f"{self.name} {verb} printed no JSON: {output[-200:]!r}") from None
        return dict(answer)


@dataclass
class Running:
    """A verb that runs beside the harness."""

    contestant: Contestant
    verb: str
    process: subprocess.Popen[str]
    errors: Any

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        """Raise Failed if it ended by itself."""
        if (code := self.process.poll()) is not None:
            self.contestant._answer(self.verb, code or 1, "", self.errors)

    def stop(self, *, seconds: float = 60) -> dict[str, Any]:
        """SIGTERM, and what it says then; killed after `seconds`, which is Failed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds=seconds)

    def wait(self, *, seconds: float = VERB_SECONDS) -> dict[str, Any]:
        """Wait for its own end."""
        try:
            output, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{self.contestant.name} {self.verb}: did not end within {seconds:.0f} s") from None
        return self.contestant._answer(self.verb, self.process.returncode, output, self.errors)

    def kill(self) -> None:
        """End it and whatever it started, in process groups of their own too; for the way out of an error."""
        while left := machine.session(self.pid):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process.wait()
