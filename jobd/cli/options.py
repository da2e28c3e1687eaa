"""Options that several verbs share, and how their words are read."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from jobd.errors import ConfigError, PayloadError

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="Instead of JOBD_DATABASE_URL. Other users of this machine can see it: keep passwords out.",
    ),
]
App = Annotated[
    str | None,
    typer.Option("--app", metavar="MODULE:NAME", help="The application's Jobs, instead of JOBD_APP."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def instant(text: str, *, option: str) -> datetime:
    """An instant as people write it, in ISO 8601; without an offset it is local time. Raises ConfigError."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            option,
            text,
            'is not an instant; write it like "2027-03-01T08:00" (local time) or "2027-03-01T08:00+01:00"',
        ) from error


def decoded(written: str | bytes) -> Any:
    """The value of a JSON text as people type it. Raises PayloadError with the place of a mistake."""
    from jobd.payload import parse_payload

    try:
        json.loads(written)  # for the place of a mistake; the strict reading below does not tell it
        return parse_payload(written)
    except json.JSONDecodeError as error:
        hint = 'text needs double quotes inside the shell\'s single ones: \'{"key": "a.png"}\''
        raise PayloadError(
            f"line {error.lineno} column {error.colno}", f"is not JSON: {error.msg}", hint
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise PayloadError("$", f"is not JSON: {error}") from error
