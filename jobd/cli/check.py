"""The verb check: every setting with its source, and whether a daemon could start here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from jobd.cli.options import App, AsJson, DatabaseUrl
from jobd.cli.output import print_json, print_table, visible
from jobd.cli.session import EMBEDDED_FOLDER, database_at, in_container
from jobd.cli.shape import USAGE, exit_code, readable
from jobd.errors import ConfigError, JobdError

if TYPE_CHECKING:
    from jobd.app import Jobs
    from jobd.door import Database
    from jobd.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `code` is the exit code that it would cause; 0 is fine."""

    about: str
    code: int
    detail: str


def check(app: App = None, as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Explain the configuration, and say what is wrong with it.

    Each setting, its value, and where it comes from; whether the database answers and its schema is
    current; whether the application can be imported, and its handlers; the schedules of code and
    jobd.toml. Changes nothing. Exit 0 when `jobd run` could start, 1 when the schema needs `jobd migrate`
    first, 2 for a wrong setting, handler or schedule, 3 without the database.

    \b
    Examples:
      jobd check
      jobd check --app shop.jobs:jobs --json
    """
    from jobd.settings import unread_environment

    typed = {"app": app, "database_url": database_url}
    looked = _look({name: value for name, value in typed.items() if value is not None})
    hints = [f"{name} is not read by jobd; did you mean {meant}?" for name, meant in unread_environment()]
    _print(*looked, hints, as_json=as_json)
    raise typer.Exit(max(finding.code for finding in looked[1]))


def _look(typed: dict[str, Any]) -> tuple[list[dict[str, str]], list[Finding]]:
    """The settings that hold, merged as `jobd run` merges them, and everything that was looked at."""
    from jobd.app import Jobs
    from jobd.cli.application import load_jobs
    from jobd.settings import explain, find_problems, load_settings

    if problems := find_problems(**typed):
        return [], [Finding("settings", USAGE, str(problem)) for problem in problems]
    settings = load_settings(**typed)
    jobs, broken = Jobs(), None
    if settings.app is not None:
        try:
            jobs = load_jobs(settings.app)
        except JobdError as error:
            broken = _failed("application", error)
    # What the application says stands over everything but the options typed here.
    merged = {**jobs.overrides, **typed}
    if problems := find_problems(**merged):
        return [], [Finding("settings", USAGE, f"{problem} (in Jobs(...))") for problem in problems]
    settings = load_settings(**merged)
    shown = [line._asdict() for line in explain(settings)]
    for line in shown:
        if line["source"] == "flag" and line["name"].partition(".")[0] not in typed:
            line["source"] = "Jobs(...)"
    return shown, [
        Finding("settings", 0, f"{len(shown)} settings, all of them fit"),
        _finding("database", lambda: _database(settings)),
        broken or _finding("application", lambda: _application(jobs, settings)),
        _finding("schedules", lambda: _schedules(jobs, settings)),
    ]


def _print(shown: list[dict[str, str]], findings: list[Finding], hints: list[str], *, as_json: bool) -> None:
    if as_json:
        # A link in the chain that is fine has code 0; "ok" says so without a table of codes.
        found = [{"about": f.about, "ok": f.code == 0, "detail": readable(f.detail)} for f in findings]
        print_json({"settings": shown, "findings": found, "hints": hints})
        return
    if shown:
        print_table(
            ["setting", "value", "source"],
            [(line["name"], line["value"], line["source"]) for line in shown],
            folding=("value",),
            empty="",
        )
        typer.echo()
    for finding in findings:
        mark = "FAIL" if finding.code else "ok"
        colored = typer.style(f"{mark:<4}", fg="red" if finding.code else "green")
        detail = readable(finding.detail).replace("\n", "\n      ")
        typer.echo(f"{colored}  {finding.about}: {detail}")
    for hint in hints:
        typer.echo(f"{typer.style('hint', fg='yellow')}  {visible(hint)}")


def _finding(about: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(about, 0, look())
    except JobdError as error:
        return _failed(about, error)


def _failed(about: str, error: JobdError) -> Finding:
    return Finding(about, exit_code(error), "\n".join([str(error), *getattr(error, "__notes__", ())]))


def _database(settings: Settings) -> str:
    import asyncio

    async def look(url: str) -> str:
        return await _schema(database_at(url, settings), settings.migrate)

    if settings.database_url is not None:
        return asyncio.run(look(settings.database_url))
    if in_container():
        raise ConfigError(
            "JOBD_DATABASE_URL", None, "a container needs a database outside it: `jobd run` refuses"
        )
    from jobd.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(EMBEDDED_FOLDER)
    if not server.data.exists():
        return f"not set: `jobd run` would make an embedded PostgreSQL in {EMBEDDED_FOLDER}/"
    with server:
        return f"embedded PostgreSQL in {EMBEDDED_FOLDER}/: {asyncio.run(look(server.dsn()))}"


async def _schema(database: Database, mode: str) -> str:
    """What a daemon that starts would make of the schema. Raises SchemaOutdated, SchemaTooNew."""
    from jobd import migrate

    found, needed = await migrate.found_version(database), migrate.needed_version()
    if mode == "auto" and found == 0:
        return "empty; jobd run migrates it at start (JOBD_MIGRATE=auto)"
    if mode == "auto" and found < needed:
        return f"at schema version {found}; jobd run migrates it to {needed} at start (JOBD_MIGRATE=auto)"
    if mode == "off" and found not in (0, needed):
        return f"at schema version {found}; this jobd is made for {needed} (JOBD_MIGRATE=off)"
    await migrate.check(database)
    return f"answers; the schema is current (version {needed})"


def _application(jobs: Jobs, settings: Settings) -> str:
    from jobd.served import add_built_in_handlers

    own = len(jobs.registry)
    add_built_in_handlers(jobs, settings)
    doubts = jobs.check_handlers()
    if settings.app is None:
        told = "JOBD_APP is not set: this jobd has the built-in handlers only"
    elif not own:
        told = f"{settings.app} has no handlers"
    else:
        told = f"{settings.app} has {own} handler{'s' if own > 1 else ''}"
    lines = [told]
    for handler in sorted(jobs.registry, key=lambda handler: handler.kind):
        lines.append(f"{handler.kind} (queue {handler.queue}, in {_where(handler.runs_in)})")
        if handler.kind in doubts:
            lines.append(f"  only if a lifespan yields what it asks for: {doubts[handler.kind]}")
    return "\n".join(lines)


def _schedules(jobs: Jobs, settings: Settings) -> str:
    """What code and file declare, with what it means. The handlers are known: `_application` came before."""
    from jobd.served import code_schedules, file_schedules
    from jobd.terms import parsed

    declared = [*code_schedules(jobs), *file_schedules(jobs, settings)]
    if not declared:
        return "none in the code or in jobd.toml; those made at run time are in `jobd schedules list`"
    lines = [f"{len(declared)} in the code and in jobd.toml"]
    for terms in sorted(declared, key=lambda terms: terms.id):
        told = "" if terms.kind in jobs.registry.kinds() else ", which has no handler here"
        lines.append(f"{terms.id} ({terms.owner}): {terms.kind}{told}, {parsed(terms).describe()}")
    return "\n".join(lines)


def _where(runs_in: str) -> str:
    return {"loop": "the loop", "thread": "a thread", "process": "a process"}[runs_in]
