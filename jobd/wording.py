"""The small parts of sentences about jobs."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Any

from jobd.duration import format_duration

SECOND = timedelta(seconds=1)


def error_text(error: dict[str, Any]) -> str:
    """An entry of a job's errors in brackets: its type, and the first line of what it said."""
    lines = str(error.get("message") or "").strip().splitlines() or [""]
    said = f": {lines[0][:200]}" if lines[0] else ""
    return f" ({error.get('type', 'error')}{said})"


def command(verb: str, name: str | None, options: str = "") -> str:
    """What to type into a shell."""
    return f"`jobd {verb} {shlex.quote(name or '')}{' ' if options else ''}{options}`"


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """So many of something."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def brief_span(span: timedelta) -> str:
    """Readable: to the second, from a minute on without fractions."""
    if span < SECOND:
        return "less than 1s"
    return format_duration(timedelta(seconds=int(span.total_seconds())))
