"""Verbs about use cases: use-cases list, set."""

from __future__ import annotations

from typing import Annotated

import typer

from jobd.cli.limits import MaxRunning, ask, of, plain, said
from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import print_fields, print_json, print_table
from jobd.cli.queues import who


def list_(as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List the use cases of which something is said, and how many of their jobs run.

    \b
    Example:
      jobd use-cases list
    """
    rows = ask(lambda quotas: quotas.use_cases(), database_url)
    if as_json:
        print_json([plain(row) for row in rows])
        return
    print_table(
        ["use case", "running", "changed by"],
        [(row.name, of(row.running, row.max_running), row.changed_by or "") for row in rows],
        folding=("use case", "changed by"),
        empty="of no use case anything is said: 10 jobs of each run at once",
    )


def set_(
    use_case: Annotated[str, typer.Argument(metavar="USE_CASE", help="The use case.")],
    max_running: MaxRunning = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Set how many jobs of a use case run at once, over all daemons; none is 10 again.

    \b
    Example:
      jobd use-cases set notifications --max-running 20
    """
    from jobd.limits import set_use_case

    limits = said(max_running=max_running)
    ask(lambda quotas: set_use_case(quotas, use_case, limits, by=who()), database_url)
    (row,) = ask(lambda quotas: quotas.use_cases(use_case), database_url)
    print_fields(plain(row).items())
