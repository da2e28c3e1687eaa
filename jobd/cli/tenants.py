"""Verbs about tenants: tenants list, set, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from jobd.cli.limits import (
    Burst,
    MaxRunning,
    RateText,
    ask,
    back_to_declared,
    of,
    otherwise,
    plain,
    rate_text,
    said,
    set_and_show,
)
from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import note, print_json, print_table

Id = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]


def list_(as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List the tenants that have limits, and how much of them is taken.

    \b
    Example:
      jobd tenants list
    """
    rows = ask(lambda quotas: quotas.tenants(), database_url)
    if as_json:
        print_json([plain(row) for row in rows])
        return
    print_table(
        ["tenant", "pending", "on full", "running", "rate", "weight", "changed by", "declared"],
        [
            (
                row.id,
                "" if row.max_pending is None else f"{row.pending} of {row.max_pending}",
                "" if row.max_pending is None else row.on_full + ("" if row.exact else ", not exact"),
                *(of(row.running, row.max_running), rate_text(row.rate, row.burst), row.weight),
                row.changed_by or "",
                otherwise(row),
            )
            for row in rows
        ],
        folding=("tenant", "changed by", "declared"),
        empty="no tenant has limits: `jobd tenants set` gives it some",
    )


def set_(
    tenant: Id,
    max_pending: Annotated[
        str | None, typer.Option("--max-pending", metavar="N|none", help="So many may wait.")
    ] = None,
    on_full: Annotated[
        str | None,
        typer.Option("--on-full", metavar="RULE", help="An enqueue beyond: refuse, shed or delay."),
    ] = None,
    exact: Annotated[
        bool | None,
        typer.Option("--exact/--not-exact", help="Never one more, though enqueues wait for each other."),
    ] = None,
    max_running: MaxRunning = None,
    rate: RateText = None,
    burst: Burst = None,
    weight: Annotated[
        str | None, typer.Option("--weight", metavar="N", help="Its part of a fair queue; 1 unless said.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Set limits of a tenant; those that are not named stay as they are.

    \b
    Examples:
      jobd tenants set t1 --max-pending 100 --max-running 5
      jobd tenants set t1 --max-running none
    """
    from jobd.limits import set_tenant

    limits = said(
        max_pending=max_pending, on_full=on_full, exact=exact, max_running=max_running, rate=rate,
        burst=burst, weight=weight,
    )  # fmt: skip
    set_and_show("tenants", tenant, limits, set_tenant, database_url)


def remove(tenant: Id, database_url: DatabaseUrl = None) -> None:
    """Take all limits of a tenant away; those of a file are back when a daemon with it starts.

    \b
    Example:
      jobd tenants remove t1
    """
    from jobd.quota_options import limited_name

    limited_name("tenant", tenant)
    if ask(lambda quotas: quotas.remove_tenant(tenant), database_url):
        typer.echo(f"tenant {tenant} has no limits any more")
    else:
        note(f"tenant {tenant} had no limits (`jobd tenants list`)")


def reset(tenant: Id, database_url: DatabaseUrl = None) -> None:
    """Take what was set at run time back: its limits are those of files again, or none.

    \b
    Example:
      jobd tenants reset t1
    """
    back_to_declared("tenants", "tenant", tenant, database_url)
