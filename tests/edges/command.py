"""The command `jobd` as a user of a shell has it: words in, text and an exit code out."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from typer.testing import CliRunner

from jobd.cli.verbs import app
from jobd.door import Database, Link

ROOT = Path(__file__).parents[2]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def word(self) -> str:
        """The only line of a verb that prints one, such as the id of an enqueue."""
        (line,) = self.out.splitlines()
        return line


def jobd(*words: object, stdin: str | bytes = "", code: int = 0) -> Answer:
    """Run a verb in this process, in the test's folder and environment; it must end with `code`."""
    # On a thread of its own: pytest-asyncio's loop belongs to the tests.
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(CliRunner().invoke, app, [str(word) for word in words], input=stdin).result()
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    answer = Answer(result.exit_code, result.stdout, result.stderr)
    assert answer.code == code, answer
    return answer


def jobd_process(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a verb as a process of its own, for what only a whole process shows."""
    return subprocess.run(
        [sys.executable, "-m", "jobd", *(str(word) for word in words)],
        capture_output=True,
        text=True,
        check=check,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def in_database(url: str, work: Callable[[Link], Awaitable[T]]) -> T:
    """Let `work` do something to a database, from a test that has no loop."""

    async def connected() -> T:
        link = Link(Database(url))
        try:
            return await work(link)
        finally:
            await link.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, connected()).result()
