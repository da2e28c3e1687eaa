"""Fixtures of the tests that type commands.

folder    an empty current folder, without any JOBD_ variable
shell     the same, with JOBD_DATABASE_URL set to a fresh migrated database; its value is that URL
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("JOBD_") and not name.startswith("JOBD_TEST_"):
            monkeypatch.delenv(name)
    # Tests themselves often run in a container.
    monkeypatch.setenv("JOBD_IN_CONTAINER", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shell(folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("JOBD_DATABASE_URL", database_url)
    return database_url
