"""What contestants declare, and the program that all of them share."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.contestant import FOLDER, OWN, Contestant, Running, declared, names
from benchmarks.contestants.program import Load

PROGRAM = FOLDER / "program.py"


@pytest.mark.parametrize("name", names())
def test_every_contestant_declares_what_the_harness_needs(name: str):
    about = declared((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    assert about.title
    if name not in OWN:
        assert about.python in ("3.11", "3.12", "3.13")
        assert about.pins and all("==" in pin for pin in about.pins)


def test_a_contestant_without_a_store_is_refused():
    with pytest.raises(ValueError, match="STORE"):
        declared('"""A system."""\nPINS = ["x==1"]\n')


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A contestant of the test's own, beside a copy of the shared program."""
    (folder / "program.py").write_text(PROGRAM.read_text(encoding="utf-8"))
    (folder / "json_system.py").write_text(
        "from program import Load, Unsupported, program\n"
        "def past(count):\n    raise Unsupported('keeps no finished jobs')\n"
        "def enqueue(count):\n    print('noise')\n    return 0.5\n"
        "async def produce(load):\n    async def send(kind, value): pass\n    return await load.run(send)\n"
        "program(enqueue=enqueue, produce=produce, past=past)\n"
    )
    command = [sys.executable, "-P", str(folder / "program.py"), "json_system", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_verb_prints_one_line_of_json_and_nothing_else(tmp_path: Path):
    done = run(tmp_path, "enqueue", "7")
    assert json.loads(done.stdout) == {"jobs": 7, "seconds": 0.5}
    assert done.stderr == "noise\n"


@pytest.mark.parametrize("verb", ["past", "future"])
def test_a_verb_that_is_not_supported_ends_with_code_2(tmp_path: Path, verb: str):
    done = run(tmp_path, verb, "7")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_a_coroutine_function_is_run(tmp_path: Path):
    done = run(tmp_path, "produce", "--seconds", "0.05", "--tasks", "2")
    assert json.loads(done.stdout)["jobs"] > 0


def test_the_end_of_a_load_is_told_before_the_program_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BENCH_ENDED", str(tmp_path / "ended"))
    before = time.time()
    done = run(tmp_path, "produce", "--seconds", "0.05", "--tasks", "2")
    told = json.loads((tmp_path / "ended").read_text())
    assert before + 0.05 <= told.pop("at") <= time.time()
    assert told == json.loads(done.stdout)


def test_kill_ends_process_groups_that_outlived_their_parent(tmp_path: Path):
    child = "import time; print('up', flush=True); time.sleep(600)"
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], process_group=0,"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    process.wait(timeout=30)
    assert len(machine.session(process.pid)) == 1
    about = declared((FOLDER / "jobd.py").read_text(encoding="utf-8"))
    contestant = Contestant("jobd", about, Path(sys.executable), "3")
    with (tmp_path / "errors").open("w+") as errors:
        Running(contestant, "work", process, errors).kill()
    assert machine.session(process.pid) == []


async def test_a_load_with_a_rate_sends_that_many():
    sent: list[int] = []

    async def send(kind: str, value: int) -> None:
        sent.append(value)

    counted = await Load(seconds=0.2, tasks=4, rate=200, kind="noop").run(send)
    assert 0 < len(sent) <= 40
    assert counted["jobs"] == len(sent)


async def test_a_stamp_is_taken_right_before_the_call():
    async def send(kind: str, value: int) -> None:
        assert kind == "stamp"
        assert 0 <= time.monotonic_ns() - value < 10_000_000_000
        await asyncio.sleep(0)

    counted = await Load(seconds=0.02, tasks=2, rate=None, kind="stamp").run(send)
    assert counted["jobs"] > 0


def test_threads_share_a_load():
    sent: list[int] = []
    counted = Load(seconds=0.1, tasks=3, rate=300, kind="noop").run_threads(
        lambda kind, value: sent.append(value)
    )
    assert counted["jobs"] == len(sent) > 0
