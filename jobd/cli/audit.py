"""The verb that tells who changed many jobs at once: audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import brief, print_json, print_table
from jobd.cli.session import call

if TYPE_CHECKING:
    from jobd.door import Link
    from jobd.reader import AuditEntry


def audit(
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=1_000, help="At most so many.")
    ] = 20,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """See who changed many jobs at once, the newest first.

    What was chosen by filters, from the command line or an application, and how many jobs that has
    changed. An operation that was stopped, or goes on, is `unfinished`.

    \b
    Example:
      jobd audit -n 5
    """

    async def read(link: Link) -> Sequence[AuditEntry]:
        from jobd.reader import Reader

        return await Reader(link).audits(count=limit)

    entries = call(read, database_url=database_url)
    if as_json:
        print_json(entries)
        return
    print_table(
        ["at", "who", "verb", "jobs", "filter", "change", ""],
        [
            (
                *(brief(entry.at), entry.who, entry.verb, f"{entry.jobs:,}"),
                *(_words(entry.filter), _words(entry.change)),
                "" if entry.ended_at else "unfinished",
            )
            for entry in entries
        ],
        folding=("who", "filter", "change"),
        empty="nothing was changed by filter yet",
    )


def _words(values: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={','.join(value) if isinstance(value, list) else value}" for name, value in values.items()
    )
