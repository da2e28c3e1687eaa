"""The verb run as a process: until idle, embedded, reloading; and what starting `jobd` costs."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from jobd.cli.reload import changed, snapshot
from tests.daemon.daemons import DaemonProcess
from tests.edges.command import ROOT, jobd, jobd_process

APP = """
from jobd import Jobs

jobs = Jobs()

@jobs.handler("greet", queue="hello")
async def greet(name: str) -> str:
    return f"ANSWER {name}"
"""

Starts = Callable[..., Awaitable[DaemonProcess]]


@pytest.fixture
def app(folder: Path) -> Path:
    file = folder / "greeter.py"
    file.write_text(APP.replace("ANSWER", "hello"))
    return file


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[Starts]:
    """Start `jobd run` in the test's folder; it is killed at the end if it still runs."""
    started: list[DaemonProcess] = []

    async def start(*words: str, app: str | None = "greeter:jobs") -> DaemonProcess:
        application = ("--app", app) if app else ()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobd", "run", *application, "--http-port", "0", *words),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(DaemonProcess(process))
        return started[-1]

    yield start
    for process in started:
        process.terminate() if process.alive else None
        await process.ended()


def greeted(name: str) -> object:
    """What the daemon that runs makes of a job."""
    words = ("enqueue", "greet", f'{{"name": "{name}"}}', "--wait", "--timeout", "20s", "--json")
    return jobd(*words).json["result"]


async def test_run_until_idle_runs_what_is_there_and_ends(shell: str, app: Path, start: Starts) -> None:
    id = jobd("enqueue", "greet", '{"name": "you"}', "--app", "greeter:jobs").word
    daemon = await start("--until-idle")
    assert await daemon.ended() == 0
    assert '"hello you"' in jobd("show", id).out


async def test_run_without_an_application_says_that_it_has_no_handlers(shell: str, start: Starts) -> None:
    daemon = await start("--until-idle", app=None)
    assert await daemon.ended() == 0
    await daemon.logged("JOBD_APP is not set: this daemon has no handlers of yours; say --app module:jobs")


async def test_a_running_daemon_is_healthy_and_ends_with_0_when_told_to(
    shell: str, app: Path, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_APP", "greeter:jobs")
    daemon = await start()
    await daemon.logged("started")
    monkeypatch.setenv("JOBD_HTTP_PORT", daemon.address.rpartition(":")[2])
    assert greeted("you") == "hello you"
    assert jobd("health").word == "healthy"
    assert jobd("health", "--json").json["worker"] == daemon.worker
    assert jobd_process("health").stdout == "healthy\n"
    (worker,) = jobd("workers", "--json").json
    assert (worker["alive"], worker["queues"]) == (True, ["default", "hello"])
    daemon.terminate()
    assert await daemon.ended() == 0
    assert jobd("health", code=1).out.startswith("unhealthy")


async def test_run_serves_only_the_queues_and_roles_that_are_asked_for(
    shell: str, app: Path, start: Starts
) -> None:
    daemon = await start("--queue", "hello", "--queue", "bye", "--only", "worker", "--concurrency", "3")
    line = await daemon.logged("started")
    assert (line["queues"], line["roles"], line["concurrency"]) == (["hello", "bye"], ["worker"], 3)


async def test_run_without_a_database_uses_an_embedded_one_says_so_and_stops_it(
    folder: Path, app: Path, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_APP", "greeter:jobs")
    daemon = await start()
    await daemon.logged("using the embedded PostgreSQL in .jobd/")
    line = await daemon.logged("export JOBD_DATABASE_URL=")
    await daemon.logged("started")
    # What it printed is for a shell, and leads there from anywhere.
    (word,) = shlex.split(line["event"].rpartition("export JOBD_DATABASE_URL=")[2])
    assert jobd("list", "--database-url", word).err == "no jobs\n"
    # Other verbs join the same server, and leave it running.
    assert greeted("you") == "hello you"
    assert (folder / ".jobd" / "data" / "postmaster.pid").exists()
    daemon.terminate()
    assert await daemon.ended() == 0
    assert not (folder / ".jobd" / "data" / "postmaster.pid").exists()


async def test_several_processes_share_one_embedded_database_which_ends_after_them(
    folder: Path, app: Path, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_APP", "greeter:jobs")
    daemon = await start("--processes", "2")
    await daemon.logged("process started", times=2, timeout=30)
    assert greeted("you") == "hello you"
    daemon.terminate()
    assert await daemon.ended() == 0
    assert daemon.output.count("using the embedded PostgreSQL in .jobd/") == 1
    assert daemon.output.count("export JOBD_DATABASE_URL=") == 1
    assert "could not resign" not in daemon.output
    assert not (folder / ".jobd" / "data" / "postmaster.pid").exists()


async def test_several_processes_are_reloaded_together(
    shell: str, app: Path, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_APP", "greeter:jobs")
    daemon = await start("--reload", "--processes", "2")
    await daemon.logged("process started", times=2)
    app.write_text(APP.replace("ANSWER", "good morning"))
    await daemon.logged("process started", times=4)
    assert greeted("you") == "good morning you"
    daemon.terminate()
    assert await daemon.ended() == 0


def test_a_file_of_the_application_may_be_called_jobd(shell: str, folder: Path) -> None:
    (folder / "jobd.py").write_text("raise SystemExit('this is not the daemon')")
    done = subprocess.run(
        [Path(sys.executable).with_name("jobd"), *("run", "--processes", "2", "--until-idle")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JOBD_HTTP_PORT": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr


async def test_run_reloading_goes_on_with_the_changed_application(
    shell: str, app: Path, start: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_APP", "greeter:jobs")
    daemon = await start("--reload")
    await daemon.logged("started")
    assert greeted("you") == "hello you"
    app.write_text("def broken(:\n")
    await daemon.logged("changed: greeter.py; restarting")
    await daemon.logged("the daemon ended with exit code 2: waiting for a change")
    app.write_text(APP.replace("ANSWER", "good morning"))
    await daemon.logged("started", times=2)
    assert greeted("you") == "good morning you"
    daemon.terminate()
    assert await daemon.ended() == 0


def test_reload_watches_sources_and_settings_but_no_hidden_or_virtual_folders(folder: Path) -> None:
    for name in ("shop/jobs.py", "jobd.toml", ".git/hook.py", "env/pyvenv.cfg", "env/lib.py", "data.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    before = snapshot(folder)
    assert sorted(os.path.relpath(path, folder) for path in before) == ["jobd.toml", "shop/jobs.py"]
    (folder / "shop/jobs.py").unlink()
    (folder / "shop/mail.py").write_text("")
    names = [os.path.relpath(path, folder) for path in changed(before, snapshot(folder))]
    assert names == ["shop/jobs.py", "shop/mail.py"]


def modules_imported_by(*words: str) -> set[str]:
    """Top-level packages that are imported when these words are typed."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "jobd", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}


def test_help_imports_nothing_heavy() -> None:
    imported = modules_imported_by("--help")
    assert "typer" in imported
    assert not imported & {"asyncio", "asyncpg", "pydantic", "rich", "structlog", "fastapi", "uvicorn"}


def test_the_health_check_of_a_container_imports_no_package_at_all() -> None:
    assert not modules_imported_by("health") & {"typer", "asyncio", "pydantic", "http", "ssl"}


def test_every_verb_has_help_with_an_example() -> None:
    listed = jobd("--help").out
    for verb in (
        *("run", "demo", "migrate", "enqueue", "list", "show", "cancel", "retry", "reschedule", "delete"),
        *("workers", "check", "health", "queues list", "queues pause", "queues resume"),
    ):
        out = jobd(*verb.split(), "--help").out
        assert out.startswith(f"Usage: jobd {verb}")
        assert f"jobd {verb}" in out.partition("Example")[2]
        assert verb.partition(" ")[0] in listed


def test_the_shell_completes_verbs_and_states(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_JOBD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "jobd que")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert jobd_process(check=False).stdout.split() == ["queues"]
    monkeypatch.setenv("COMP_WORDS", "jobd list --state s")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert jobd_process(check=False).stdout.split() == ["scheduled", "succeeded"]


def test_completion_can_be_shown_for_bash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_JOBD_COMPLETE", "source_bash")
    assert "complete -o default -F _jobd_completion jobd" in jobd_process().stdout


def test_ctrl_c_ends_a_waiting_verb_at_once(shell: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "jobd", "enqueue", "tidy", "--wait"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
