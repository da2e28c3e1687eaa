"""Options that several verbs share, and how their words are read."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from jobd.errors import ConfigError

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
