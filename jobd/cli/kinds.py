"""Verbs about what holds for each concurrency key of a kind: kinds list, set."""

from __future__ import annotations

from typing import Annotated

import typer

from jobd.cli.limits import ask, back_to_declared, otherwise, plain, rate_text, said, set_and_show
from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import print_json, print_table

Kind = Annotated[str, typer.Argument(metavar="KIND", help="The kind of job.")]


def list_(as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List the kinds with limits of each key, and how many of their jobs run.

    \b
    Example:
      jobd kinds list
    """
    rows = ask(lambda quotas: quotas.kinds(), database_url)
    if as_json:
        print_json([plain(row) for row in rows])
        return
    print_table(
        ["kind", "of a key", "rate of a key", "running", "keys", "changed by", "declared"],
        [
            (
                row.name,
                "one by one, in order" if row.ordered else f"{row.key_limit} at once",
                *(rate_text(row.key_rate, row.key_burst), row.running, row.keys, row.changed_by or ""),
                otherwise(row),
            )
            for row in rows
        ],
        folding=("kind", "changed by", "declared"),
        empty="of no kind anything is said: jobs of one key run one at a time",
    )


def set_(
    kind: Kind,
    key_limit: Annotated[
        str | None,
        typer.Option("--key-limit", metavar="N|none", help="So many jobs of a key at once; none is 1."),
    ] = None,
    ordered: Annotated[
        bool | None, typer.Option("--ordered/--unordered", help="One by one, in the order of their enqueues.")
    ] = None,
    key_rate: Annotated[
        str | None,
        typer.Option("--key-rate", metavar="RATE|none", help="So many of a key may start, like 10/s."),
    ] = None,
    key_burst: Annotated[
        str | None, typer.Option("--key-burst", metavar="N|none", help="So many of the rate at once.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Set limits of each key of a kind; those that are not named stay as they are.

    They hold for jobs that have a concurrency key: of the handler's template, or given with the enqueue.

    \b
    Example:
      jobd kinds set sync --key-limit 3 --key-rate 10/s
    """
    from jobd.limits import set_kind

    limits = said(key_limit=key_limit, ordered=ordered, key_rate=key_rate, key_burst=key_burst)
    set_and_show("kinds", kind, limits, set_kind, database_url)


def reset(kind: Kind, database_url: DatabaseUrl = None) -> None:
    """Take what was set at run time back: its limits are those of the code again, or none.

    \b
    Example:
      jobd kinds reset sync
    """
    back_to_declared("kinds", "kind", kind, database_url)
