"""The verb that says why a job is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import print_json, visible
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

    All that holds it up, the firmest first: what somebody has to undo, limits, then its turn.

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
    typer.echo(f"{explanation.kind} in queue {explanation.queue} is {explanation.state.value}:")
    for reason in explanation.reasons:
        typer.echo(f"- {visible(reason.text)}")
