"""Verbs that move jobs: cancel, retry, reschedule, delete. Several ids are several moves, each on its own."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from jobd.cli.options import DatabaseUrl, instant
from jobd.cli.session import call
from jobd.cli.shape import report
from jobd.errors import CallTimeout, ConfigError, DatabaseUnavailable, JobdError, SchemaError

if TYPE_CHECKING:
    from jobd.door import Link
    from jobd.store import Store

Ids = Annotated[list[UUID], typer.Argument(metavar="ID...", help="Which jobs.")]


def cancel(
    ids: Ids,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Recorded with the job, also with a running one.")
    ] = "cancelled from the command line",
    database_url: DatabaseUrl = None,
) -> None:
    """Cancel waiting jobs, and stop running ones.

    A running job is cancelled by its worker, as soon as that hears of it; the reason waits with the job
    until then. Of several requests the first one's counts.

    \b
    Example:
      jobd cancel 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10 --reason "wrong customer"
    """

    async def move(store: Store, id: UUID) -> str:
        state = await store.cancel(id, reason=reason)
        return f"cancelled {id}" if state == "cancelled" else f"asked the worker to stop {id}"

    _each(ids, move, database_url=database_url)


def retry(ids: Ids, database_url: DatabaseUrl = None) -> None:
    """Run finished jobs again.

    Succeeded, cancelled and dead ones: the same id and payload, with all their attempts.

    \b
    Examples:
      jobd retry 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10
      jobd list --state dead --json | jq -r '.[].id' | xargs jobd retry
    """

    async def move(store: Store, id: UUID) -> str:
        generation = await store.retry(id)
        return f"ready {id} (generation {generation})"

    _each(ids, move, database_url=database_url)


def reschedule(
    ids: Ids,
    at: Annotated[str | None, typer.Option("--at", metavar="INSTANT", help="Run then; ISO 8601.")] = None,
    delay: Annotated[
        str | None, typer.Option("--in", metavar="DURATION", help="Run after 30s, 15m, 7d ...")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Run as soon as a worker is free.")] = False,
    priority: Annotated[
        int | None, typer.Option("--priority", metavar="N", help="Higher runs first within a queue.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Give waiting jobs another time or priority.

    \b
    Examples:
      jobd reschedule 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10 --at 2027-03-01T08:00
      jobd reschedule 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10 --now --priority 10
    """
    from datetime import UTC, datetime

    from jobd.duration import parse_duration

    given = [f"--{name}" for name, value in (("at", at), ("in", delay), ("now", now)) if value]
    if len(given) > 1:
        raise ConfigError(given[0], at or delay, f"and {given[1]} both say when: give one of them")
    if not given and priority is None:
        raise ConfigError("reschedule", None, "say what changes: --at, --in, --now or --priority")
    moment = datetime.now(UTC)
    run_at = instant(at, option="--at") if at else moment if now else None
    if delay:
        run_at = moment + parse_duration(delay, setting="--in")

    async def move(store: Store, id: UUID) -> str:
        # Judged by the clock that named the time: a database behind it would have a job of --now wait.
        state = await store.reschedule(id, run_at=run_at, priority=priority, now=moment)
        return f"{state.value} {id}"

    _each(ids, move, database_url=database_url)


def delete(
    ids: Ids,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Delete jobs for good.

    With payload, result and errors. A running one is refused: cancel it first.

    \b
    Example:
      jobd delete 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {len(ids)} job{'s' if len(ids) > 1 else ''} for good?", abort=True)

    async def move(store: Store, id: UUID) -> str:
        await store.delete(id)
        return f"deleted {id}"

    _each(ids, move, database_url=database_url)


def _each(
    ids: list[UUID], move: Callable[[Store, UUID], Awaitable[str]], *, database_url: str | None
) -> None:
    """Make one move a job; those that are refused do not hold up the rest, but the exit code tells."""

    async def moves(link: Link) -> int:
        from jobd.store import Store

        code = 0
        for id in ids:
            try:
                typer.echo(await move(Store(link), id))
            except (DatabaseUnavailable, CallTimeout, SchemaError):
                raise
            except JobdError as error:
                code = report(error)
        return code

    code = call(moves, database_url=database_url)
    if code:
        raise typer.Exit(code)
