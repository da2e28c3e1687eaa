"""A virtual environment per contestant, made once: exact pins, from the package index pip is set to.

    <cache>/venvs/<name>-<hash of pins and Python>/

The hash makes a changed pin a new environment; old ones stay until the cache is deleted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Missing(Exception):
    """Something that has to be installed first; the message says what to run.

    `details` are for the terminal and not for the report.
    """

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def interpreter(version: str) -> Path:
    """A Python of that version (`3.13`) on this machine: on the PATH, of uv, or of pyenv.

    Raises Missing.
    """
    done = _run("uv", "python", "find", "--no-project", version)
    if done.returncode == 0:
        return Path(done.stdout.strip())
    # pyenv's shims are on the PATH but refuse unless the version was made global.
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(versions.glob(f"{version}.*/bin/python{version}"))
    if not found:
        raise Missing(f"no Python {version}: run `uv python install {version}` or `pyenv install {version}`")
    return found[-1]


def rival(name: str, *, pins: Sequence[str], python: str, cache: Path) -> Path:
    """The interpreter of an environment with exactly `pins` and what they need."""
    mark = hashlib.sha256("\n".join([python, *pins]).encode()).hexdigest()[:10]
    return _made(
        cache / "venvs" / f"{name}-{mark}",
        python,
        lambda half: ("uv", "pip", "install", "--python", str(half / "bin" / "python"), *pins),
    )


def ours(python: str, cache: Path) -> Path:
    """The interpreter of an environment for this tree, locked as uv.lock says, on another Python."""
    mark = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()[:10]
    return _made(
        cache / "venvs" / f"jobd-{python}-{mark}",
        python,
        lambda half: (
            "uv",
            "sync",
            "--locked",
            "--no-dev",
            "--active",
            "--python",
            str(half / "bin" / "python"),
        ),
    )


def _made(folder: Path, python: str, install: object) -> Path:
    assert callable(install)
    executable = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for command in (
            ("uv", "venv", "--python", str(interpreter(python)), str(folder)),
            install(folder),
        ):
            ran = _run(*command, VIRTUAL_ENV=str(folder))
            if ran.returncode != 0:
                said = ran.stderr.strip()
                failed = f"its environment could not be made: `{command[0]} {command[1]}` failed"
                raise Missing(failed, details=said[-2000:])
        done.touch()
    return executable


def version(executable: Path) -> str:
    """The version of an interpreter (`3.13.1`). Raises Missing where it does not run."""
    ran = _run(str(executable), "-c", "import platform; print(platform.python_version())")
    if ran.returncode != 0:
        raise Missing("its interpreter does not run: delete --cache and run again", details=ran.stderr)
    return ran.stdout.strip()


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise Missing(f"{command[0]} is not installed: run `pip install uv`")
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
