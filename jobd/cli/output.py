"""What verbs print: tables and fields for people, JSON for programs.

Kinds, payloads, errors and results were written by anybody: whatever could steer a terminal, reorder a
line or fake one is shown as an escape, never sent.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import typer

# Control characters, the marks that change the direction of text, invisible separators, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNSAFE_IN_LINES = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

STATE_STYLES = {
    "scheduled": "cyan",
    "ready": "blue",
    "running": "magenta",
    "succeeded": "green",
    "cancelled": "yellow",
    "dead": "red",
    "alive": "green",
    "stopping": "yellow",
    "lapsed": "red",
    "paused": "yellow",
}


def visible(text: str, *, lines: bool = False) -> str:
    """The text with everything that a terminal would act upon escaped; `lines` lets newlines and tabs be."""
    return (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _SHORT.get(found[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def json_text(value: Any) -> str:
    """Readable JSON: instants in ISO 8601, durations in seconds, nothing that a terminal acts upon."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, default=str)
    # Between the strings of indented JSON there is nothing unsafe but newlines, which are not matched here.
    return _UNSAFE_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(value: Any) -> None:
    """Print `json_text`."""
    typer.echo(json_text(value))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, UUID) else value


def local(instant: datetime | None) -> str:
    """An instant in the reader's own time zone, which it names; empty for None."""
    return "" if instant is None else instant.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def brief(instant: datetime | None, *, now: datetime | None = None) -> str:
    """An instant for a column, in the reader's own time zone: what it shares with now is left out."""
    if instant is None:
        return ""
    here, today = instant.astimezone(), (now or datetime.now(UTC)).astimezone()
    if here.date() == today.date():
        return here.strftime("%H:%M:%S")
    return here.strftime("%m-%d %H:%M" if here.year == today.year else "%Y-%m-%d")


def ago(seconds: float | None) -> str:
    """A span in its largest sensible unit: `5s`, `12m`, `3h`, `4d`; empty for None."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, folding: Collection[str], empty: str
) -> None:
    """Print rows under headings. Only the columns `folding` give way on a narrow terminal; nothing is cut."""
    cells = [[visible("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not cells:
        typer.echo(empty, err=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column not in folding, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    # A file or a pipe has no width: nothing is wrapped there, one row is one line.
    width = None if sys.stdout.isatty() else 4_000
    Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False).print(table)


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print `name   value` lines, leaving out what is None or empty."""
    shown = [(name, str(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        text = visible(value)
        color = STATE_STYLES.get(text) if name == "state" else None
        typer.echo(f"{name:<{width}}  " + (typer.style(text, fg=color) if color else text))


def print_block(title: str, text: str) -> None:
    """Print a title and the text indented under it."""
    typer.echo(f"\n{title}")
    for line in visible(text, lines=True).splitlines():
        typer.echo(f"  {line}")


def note(text: str) -> None:
    """Tell the person at the terminal something that is not the answer: on stderr."""
    typer.echo(visible(text), err=True)
