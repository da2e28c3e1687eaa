"""The table of bad inputs in docs/errors.md, as the tests read it.

A row is `| `its-id` | input | what happens | what to do |`. Code in the third cell is checked: its first
word is what comes (an error's class, `exit 2`, a state), what follows has to stand in the text that was
seen, where `…` means anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

_ROW = re.compile(r"^\| `([a-z0-9-]+)` \|(.*)\|(.*)\|(.*)\|$", re.MULTILINE)
_CODE = re.compile(r"(`+)(.+?)\1(?!`)")


@dataclass(frozen=True)
class Row:
    """One bad input, what comes of it, and the texts that are promised."""

    id: str
    outcome: str
    texts: tuple[str, ...]

    def check(self, outcome: str, text: str, *names: str) -> None:
        """What was seen is what the page says, and names what an operator needs."""
        seen = f"{text[:2_000]!r}"
        assert outcome == self.outcome, f"{self.id}: {outcome}: {seen}"
        for promised in self.texts:
            pattern = ".*".join(re.escape(part) for part in promised.split("…"))
            assert re.search(pattern, text, re.DOTALL), f"{self.id}: no {promised!r} in {seen}"
        for name in names:
            assert name in text, f"{self.id}: {seen} does not name {name!r}"


def read_rows() -> dict[str, Row]:
    """The rows of the page by id. An id that stands there twice is an error of the page."""
    rows = {}
    for id, _, happens, _ in _ROW.findall(PAGE.read_text(encoding="utf-8")):
        outcome, *texts = (code[1].strip() for code in _CODE.findall(happens))
        assert id not in rows, f"docs/errors.md has two rows {id}"
        rows[id] = Row(id, outcome, tuple(texts))
    return rows


def shown_in(module: ModuleType) -> list[str]:
    """The ids of the rows that the tests of a module show: the values of their parameter `row`."""
    found = []
    for name, function in vars(module).items():
        for mark in getattr(function, "pytestmark", ()) if name.startswith("test_") else ():
            if mark.name == "parametrize" and mark.args[0].split(",")[0] == "row":
                found += [value[0] if isinstance(value, tuple) else value for value in mark.args[1]]
    return found
