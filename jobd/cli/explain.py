"""The verb that says why a job is where it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import brief, print_json, visible
from jobd.cli.session import call

if TYPE_CHECKING:
    from jobd.door import Link
    from jobd.standing import Explanation


def explain(
    id: Annotated[UUID, typer.Argument(metavar="ID", help="The job's id.")],
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Say why a job is where it is, and what would change that.

    All that holds it up, the firmest first: what somebody has to undo, limits, then its turn; in brackets
    when that passes, where it is known.

    \b
    Example:
      jobd explain 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10
    """

    async def read(link: Link) -> Explanation:
        from jobd.reader import Reader

        return await Reader(link).explain(id)

    explanation = call(read, database_url=database_url)
    if as_json:
        print_json(explanation)
        return
    now = datetime.now(UTC)
    head = f"{explanation.kind} in queue {explanation.queue} is {explanation.state.value}:"
    typer.echo(visible(head))
    for reason in explanation.reasons:
        at = "" if reason.until is None or reason.until <= now else f" ({brief(reason.until, now=now)})"
        typer.echo(f"- {visible(reason.text)}{at}")
