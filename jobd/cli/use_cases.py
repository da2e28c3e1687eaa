"""Verbs about use cases: use-cases list, set."""

from __future__ import annotations

from typing import Annotated

import typer

from jobd.cli.limits import MaxRunning, ask, back_to_declared, of, otherwise, plain, said, set_and_show
from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import print_json, print_table

UseCase = Annotated[str, typer.Argument(metavar="USE_CASE", help="The use case.")]


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
        ["use case", "running", "changed by", "declared"],
        [(row.name, of(row.running, row.max_running), row.changed_by or "", otherwise(row)) for row in rows],
        folding=("use case", "changed by", "declared"),
        empty="of no use case anything is said: 10 jobs of each run at once",
    )


def set_(
    use_case: UseCase,
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
    set_and_show("use_cases", use_case, limits, set_use_case, database_url)


def reset(use_case: UseCase, database_url: DatabaseUrl = None) -> None:
    """Take what was set at run time back: its limit is that of files again, or 10.

    \b
    Example:
      jobd use-cases reset labels
    """
    back_to_declared("use_cases", "use case", use_case, database_url)
