"""Verbs that move jobs, by their ids or by filters: cancel, retry, reschedule, move, delete.

Several ids are several moves, each on its own.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from jobd.cli.choosing import Chosen, choosing
from jobd.cli.options import DatabaseUrl, instant
from jobd.cli.session import call
from jobd.cli.shape import report
from jobd.cli.sweeps import sweep
from jobd.errors import MISSING, CallTimeout, ConfigError, DatabaseUnavailable, JobdError, SchemaError

if TYPE_CHECKING:
    from jobd.door import Link
    from jobd.store import Store


@choosing
def cancel(
    chosen: Chosen,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Recorded with the job, also with a running one.")
    ] = "cancelled from the command line",
    database_url: DatabaseUrl = None,
) -> None:
    """Cancel waiting jobs, and stop running ones.

    A running job is cancelled by its worker, as soon as that hears of it; the reason waits with the job
    until then. Of several requests the first one's counts.

    \b
    Examples:
      jobd cancel 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10 --reason "wrong customer"
      jobd cancel --queue mail --kind newsletter --older-than 2d --dry-run
    """
    if not chosen.by_id("cancel"):
        from jobd.acts import cancelling

        sweep(cancelling(reason), chosen, database_url=database_url)
        return

    async def move(store: Store, id: UUID) -> str:
        state = await store.cancel(id, reason=reason)
        return f"cancelled {id}" if state == "cancelled" else f"asked the worker to stop {id}"

    _each(chosen.ids, move, database_url=database_url)


@choosing
def retry(chosen: Chosen, database_url: DatabaseUrl = None) -> None:
    """Run finished jobs again.

    Succeeded, cancelled and dead ones: the same id and payload, with all their attempts. Filters mean
    dead jobs, unless --state names others.

    \b
    Examples:
      jobd retry 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10
      jobd retry --kind resize --error-type ConnectError --newer-than 1d
      jobd retry --queue mail --limit 10
    """
    if not chosen.by_id("retry"):
        from jobd.acts import retrying

        sweep(retrying(), chosen, database_url=database_url)
        return

    async def move(store: Store, id: UUID) -> str:
        generation = await store.retry(id)
        return f"ready {id} (generation {generation})"

    _each(chosen.ids, move, database_url=database_url)


@choosing
def reschedule(
    chosen: Chosen,
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
      jobd reschedule --tenant acme --priority 10
      jobd reschedule --kind sync --state scheduled --now
    """
    from datetime import UTC, datetime

    from jobd.duration import parse_duration

    given = [f"--{name}" for name, value in (("at", at), ("in", delay), ("now", now)) if value]
    if len(given) > 1:
        raise ConfigError(given[0], at or delay, f"and {given[1]} both say when: give one of them")
    if not given and priority is None:
        raise ConfigError("reschedule", MISSING, "say what changes: --at, --in, --now or --priority")
    moment = datetime.now(UTC)
    run_at = instant(at, option="--at") if at else moment if now else None
    if delay:
        run_at = moment + parse_duration(delay, setting="--in")

    if not chosen.by_id("reschedule"):
        from jobd.acts import rescheduling

        sweep(rescheduling(run_at=run_at, priority=priority, now=moment), chosen, database_url=database_url)
        return

    async def move(store: Store, id: UUID) -> str:
        # Judged by the clock that named the time: a database behind it would have a job of --now wait.
        state = await store.reschedule(id, run_at=run_at, priority=priority, now=moment)
        return f"{state.value} {id}"

    _each(chosen.ids, move, database_url=database_url)


@choosing
def move(
    chosen: Chosen,
    to: Annotated[str, typer.Option("--to", metavar="QUEUE", help="Into which queue.")],
    database_url: DatabaseUrl = None,
) -> None:
    """Put waiting jobs into another queue.

    \b
    Examples:
      jobd move 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10 --to slow
      jobd move --queue mail --kind newsletter --to slow
    """
    from jobd.registry import check_name

    check_name("queue", to)
    if not chosen.by_id("move"):
        from jobd.acts import moving

        sweep(moving(to), chosen, database_url=database_url)
        return

    async def put(store: Store, id: UUID) -> str:
        state = await store.move(id, queue=to)
        return f"{state.value} {id} in {to}"

    _each(chosen.ids, put, database_url=database_url)


@choosing
def delete(chosen: Chosen, database_url: DatabaseUrl = None) -> None:
    """Delete jobs for good.

    With payload, result and errors. A running one is refused: cancel it first. Filters mean waiting and
    finished jobs, unless --state names some.

    \b
    Examples:
      jobd delete 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10
      jobd delete --kind ping --state succeeded --older-than 1d
    """
    if not chosen.by_id("delete"):
        from jobd.acts import deleting

        sweep(deleting(), chosen, database_url=database_url)
        return
    if not chosen.yes and sys.stdin.isatty():
        count = len(chosen.ids)
        typer.confirm(f"Delete {count} job{'s' if count > 1 else ''} for good?", abort=True)

    async def move(store: Store, id: UUID) -> str:
        await store.delete(id)
        return f"deleted {id}"

    _each(chosen.ids, move, database_url=database_url)


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
