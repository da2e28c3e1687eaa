"""The table of verbs: what `jobd --help` lists, in its order. A new verb is a line here and a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from jobd.cli import (
    audit,
    check,
    demo,
    enqueue,
    explain,
    health,
    jobs,
    kinds,
    migrate,
    moves,
    queues,
    run,
    schedules,
    tenants,
    terms,
    use_cases,
    workers,
)
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


def _group(text: str) -> typer.Typer:
    return typer.Typer(
        cls=Verbs,
        help=text,
        subcommand_metavar="VERB ...",
        options_metavar="",
        no_args_is_help=True,
        rich_markup_mode=None,
    )


queue_verbs = _group("See, limit, pause, resume, drain and reset queues.")
tenant_verbs = _group("See and limit tenants.")
kind_verbs = _group("See and limit what runs of a concurrency key.")
use_case_verbs = _group("See and limit use cases.")
schedule_verbs = _group("See, add, pause and preview schedules.")

VERBS: dict[str, list[Callable[..., None]]] = {
    "Serve": [run.run, demo.demo, migrate.migrate],
    "Jobs": [
        enqueue.enqueue,
        jobs.list_,
        jobs.show,
        explain.explain,
        moves.cancel,
        moves.retry,
        moves.reschedule,
        moves.move,
        moves.delete,
    ],
    "Operate": [workers.workers, audit.audit, check.check, health.health],
}
QUEUE_VERBS: list[Callable[..., None]] = [
    queues.list_,
    queues.set_,
    queues.pause,
    queues.resume,
    queues.drain,
    queues.reset,
]
TENANT_VERBS: list[Callable[..., None]] = [tenants.list_, tenants.set_, tenants.remove, tenants.reset]
KIND_VERBS: list[Callable[..., None]] = [kinds.list_, kinds.set_, kinds.reset]
USE_CASE_VERBS: list[Callable[..., None]] = [use_cases.list_, use_cases.set_, use_cases.reset]
SCHEDULE_VERBS: list[Callable[..., None]] = [
    schedules.list_,
    terms.add,
    schedules.remove,
    schedules.pause,
    schedules.resume,
    schedules.trigger,
    schedules.history,
    schedules.preview,
]

for panel, functions in VERBS.items():
    for function in functions:
        app.command(function.__name__.rstrip("_"), cls=Verb, rich_help_panel=panel)(function)
for name, group, verbs in (
    ("queues", queue_verbs, QUEUE_VERBS),
    ("tenants", tenant_verbs, TENANT_VERBS),
    ("kinds", kind_verbs, KIND_VERBS),
    ("use-cases", use_case_verbs, USE_CASE_VERBS),
    ("schedules", schedule_verbs, SCHEDULE_VERBS),
):
    for function in verbs:
        group.command(function.__name__.rstrip("_"), cls=Verb)(function)
    app.add_typer(group, name=name, rich_help_panel="Operate")


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
