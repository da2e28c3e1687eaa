"""An operation on many jobs, at a terminal: counted, asked about, shown while it goes on, and told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from jobd.cli.choosing import Chosen, option
from jobd.cli.output import note
from jobd.cli.session import call, one_database, who
from jobd.errors import ConfigError, JobdError
from jobd.job import FINISHED, JobState

if TYPE_CHECKING:
    from jobd.acts import Act
    from jobd.door import Link
    from jobd.selection import Selection
    from jobd.sweep import Tally

DONE = {
    "cancel": "cancelled",
    "retry": "retried",
    "reschedule": "rescheduled",
    "move": "moved",
    "delete": "deleted",
}
# So many finished jobs take seconds to look through.
MANY_ROWS = 2_000_000


def sweep(act: Act, chosen: Chosen, *, database_url: str | None) -> None:
    """Do it to all jobs that are meant; exits with 1 where some had to be left as they were."""
    selection = _selected(act, chosen)
    asks = sys.stdin.isatty() and not chosen.yes and not chosen.dry_run
    with one_database(database_url) as url:
        jobs: int | None = None
        call(lambda link: _warn(link, act, selection), database_url=url)
        if chosen.dry_run or asks:
            counted = call(lambda link: _go(link, act, selection, chosen, counts=True), database_url=url)
            meant = f"{act.verb} {_jobs(counted.jobs)}{_in_states(counted)}"
            if chosen.dry_run or not counted.jobs:
                typer.echo(f"would {meant}" if chosen.dry_run else f"{DONE[act.verb]} 0 jobs")
                _tell_of_running(counted)
                return
            typer.confirm(f"{meant[0].upper()}{meant[1:]}?", abort=True)
            jobs = counted.jobs
        tally = call(
            lambda link: _go(link, act, selection, chosen, counts=False, jobs=jobs), database_url=url
        )
    typer.echo(_told(tally))
    _tell_of_running(tally)
    if tally.held:
        note(f"{_jobs(tally.held)} stayed: another job holds their unique key")
    if tally.busy:
        note(f"{_jobs(tally.busy)} stayed: somebody else has them locked; repeat the command")
    if tally.held or tally.busy:
        raise typer.Exit(1)


def _selected(act: Act, chosen: Chosen) -> Selection:
    from jobd.filters import select

    try:
        return select(act.verb, chosen.filters, takes=act.takes, unless_said=act.unless_said)
    except ConfigError as error:
        # Named as it was typed.
        raise ConfigError(option(error.setting), error.value, error.remedy) from error


async def _warn(link: Link, act: Act, selection: Selection) -> None:
    """Tell what is probably not meant, or will take long."""
    from jobd.reader import Reader

    reader = Reader(link)
    for name in await reader.unknown_queues([*(selection.queues or ()), *_targets(act)]):
        note(
            f"no process and no ready job knows a queue {name!r}: is it the right name? (`jobd queues list`)"
        )
    if selection.states & FINISHED and selection.newer_than is None:
        rows = sum(part.rows for part in await reader.extent() if part.day is not None)
        if rows > MANY_ROWS:
            note(f"looks through about {rows:,} finished jobs: --newer-than 1d would spare the older days")


async def _go(
    link: Link, act: Act, selection: Selection, chosen: Chosen, *, counts: bool, jobs: int | None = None
) -> Tally:
    """Count them, or do it: to so many jobs, where they were counted before."""
    import asyncio

    from jobd.sweep import Sweep

    with _bar(act.verb if not counts else "count", jobs) as show:
        operation = Sweep(
            link, act, selection, who=who(), limit=chosen.limit, sleep=asyncio.sleep, on_progress=show
        )
        try:
            return await (operation.count() if counts else operation.run())
        except (asyncio.CancelledError, JobdError):
            if operation.tally.jobs and not counts:
                rest = f", with {chosen.limit - operation.tally.jobs:,} as --limit" if chosen.limit else ""
                note(f"stopped: {_told(operation.tally)} so far; the same command{rest} goes on from there")
            raise


def _tell_of_running(tally: Tally) -> None:
    if tally.running:
        again = "; those that get another attempt wait in their old queue" if tally.verb == "move" else ""
        note(f"left {_jobs(tally.running)} that run{'s' if tally.running == 1 else ''}{again}")


def _targets(act: Act) -> list[str]:
    return [act.change["queue"]] if act.verb == "move" else []


@contextmanager
def _bar(what: str, jobs: int | None) -> Iterator[Callable[[Tally], None] | None]:
    """How far it is, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[jobs]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None, jobs="")

        def show(tally: Tally) -> None:
            done, total = how_far(tally, jobs)
            progress.update(task, total=total, completed=done, jobs=_jobs(tally.jobs))

        yield show


def how_far(tally: Tally, jobs: int | None) -> tuple[int, int | None]:
    """How much is done, and of how much if known: of the jobs that were counted, or of those to look at."""
    if jobs is not None:
        return min(tally.jobs + tally.held + tally.busy, jobs), jobs
    # What there is to look at is a guess of the database's.
    return tally.looked, tally.extent if tally.looked < tally.extent else None


def _told(tally: Tally) -> str:
    if not tally.asked:
        return f"{DONE[tally.verb]} {_jobs(tally.jobs)}"
    return f"cancelled {_jobs(tally.jobs - tally.asked)}, asked the workers of {tally.asked:,} to stop them"


def _in_states(tally: Tally) -> str:
    found = [f"{tally.states[state]:,} {state.value}" for state in JobState if tally.states.get(state)]
    return f" ({', '.join(found)})" if found else ""


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"
