"""`jobd demo` as a process of its own: reminders arrive, and nothing is left when it was told to end."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.signals import eventually


class Demo:
    """A running demo. Its temporary files are in a folder of their own; the name is short, for sockets."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jd-", dir="/tmp"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobd", "demo", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.folder)},
            # A process group of its own: Ctrl-C reaches everybody in it.
            start_new_session=True,
        )
        self.lines: list[str] = []

    def read_until(self, *patterns: str) -> str:
        """Wait until each of these was in some line from now on; return the last of the lines."""
        assert self.process.stdout is not None
        missing = set(patterns)
        for line in self.process.stdout:
            self.lines.append(line)
            missing = {pattern for pattern in missing if not re.search(pattern, line)}
            if not missing:
                return line
        raise AssertionError(f"no {missing} in:\n{''.join(self.lines)}{self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait()

    def left_behind(self) -> list[str]:
        """Its files, and the processes that mention its folder or are in its session."""
        return [*map(str, self.folder.rglob("*")), *self._processes()]

    def _processes(self) -> Iterator[str]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes()
                    session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                except OSError:
                    continue
                if str(self.folder).encode() in words or session == self.process.pid:
                    yield words.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def demo() -> Iterator[Callable[..., Demo]]:
    demos: list[Demo] = []

    def start(*options: str) -> Demo:
        demos.append(Demo(*options))
        return demos[-1]

    yield start
    for one in demos:
        one.close()


def test_reminder_mails_arrive_and_ctrl_c_leaves_nothing_behind(demo: Callable[..., Demo]):
    running = demo("--seconds-per-day", "1", "--http-port", "0")
    metrics = running.read_until("/metrics").split()[-1]
    ready = metrics.replace("/metrics", "/readyz")
    asyncio.run(eventually(lambda: httpx.get(ready).status_code, until=lambda code: code == 200))
    running.read_until(
        "mary.* Family dinner is tomorrow", "completed .* Family dinner", "purged .* Book club"
    )
    told = "".join(running.lines)
    for days in ("in 7 days", "in 3 days", "tomorrow"):
        assert f"ada@example.com got: Office party is {days}" in told
        assert f"mary@example.com got: Family dinner is {days}" in told
    assert "bob@example.com" not in told
    counted = httpx.get(metrics).text
    assert 'jobd_jobs_finished_total{kind="email"' in counted
    assert 'jobd_schedule_next_fire_timestamp_seconds{schedule="purge_old_exchanges"}' in counted
    running.press_ctrl_c()
    running.read_until("No process and no file is left")
    assert running.ended() == 0
    assert running.errors() == ""
    assert running.left_behind() == []


def test_ctrl_c_while_its_database_starts_leaves_nothing_behind(demo: Callable[..., Demo]):
    running = demo()
    running.read_until("Starting")
    running.press_ctrl_c()
    assert (running.ended(), running.errors()) == (0, "")
    assert running.left_behind() == []


def test_it_ends_when_nobody_reads_it_any_more(demo: Callable[..., Demo]):
    running = demo("--seconds-per-day", "1", "--http-port", "0")
    running.read_until("planned")
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert running.ended() == 0
    assert running.left_behind() == []


def test_it_takes_another_port_when_its_own_is_taken_and_says_so(demo: Callable[..., Demo]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = demo("--http-port", str(port)).read_until("/metrics")
    assert f"(port {port} is taken)" in line
    assert f"127.0.0.1:{port}/" not in line


def test_settings_of_the_user_do_not_reach_it(demo: Callable[..., Demo], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JOBD_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("JOBD_MIGRATE", "off")
    demo("--http-port", "0").read_until("planned")
