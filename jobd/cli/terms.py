"""The verb schedules add: every option that a schedule has is one here, so that --replace forgets none."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer

from jobd.cli.application import configured
from jobd.cli.options import App, DatabaseUrl, decoded, instant
from jobd.cli.output import local
from jobd.cli.session import database
from jobd.errors import ConfigError, PayloadError

occurs, late, job = (partial(typer.Option, rich_help_panel=panel) for panel in ("When", "If late", "The job"))

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
# Those whose flag is not the option's own name.
FLAGS = {"tenant_id": "--tenant", "tags": "--tag"}


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
    queue: Annotated[
        str | None, job("--queue", metavar="NAME", help="The handler's queue unless said.")
    ] = None,
    priority: Annotated[int, job("--priority", metavar="N", help="Higher runs first within a queue.")] = 0,
    tenant_id: Annotated[str | None, job("--tenant", metavar="NAME", help="On whose behalf.")] = None,
    use_case: Annotated[str | None, job("--use-case", metavar="NAME", help="What for.")] = None,
    concurrency_key: Annotated[
        str | None, job("--concurrency-key", metavar="TEXT", help="Limits how many of the key run at once.")
    ] = None,
    delay_tolerance: Annotated[
        str | None,
        job("--delay-tolerance", metavar="DURATION", help="How long after it is due it may start."),
    ] = None,
    deadline_policy: Annotated[
        str, job("--deadline-policy", metavar="RULE", help="Later than that: run or drop.")
    ] = "run",
    max_attempts: Annotated[
        int | None, job("--max-attempts", metavar="N", help="Dead after so many.")
    ] = None,
    backoff: Annotated[
        str | None,
        job("--backoff", metavar="RULE|JSON", help='exponential, linear, constant or {"base": "10s", ...}.'),
    ] = None,
    timeout: Annotated[str | None, job("--timeout", metavar="DURATION", help="Of one attempt.")] = None,
    tags: Annotated[list[str] | None, job("--tag", metavar="TAG", help="To find it by; repeatable.")] = None,
    meta: Annotated[str | None, job("--meta", metavar="JSON", help="What handlers see as ctx.meta.")] = None,
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
        "backoff": _json(backoff, "--backoff") if backoff and backoff.startswith("{") else backoff,
        "timeout": timeout,
        "tags": tags,
        "meta": _json(meta, "--meta"),
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
            name, dot, part = error.setting.partition(".")
            if name not in said:
                raise
            # It was an option of this very command line that was wrong: name it as it was typed.
            flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{flag}{dot}{part}", error.value, error.remedy) from error
    typer.echo(f"schedule {id} occurs first at {local(first)}")


def _instant(text: str | None, option: str) -> datetime | None:
    return None if text is None else instant(text, option=option)


def _json(text: str | None, option: str) -> Any:
    try:
        return None if text is None else decoded(text)
    except PayloadError as error:
        raise ConfigError(option, text, f"{error.problem}; {error.remedy}".removesuffix("; ")) from error
