"""The verb enqueue: a payload from the command line or stdin, and with --wait how the job ended."""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from jobd.cli.application import configured
from jobd.cli.job_options import (
    AttemptTimeout,
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
    UseCase,
    as_typed,
    backoff_of,
    json_of,
)
from jobd.cli.options import App, AsJson, DatabaseUrl, decoded, instant
from jobd.cli.output import note, print_json
from jobd.cli.session import database
from jobd.errors import ConfigError

if TYPE_CHECKING:
    from jobd.app import Jobs
    from jobd.job import Job

# Far above any max_payload; only there so that an endless stdin ends.
STDIN_LIMIT = 64 * 1_048_576

when, once, waiting = (
    partial(typer.Option, rich_help_panel=panel) for panel in ("When", "Once only", "Waiting")
)


def enqueue(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="What kind of job; handlers are registered by it.")
    ],
    payload: Annotated[
        str | None,
        typer.Argument(metavar="JSON|-", help="The payload; - reads it from stdin; {} if left out."),
    ] = None,
    delay: Annotated[
        str | None, when("--in", metavar="DURATION", help="Run it after 30s, 15m, 7d ...")
    ] = None,
    at: Annotated[str | None, when("--at", metavar="INSTANT", help="Run it then; ISO 8601.")] = None,
    queue: Queue = None,
    priority: Priority = 0,
    tenant: Tenant = None,
    use_case: UseCase = None,
    concurrency_key: ConcurrencyKey = None,
    delay_tolerance: DelayTolerance = None,
    deadline_policy: DeadlinePolicy = "run",
    max_attempts: MaxAttempts = None,
    backoff: Backoff = None,
    attempt_timeout: AttemptTimeout = None,
    tags: Tags = None,
    meta: Meta = None,
    unique_key: Annotated[
        str | None,
        once("--unique-key", metavar="KEY", help="One job of the kind holds it at a time."),
    ] = None,
    unique_for: Annotated[
        str,
        once("--unique-for", metavar="HOW", help="Holds it: unfinished, waiting, or so long, like 24h."),
    ] = "unfinished",
    on_conflict: Annotated[
        str,
        once("--on-conflict", metavar="HOW", help="Where it is held: keep that job, replace it, or reject."),
    ] = "keep",
    id: Annotated[UUID | None, once("--id", help="Makes a repeat harmless.", metavar="UUID")] = None,
    wait: Annotated[
        bool, waiting("--wait", help="Wait for its end; exit 0 if it succeeded, else 1.")
    ] = False,
    timeout: Annotated[
        str | None,
        waiting("--timeout", metavar="DURATION", help="Wait no longer than this."),
    ] = None,
    app: App = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Put a job into a queue and print its id.

    With an application (--app, JOBD_APP) its handler's queue and rules apply, and the payload is
    checked against it.

    \b
    Examples:
      jobd enqueue resize '{"key": "a.png"}' --in 10m
      jobd enqueue report --wait --timeout 1m
      cat order.json | jobd enqueue charge - --unique-key order-17
      jobd enqueue reindex --unique-key all --unique-for waiting --on-conflict replace --in 10s
    """
    if timeout is not None and not wait:
        raise ConfigError("--timeout", timeout, "is how long to --wait: add --wait, or leave it out")
    options: dict[str, Any] = {
        "delay": _duration(delay, "--in"),
        "run_at": instant(at, option="--at") if at else None,
        "queue": queue,
        "priority": priority,
        "tenant_id": tenant,
        "use_case": use_case,
        "concurrency_key": concurrency_key,
        "delay_tolerance": delay_tolerance,
        "deadline_policy": deadline_policy,
        "unique_key": unique_key,
        "unique_for": unique_for,
        "on_conflict": on_conflict,
        "max_attempts": max_attempts,
        "backoff": backoff_of(backoff),
        "timeout": attempt_timeout,
        "tags": tags or (),
        "meta": json_of(meta, "--meta"),
        "id": id,
    }
    if delay and at:
        raise ConfigError("--at", at, "and --in both say when: give one of them")
    content = (
        {} if payload is None else decoded(sys.stdin.buffer.read(STDIN_LIMIT) if payload == "-" else payload)
    )
    patience = _duration(timeout, "--timeout") if wait else None
    jobs, settings = configured(app=app, database_url=database_url)
    with database(settings) as url:
        jobs.configure(settings.model_copy(update={"database_url": url}))
        try:
            job = _run(jobs, kind, content, options, wait=wait, patience=patience, as_json=as_json)
        except ConfigError as error:
            raise as_typed(error, options, timeout="--attempt-timeout") from error
    if job is not None:
        _tell_end(job, as_json=as_json)


def _run(
    jobs: Jobs,
    kind: str,
    payload: Any,
    options: dict[str, Any],
    *,
    wait: bool,
    patience: timedelta | None,
    as_json: bool,
) -> Job | None:
    import asyncio

    async def work() -> Job | None:
        async with jobs:
            answer = await jobs.enqueue(kind, payload, **options)
            if answer.replaced:
                note(f"nothing new: job {answer.id}, which waits, has the new payload and time")
            elif answer.duplicate:
                note(f"nothing new: job {answer.id} stands for it already")
            if answer.shed:
                note(f"tenant {options['tenant_id']!r} has no room: job {answer.id} is dead, and never ran")
            if not as_json:
                typer.echo(str(answer.id))
            elif not wait:
                print_json(
                    {
                        "id": answer.id,
                        "created": answer.created,
                        "replaced": answer.replaced,
                        "shed": answer.shed,
                    }
                )
            return await jobs.wait(answer.id, timeout=patience) if wait else None

    return asyncio.run(work())


def _tell_end(job: Job, *, as_json: bool) -> None:
    from jobd.cli.jobs import as_plain
    from jobd.job import JobState

    if as_json:
        print_json(as_plain(job))
    else:
        error = job.errors[-1] if job.errors else {}
        why = f"{error.get('type')}: {error.get('message')}" if error else (job.reason or "")
        note(f"{job.state.value}" + ("" if job.state == JobState.SUCCEEDED or not why else f": {why}"))
    if job.state != JobState.SUCCEEDED:
        raise typer.Exit(1)


def _duration(text: str | None, option: str) -> timedelta | None:
    from jobd.duration import parse_duration

    return None if text is None else parse_duration(text, setting=option)
