"""`jobd run --reload`: a daemon as a child process, restarted when the application's files change.

The parent only watches; it imports nothing of the application, so that each child starts afresh, also after
one that did not even start. By polling: trees of source files are small, and it works on every
file system that a container mounts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobd.cli.output import note

INTERVAL_SECONDS = 0.5
WATCHED_NAMES = frozenset({"jobd.toml"})
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})

Snapshot = dict[str, int]


def snapshot(folder: Path) -> Snapshot:
    """When each file that matters below `folder` was last written, by path."""
    return dict(_files(folder))


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for where, folders, names in os.walk(folder):
        # Hidden folders and virtual environments change without the application changing.
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED_FOLDERS
            and not os.path.exists(os.path.join(where, name, "pyvenv.cfg"))
        ]
        for name in names:
            if name.endswith(".py") or name in WATCHED_NAMES:
                path = os.path.join(where, name)
                try:
                    yield path, os.stat(path).st_mtime_ns
                except OSError:
                    continue  # removed between the listing and the look


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """The paths that are new, gone or written since."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def run_reloading(arguments: Sequence[str] | None = None, *, interval: float = INTERVAL_SECONDS) -> int:
    """Run `jobd` with these arguments again after every change, until told to stop; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    command = [sys.executable, "-m", "jobd", *(word for word in given if word != "--reload")]
    folder = Path.cwd()
    child = _Child(command)
    with child.hearing_signals():
        while not child.stopped:
            seen = snapshot(folder)
            child.start()
            if files := child.until(lambda: changed(seen, snapshot(folder)), interval=interval):  # noqa: B023
                names = ", ".join(os.path.relpath(path, folder) for path in files[:3])
                note(f"changed: {names}{' and others' if len(files) > 3 else ''}; restarting")
                child.end()
        return child.code()


class _Child:
    """The daemon as it is now, and whether somebody asked for its end."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self.stopped = False
        self._owed = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = None
        process = subprocess.Popen(self.command)
        self._process = process
        if self._owed:  # a signal came while there was nobody to pass it on to
            process.terminate()

    def until(self, condition: Callable[[], list[str]], *, interval: float) -> list[str]:
        """What `condition` says as soon as it says something; nothing when the end was asked for first."""
        assert self._process is not None
        told = False
        while not self.stopped:
            time.sleep(interval)
            if found := condition():
                return found
            if not told and (code := self._process.poll()) is not None and not self.stopped:
                note(f"the daemon ended with exit code {code}: waiting for a change")
                told = True
        return []

    def end(self) -> None:
        """Stop it and wait, as long as it gives its handlers."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def code(self) -> int:
        """Its exit code, as a shell has it, when it has ended."""
        code = self._process.wait() if self._process is not None else 0
        return 128 - code if code < 0 else code

    @contextmanager
    def hearing_signals(self) -> Iterator[None]:
        """Pass SIGTERM and SIGINT on as long as the block lasts."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._pass_on) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, frame: object) -> None:
        self.stopped = True
        if number == signal.SIGINT and sys.stdin.isatty():
            return  # Ctrl-C reaches every process of the terminal; a second signal would cut the grace
        if self._process is None:
            self._owed = True
        elif self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
