"""The verb migrate: bring the schema up to date, check it, or print what would run."""

from __future__ import annotations

from typing import Annotated

import typer

from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import print_json
from jobd.cli.session import database, database_at, load_for_database
from jobd.errors import ConfigError


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 unless it is current.")
    ] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the whole script for an empty database; run nothing.")
    ] = False,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Bring the database to the schema that this jobd needs.

    Safe to run at any time, by several at once, and beside daemons of the previous release. `jobd run`
    does it by itself unless JOBD_MIGRATE says otherwise.

    \b
    Examples:
      jobd migrate
      jobd migrate --check --json
      jobd migrate --sql > schema.sql
    """
    import asyncio

    from jobd import migrate as schema

    if check and sql:
        raise ConfigError("--check", True, "and --sql exclude each other: give one of them")
    if as_json and not check:
        raise ConfigError("--json", True, "is how --check answers: add --check, or leave it out")
    if sql:
        typer.echo(schema.script(), nl=False)
        return
    settings = load_for_database(database_url=database_url)
    with database(settings, migrates=False) as url:
        target = database_at(url, settings)
        if as_json:
            found, needed = asyncio.run(schema.found_version(target)), schema.needed_version()
            print_json({"current": found == needed, "version": found, "needed": needed})
            raise typer.Exit(0 if found == needed else 1)
        applied = [] if check else asyncio.run(schema.migrate(target))
        if check:
            asyncio.run(schema.check(target))
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo(f"the schema is current: version {schema.needed_version()}")
