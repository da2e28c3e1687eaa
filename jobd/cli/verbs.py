"""The table of verbs: what `jobd --help` lists, in its order. A new verb is a line here and a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from jobd.cli import check, demo, enqueue, health, jobs, migrate, moves, queues, run, workers
from jobd.cli.shape import Verb, Verbs

app = typer.Typer(
    name="jobd",
    subcommand_metavar="VERB ...",
    options_metavar="",
    cls=Verbs,
    help="Durable background jobs on the PostgreSQL a team already runs.",
    epilog="More about a verb: jobd VERB --help. Settings: jobd.toml < JOBD_* in the environment < options.",
    no_args_is_help=True,
    # Plain help: rendering it with rich would take longer than all the rest of `jobd --help`.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
queue_verbs = typer.Typer(
    cls=Verbs,
    help="See, pause and resume queues.",
    subcommand_metavar="VERB ...",
    options_metavar="",
    no_args_is_help=True,
    rich_markup_mode=None,
)

VERBS: dict[str, list[Callable[..., None]]] = {
    "Serve": [run.run, demo.demo, migrate.migrate],
    "Jobs": [
        enqueue.enqueue,
        jobs.list_,
        jobs.show,
        moves.cancel,
        moves.retry,
        moves.reschedule,
        moves.delete,
    ],
    "Operate": [workers.workers, check.check, health.health],
}
QUEUE_VERBS: list[Callable[..., None]] = [queues.list_, queues.pause, queues.resume]

for panel, functions in VERBS.items():
    for function in functions:
        app.command(function.__name__.rstrip("_"), cls=Verb, rich_help_panel=panel)(function)
for function in QUEUE_VERBS:
    queue_verbs.command(function.__name__.rstrip("_"), cls=Verb)(function)
app.add_typer(queue_verbs, name="queues", rich_help_panel="Operate")


def _print_version(wanted: bool) -> None:
    if wanted:
        from jobd import __version__

        typer.echo(f"jobd {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
