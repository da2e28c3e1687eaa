"""The named blocks of SQL in the `.sql` files of this folder, loaded once.

A block starts with `-- name: verb (first, second, ...)`; the names are the parameters in `$n` order, and
the comment lines under it are its contract. The files of FUNCTIONS hold whole functions instead, for
`migrate`. No block is ever built from strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

HEADER = re.compile(r"^-- name: (\w+) \(([^)]*)\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One statement: what it is called, its parameters in `$n` order, and its text."""

    name: str
    parameters: tuple[str, ...]
    text: str


# The files of whole functions.
FUNCTIONS = (
    "functions",
    "functions_history",
    "functions_many",
    "functions_unique",
    "functions_keyed",
    "functions_admission",
    "functions_schedules",
    "functions_limits",
    "functions_quotas",
    "functions_declared",
)


def functions() -> str:
    """All functions of schema jobd."""
    return "\n".join(map(script, FUNCTIONS))


@cache
def script(name: str) -> str:
    """The whole text of `<name>.sql`."""
    return resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


@cache
def blocks(name: str) -> dict[str, Block]:
    """The blocks of `<name>.sql` by name, in the order of the file."""
    parts = HEADER.split(script(name))
    found: dict[str, Block] = {}
    for title, parameters, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        names = tuple(word.strip() for word in parameters.split(",") if word.strip())
        found[title] = Block(title, names, f"-- jobd: {title}\n{text.strip()}")
    return found
