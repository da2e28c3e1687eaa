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
    current; whether the application can be imported, and its handlers. Changes nothing. Exit 0 when
    a daemon could start, 1 when the schema needs `jobd migrate`, 2 for a wrong setting, 3 without the
    database.

    \b
    Examples:
      jobd check
      jobd check --app shop.jobs:jobs --json
    """
    from jobd.settings import explain, find_problems, load_settings, unread_environment

    flags = {"app": app, "database_url": database_url}
    problems = find_problems(**flags)
    findings = [Finding("settings", USAGE, str(problem)) for problem in problems]
    misspelt = unread_environment()
    hints = [f"{name} is not read by jobd; did you mean {meant}?" for name, meant in misspelt]
    shown: list[dict[str, str]] = []
    if not problems:
        settings = load_settings(**flags)
        shown = [line._asdict() for line in explain(settings)]
        findings = [
            Finding("settings", 0, f"{len(shown)} settings, all of them fit"),
            _finding("database", lambda: _database(settings)),
            _finding("application", lambda: _application(settings)),
        ]
    _print(shown, findings, hints, as_json=as_json)
    raise typer.Exit(max(finding.code for finding in findings))


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
        return Finding(about, exit_code(error), "\n".join([str(error), *getattr(error, "__notes__", ())]))


def _database(settings: Settings) -> str:
    import asyncio

    from jobd import migrate

    async def look(url: str) -> str:
        await migrate.check(database_at(url, settings))
        return f"answers; the schema is current (version {migrate.needed_version()})"

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
        return f"embedded PostgreSQL in {EMBEDDED_FOLDER}/ {asyncio.run(look(server.dsn()))}"


def _application(settings: Settings) -> str:
    if settings.app is None:
        return "JOBD_APP is not set: this jobd has the built-in handlers only"
    from jobd.cli.application import load_jobs

    jobs: Any = load_jobs(settings.app)
    handlers = [jobs.registry.get(kind) for kind in sorted(jobs.registry.kinds())]
    if not handlers:
        return f"{settings.app} has no handlers"
    lines = [f"{handler.kind} (queue {handler.queue}, in {_where(handler.runs_in)})" for handler in handlers]
    return "\n".join([f"{settings.app} has {len(lines)} handler{'s' if len(lines) > 1 else ''}", *lines])


def _where(runs_in: str) -> str:
    return {"loop": "the loop", "thread": "a thread", "process": "a process"}[runs_in]
