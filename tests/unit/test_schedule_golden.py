"""No schedule moves unnoticed: the golden file says when 200 of them fire."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.unit.schedule_golden import FIRES, compute, read

ENTRIES = read()


def name(entry: dict[str, Any]) -> str:
    return " ".join(str(value) for value in entry["schedule"].values())


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_it_fires_when_it_always_did(entry: dict[str, Any]):
    assert list(compute(entry)) == entry["fires"]


def test_there_are_200_and_nearly_all_have_20_fires():
    assert len(ENTRIES) == 200
    assert sum(len(entry["fires"]) == FIRES for entry in ENTRIES) >= 190
    assert all(entry["fires"] for entry in ENTRIES)


def test_croniter_is_pinned_and_the_pinned_one_is_here():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = [text for text in project["project"]["dependencies"] if text.startswith("croniter")]
    assert pinned == [f"croniter=={importlib.metadata.version('croniter')}"]
