"""The verb schedules add: every option that a schedule has is one here, so that --replace forgets none."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer

from jobd.cli.application import configured
from jobd.cli.job_options import (
    Backoff,
    ConcurrencyKey,
    DeadlinePolicy,
    DelayTolerance,
    MaxAttempts,
    Meta,
    Priority,
    Queue,
    Tags,
    Tenant,
    Timeout,
    UseCase,
    as_typed,
    backoff_of,
    json_of,
)
from jobd.cli.options import App, DatabaseUrl, decoded, instant
from jobd.cli.output import local
from jobd.cli.session import database
from jobd.errors import ConfigError

occurs, late = (partial(typer.Option, rich_help_panel=panel) for panel in ("When", "If late"))

Id = Annotated[str, typer.Argument(metavar="ID", help="The schedule's id.")]
When = Annotated[
    str, typer.Argument(metavar="WHEN", help='"30 2 * * *", "every 15m", "rate(5 minutes)" or an instant.')
]
Zone = Annotated[str, occurs("--tz", "--timezone", metavar="ZONE", help="Of its clock, like Europe/Berlin.")]
Dst = Annotated[str, occurs("--dst", metavar="RULE", help="When clocks change: debian, skip or both.")]
Seconds = Annotated[
    str | None,
    occurs("--seconds", metavar="PLACE", help="Of six fields, where seconds stand: first or last."),
]
Anchor = Annotated[
    str | None, occurs("--anchor", metavar="INSTANT", help="Where an interval counts from; 1970 unless said.")
]


def add(
    id: Id,
    when: When,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What kind of job.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload; {} if left out.")] = "{}",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Also where the id exists: what is not said is the default again."),
    ] = False,
    tz: Zone = "UTC",
    dst: Dst = "debian",
    seconds: Seconds = None,
    anchor: Anchor = None,
    starts_at: Annotated[
        str | None, occurs("--starts-at", metavar="INSTANT", help="No occurrence before.")
    ] = None,
    ends_at: Annotated[str | None, occurs("--ends-at", metavar="INSTANT", help="None after.")] = None,
    max_runs: Annotated[int | None, occurs("--max-runs", metavar="N", help="No more than so many.")] = None,
    jitter: Annotated[
        str | None, occurs("--jitter", metavar="DURATION", help="Spread occurrences over this time.")
    ] = None,
    catch_up: Annotated[
        str, late("--catch-up", metavar="RULE", help="After a downtime: last, skip or all.")
    ] = "last",
    cap: Annotated[int, late("--cap", metavar="N", help="Of all, run so many at most.")] = 100,
    stagger: Annotated[
        str | None, late("--stagger", metavar="DURATION", help="Of all, so far apart.")
    ] = None,
    misfire_grace: Annotated[
        str | None,
        late(
            "--misfire-grace",
            metavar="DURATION",
            help="How late one may start; without limit unless said (skip: 300s).",
        ),
    ] = None,
    overlap: Annotated[
        str, late("--overlap", metavar="RULE", help="While one runs: skip, queue or replace.")
    ] = "skip",
    max_instances: Annotated[
        int, late("--max-instances", metavar="N", help="So many jobs may be unfinished at once.")
    ] = 1,
    queue: Queue = None,
    priority: Priority = 0,
    tenant_id: Tenant = None,
    use_case: UseCase = None,
    concurrency_key: ConcurrencyKey = None,
    delay_tolerance: DelayTolerance = None,
    deadline_policy: DeadlinePolicy = "run",
    max_attempts: MaxAttempts = None,
    backoff: Backoff = None,
    timeout: Timeout = None,
    tags: Tags = None,
    meta: Meta = None,
    app: App = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Let a job occur again and again, or once.

    With an application (--app, JOBD_APP) its handler's queue applies, and the payload is checked against it.

    \b
    Examples:
      jobd schedules add nightly "30 2 * * *" report --tz Europe/Berlin
      jobd schedules add ping "every 15m" ping '{"host": "a"}' --replace
    """
    said: dict[str, Any] = {
        "tz": tz,
        "dst": dst,
        "seconds": seconds,
        "anchor": _instant(anchor, "--anchor"),
        "starts_at": _instant(starts_at, "--starts-at"),
        "ends_at": _instant(ends_at, "--ends-at"),
        "max_runs": max_runs,
        "jitter": jitter,
        "catch_up": catch_up,
        "cap": cap,
        "stagger": stagger,
        "misfire_grace": misfire_grace,
        "overlap": overlap,
        "max_instances": max_instances,
        "queue": queue,
        "priority": priority,
        "tenant_id": tenant_id,
        "use_case": use_case,
        "concurrency_key": concurrency_key,
        "delay_tolerance": delay_tolerance,
        "deadline_policy": deadline_policy,
        "max_attempts": max_attempts,
        "backoff": backoff_of(backoff),
        "timeout": timeout,
        "tags": tags,
        "meta": json_of(meta, "--meta"),
    }
    options = {name: value for name, value in said.items() if value is not None}
    content = decoded(payload)
    jobs, settings = configured(app=app, database_url=database_url)

    async def added() -> datetime:
        async with jobs:
            return await jobs.schedules.add(id, when, kind, content, replace=replace, **options)

    with database(settings) as url:
        import asyncio

        jobs.configure(settings.model_copy(update={"database_url": url}))
        try:
            first = asyncio.run(added())
        except ConfigError as error:
            raise as_typed(error, said) from error
    typer.echo(f"schedule {id} occurs first at {local(first)}")


def _instant(text: str | None, option: str) -> datetime | None:
    return None if text is None else instant(text, option=option)
