"""The verb health, for people and programs; without options it is `probe` alone."""

from __future__ import annotations

from typing import Annotated

import typer

from jobd.cli import probe
from jobd.cli.options import AsJson
from jobd.cli.output import print_json
from jobd.duration import parse_duration


def health(
    host: Annotated[
        str | None,
        typer.Option(
            "--http-host", metavar="HOST", help="Where the daemon listens, instead of JOBD_HTTP_HOST."
        ),
    ] = None,
    port: Annotated[
        str | None,
        typer.Option("--http-port", metavar="PORT", help="On which port, instead of JOBD_HTTP_PORT."),
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="Wait no longer.")] = "5s",
    as_json: AsJson = False,
) -> None:
    """Ask a running daemon whether it is ready.

    Exit 0 if so, 1 with the reasons if not.

    \b
    Examples:
      jobd health
      jobd health --http-host 10.0.0.7 --http-port 8642 --json
    """
    patience = parse_duration(timeout, setting="--timeout").total_seconds()
    healthy, answer = probe.ask(*probe.address(host, port), timeout=max(patience, 0.001))
    if as_json:
        print_json(answer)
    else:
        typer.echo(probe.as_text(answer))
    raise typer.Exit(0 if healthy else 1)
