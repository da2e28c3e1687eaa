"""The verb run: the daemon in the foreground."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from jobd.cli.application import configured
from jobd.cli.options import App, DatabaseUrl
from jobd.cli.output import note
from jobd.cli.session import database

what = partial(typer.Option, rich_help_panel="What it serves")
daemon = partial(typer.Option, rich_help_panel="The daemon")
development = partial(typer.Option, rich_help_panel="Development")


class Role(StrEnum):
    """Parts of a daemon that can run apart."""

    worker = "worker"
    scheduler = "scheduler"
    http = "http"


class LogLevel(StrEnum):
    """How much is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"
    critical = "critical"


class Migrate(StrEnum):
    """What happens to the schema at start."""

    auto = "auto"
    check = "check"
    off = "off"


def run(
    app: App = None,
    queues: Annotated[
        list[str] | None,
        what("--queue", metavar="NAME", help="Serve only this queue; repeatable."),
    ] = None,
    only: Annotated[
        list[Role] | None, what("--only", metavar="ROLE", help="worker, scheduler or http; repeatable.")
    ] = None,
    concurrency: Annotated[
        int | None, what("--concurrency", metavar="N", help="Run so many jobs at once.")
    ] = None,
    processes: Annotated[
        int | None,
        what("--processes", metavar="N", help="Work in so many processes, with --concurrency each."),
    ] = None,
    until_idle: Annotated[bool, what("--until-idle", help="End when no job is ready or running.")] = False,
    http_host: Annotated[
        str | None, daemon("--http-host", metavar="HOST", help="Where probes and metrics listen.")
    ] = None,
    http_port: Annotated[
        int | None, daemon("--http-port", metavar="PORT", help="On which port; 0: any.")
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        daemon("--log-level", metavar="LEVEL", help="debug, info, warning, error or critical."),
    ] = None,
    lease: Annotated[
        str | None,
        daemon("--lease", metavar="DURATION", help="Its jobs are rescued so long after it died."),
    ] = None,
    shutdown_grace: Annotated[
        str | None,
        daemon("--shutdown-grace", metavar="DURATION", help="How long handlers may go on."),
    ] = None,
    migrate: Annotated[
        Migrate | None, daemon("--migrate", metavar="WHAT", help="The schema at start: auto, check or off.")
    ] = None,
    reload: Annotated[
        bool,
        development("--reload", help="Restart when a .py or jobd.toml below here changes."),
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Run the daemon: take jobs, run their handlers, answer probes.

    Without a database it uses a PostgreSQL of its own in .jobd/ (extra `embedded`). Options are for
    what differs between processes; everything else is set in jobd.toml or by JOBD_*, see `jobd check`.
    SIGTERM or Ctrl-C ends it once its handlers are done, a second one at once; exit code 0 when nothing
    was lost.

    \b
    Examples:
      jobd run --app shop.jobs:jobs
      jobd run --app shop.jobs:jobs --queue images --concurrency 8 --only worker
      jobd run --app shop.jobs:jobs --processes 4
      jobd run --app shop.jobs:jobs --reload
    """
    if reload:
        from jobd.cli.reload import run_reloading

        raise typer.Exit(run_reloading())
    from jobd.supervision.handover import Plan, become_supervisor, take_tether

    tether = take_tether()
    jobs, settings = configured(
        app=app,
        concurrency=concurrency,
        processes=processes,
        http_host=http_host,
        http_port=http_port,
        log_level=log_level.value if log_level else None,
        lease=lease,
        shutdown_grace=shutdown_grace,
        migrate=migrate.value if migrate else None,
        database_url=database_url,
    )
    roles = frozenset(role.value for role in only) if only else None
    if settings.app is None and tether is None and (roles is None or "worker" in roles):
        note("JOBD_APP is not set: this daemon has no handlers of yours; say --app module:jobs")
    plan = None
    if tether is None and settings.processes > 1:
        plan = Plan(
            processes=settings.processes,
            arguments=sys.argv[1:],
            http_host=settings.http_host if roles is None or "http" in roles else None,
            http_port=settings.http_port,
            log_level=settings.log_level,
            grace_seconds=settings.shutdown_grace.total_seconds(),
            until_idle=until_idle,
        )
        if settings.database_url is not None:
            become_supervisor(plan)
    # The daemon migrates by itself, as JOBD_MIGRATE says.
    with database(settings, migrates=False) as url:
        if settings.database_url is None:
            note(f"to use it from elsewhere: export JOBD_DATABASE_URL={shlex.quote(url)}")
        if plan is not None:
            # This process has the server, so it stays what it is; the children find the server running.
            from jobd.supervision.supervisor import supervise

            raise typer.Exit(supervise(plan, environment={"JOBD_DATABASE_URL": url}))
        from jobd.hosting import run_forever

        settings = settings.model_copy(update={"database_url": url})
        code = run_forever(
            jobs,
            settings,
            roles=roles,
            queues=tuple(queues or ()),
            until_idle=until_idle,
            tether=tether,
        )
    raise typer.Exit(code)
