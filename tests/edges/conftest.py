"""Fixtures of the tests that type commands.

folder    an empty current folder, without any JOBD_ variable; modules imported from it are forgotten
shell     the same, with JOBD_DATABASE_URL set to a fresh migrated database; its value is that URL
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in list(os.environ):
        if name.startswith("JOBD_") and not name.startswith("JOBD_TEST_"):
            monkeypatch.delenv(name)
    # Tests themselves often run in a container.
    monkeypatch.setenv("JOBD_IN_CONTAINER", "0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    # Applications that verbs imported from here: the next test has others by the same names.
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def shell(folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("JOBD_DATABASE_URL", database_url)
    return database_url
