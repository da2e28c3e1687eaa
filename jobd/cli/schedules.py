"""Verbs about schedules: list, remove, pause, resume, trigger, history, preview. See `terms` for add."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from jobd.cli.options import AsJson, DatabaseUrl, instant
from jobd.cli.output import brief, note, print_json, print_table
from jobd.cli.session import call, who
from jobd.cli.terms import Anchor, Dst, Id, Seconds, When, Zone, occurs
from jobd.errors import ScheduleNotFound

if TYPE_CHECKING:
    from jobd.schedule_rows import ScheduleEntry, ScheduleRun
    from jobd.timetable import Timetable

Answer = TypeVar("Answer")


def list_(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Those whose ids begin so.")] = "",
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List schedules and when each occurs next.

    \b
    Example:
      jobd schedules list reminder_
    """

    async def read(timetable: Timetable) -> list[ScheduleEntry]:
        entries: list[ScheduleEntry] = []
        while page := await timetable.schedules(
            prefix=prefix, after=entries[-1].id if entries else None, count=500
        ):
            entries += page
        return [seen(entry) for entry in entries]

    from jobd.terms import seen

    entries = _ask(read, database_url)
    if as_json:
        print_json([_columns(entry) for entry in entries])
        return
    print_table(
        ["id", "when", "zone", "kind", "next", "last", "runs", "owner", "state"],
        [
            (
                *(entry.id, entry.expression, entry.time_zone, entry.kind),
                *(_next(entry), brief(entry.last_fire_at), entry.runs, entry.owner, _state(entry)),
            )
            for entry in entries
        ],
        folding=("id", "when", "state"),
        empty="no schedules" + (f" whose ids begin with {prefix!r}" if prefix else ""),
    )


def remove(id: Id, database_url: DatabaseUrl = None) -> None:
    """Forget a schedule; its jobs and its history stay.

    \b
    Example:
      jobd schedules remove nightly
    """
    _one(id, lambda timetable: timetable.remove([id]), database_url)
    typer.echo(f"schedule {id} is removed")


def pause(id: Id, database_url: DatabaseUrl = None) -> None:
    """Let no occurrence run until it is resumed.

    \b
    Example:
      jobd schedules pause nightly
    """
    _one(id, lambda timetable: timetable.pause_schedule(id, by=who()), database_url)
    typer.echo(f"schedule {id} is paused")


def resume(id: Id, database_url: DatabaseUrl = None) -> None:
    """Let occurrences run again; those of the pause are skipped.

    \b
    Example:
      jobd schedules resume nightly
    """
    _one(id, lambda timetable: timetable.resume_schedule(id), database_url)
    typer.echo(f"schedule {id} runs again")


def trigger(id: Id, database_url: DatabaseUrl = None) -> None:
    """Run an occurrence now, besides those of the schedule; print the job's id.

    \b
    Example:
      jobd schedules trigger nightly
    """
    from jobd.ids import uuid7

    job_id = uuid7()
    _one(id, lambda timetable: timetable.trigger(id, job_id=job_id), database_url)
    typer.echo(str(job_id))


def history(
    id: Id,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="So many at most.")] = 20,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Tell what became of the newest occurrences.

    \b
    Example:
      jobd schedules history nightly --json
    """

    async def read(timetable: Timetable) -> list[ScheduleRun]:
        return await timetable.occurrences(id, count=count)

    runs = _ask(read, database_url)
    if as_json:
        print_json([_plain(run) for run in runs])
        return
    print_table(
        ["fire at", "outcome", "job", "state", "ended", "reason"],
        [
            (
                _span(run),
                run.outcome if run.count == 1 else f"{run.outcome} x {run.count:,}",
                *(run.job_id or "", run.state or "", brief(run.finished_at)),
                run.reason or run.job_reason or "",
            )
            for run in runs
        ],
        folding=("reason",),
        empty=f"nothing has become of a schedule {id!r} yet",
    )


def preview(
    when: When,
    tz: Zone = "UTC",
    dst: Dst = "debian",
    seconds: Seconds = None,
    anchor: Anchor = None,
    id: Annotated[
        str | None, occurs("--id", metavar="ID", help="The schedule's, from which H is chosen.")
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=1000, help="So many.")] = 10,
    after: Annotated[
        str | None, typer.Option("--after", metavar="INSTANT", help="Those after this; now unless said.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an expression means, and when it occurs next. Needs no database.

    \b
    Example:
      jobd schedules preview "30 2 * * *" --tz Europe/Berlin --count 10
    """
    from jobd.schedule import Schedule

    schedule = Schedule.parse(
        when,
        tz=tz,
        dst=dst,  # type: ignore[arg-type]
        seconds=seconds,  # type: ignore[arg-type]
        anchor=instant(anchor, option="--anchor") if anchor else None,
        id=id,
    )
    moment: datetime | None = instant(after, option="--after") if after else datetime.now(UTC)
    fires: list[datetime] = []
    while len(fires) < count and moment is not None:
        moment = schedule.next_after(moment)
        if moment is not None:
            fires.append(moment)
    if as_json:
        print_json({"means": schedule.describe(), "fires": fires})
        return
    typer.echo(schedule.describe())
    if not fires:
        note("it never occurs after that")
    for fire in fires:
        there = fire.astimezone(schedule.zone)
        typer.echo(f"{there:%a %Y-%m-%d %H:%M:%S %Z (UTC%z)}{_clock_change(there)}")


def _clock_change(there: datetime) -> str:
    """What the clocks do on the day of a fire, if they do anything."""
    midnight = there.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    before, after = midnight.utcoffset(), (midnight + timedelta(days=1)).utcoffset()
    if before == after or before is None or after is None:
        return ""
    minutes = abs(after - before) // timedelta(minutes=1)
    return f"  <- clocks go {'forward' if after > before else 'back'} by {minutes} min that day"


def _next(entry: ScheduleEntry) -> str:
    if entry.paused_at is not None or entry.fault is not None or entry.due_at is None:
        return ""
    return brief(entry.due_at)


def _state(entry: ScheduleEntry) -> str:
    if entry.fault is not None:
        return f"faulty: {entry.fault}"
    if entry.paused_at is not None:
        return f"paused by {entry.paused_by}"
    return "ended" if entry.due_at is None else ""


def _span(run: ScheduleRun) -> str:
    return brief(run.fire_at) if run.count == 1 else f"{brief(run.fire_at)} - {brief(run.last_at)}"


def _columns(entry: ScheduleEntry) -> dict[str, Any]:
    """Its columns by name, durations in `_seconds`."""
    columns = {field.name: getattr(entry, field.name) for field in fields(entry)}
    for name in ("delay_tolerance", "timeout", "stagger", "misfire_grace", "jitter"):
        columns[f"{name}_seconds"] = columns.pop(name)
    return columns


def _plain(run: ScheduleRun) -> dict[str, Any]:
    """With the names that scripts around cron jobs expect."""
    message = None if run.error is None else f"{run.error.get('type')}: {run.error.get('message')}"
    return {
        "schedule_id": run.schedule_id,
        "fire_at": run.fire_at,
        "last_at": run.last_at,
        "count": run.count,
        "outcome": run.outcome,
        "reason": run.reason,
        "job_id": run.job_id,
        "job_type": run.kind,
        "started_at": run.started_at,
        "completed_at": run.finished_at,
        "success": None if run.finished_at is None else run.state == "succeeded",
        "error_message": None if run.state == "succeeded" else message or run.job_reason,
    }


def _one(id: str, move: Callable[[Timetable], Awaitable[object]], database_url: str | None) -> None:
    if not _ask(move, database_url):
        raise ScheduleNotFound(id)


def _ask(work: Callable[[Timetable], Awaitable[Answer]], database_url: str | None) -> Answer:
    from jobd.door import Link
    from jobd.timetable import Timetable

    async def asked(link: Link) -> Answer:
        return await work(Timetable(link))

    return call(asked, database_url=database_url)
