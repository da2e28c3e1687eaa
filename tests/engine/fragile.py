"""Processes that die at a statement of theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from jobd.door import Database, Link, Record
from jobd.sql import Block

Fate = Literal["before", "after"] | None


class Killed(Exception):
    """The process is gone: what it meant to do next does not happen."""


class FragileLink(Link):
    """Dies before a statement is sent, or after it has committed and before the answer arrives."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.sent: list[str] = []
        self.fate: Callable[[str], Fate] = lambda _: None

    async def fetch(self, block: Block, *args: Any) -> list[Record]:
        self.sent.append(block.name)
        fate = self.fate(block.name)
        if fate == "before":
            self.drop()
            raise Killed(f"before {block.name}")
        rows = await super().fetch(block, *args)
        if fate == "after":
            self.drop()
            raise Killed(f"after {block.name}")
        return rows
