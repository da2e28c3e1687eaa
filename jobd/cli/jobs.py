"""Verbs that read jobs: list, show."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import brief, local, print_block, print_fields, print_json, print_table
from jobd.cli.session import call
from jobd.job import Job, JobState

if TYPE_CHECKING:
    from jobd.door import Link

SHOWN_ERRORS = 3
# What the words of `unique_for` mean; anything else is a window.
UNIQUE_FOR = {
    None: "until it has ended",
    "waiting": "until it is claimed",
    "lost": "no longer: another job took it while this one ran",
}


only = partial(typer.Option, rich_help_panel="Filters")


def list_(
    state: Annotated[
        JobState | None,
        only("--state", metavar="STATE", help="scheduled, ready, running, succeeded, cancelled or dead."),
    ] = None,
    queue: Annotated[str | None, only("--queue", metavar="NAME", help="Only of this queue.")] = None,
    kind: Annotated[str | None, only("--kind", metavar="KIND", help="Only of this kind.")] = None,
    tenant: Annotated[str | None, only("--tenant", metavar="NAME", help="Only of this tenant.")] = None,
    before: Annotated[UUID | None, only("--before", metavar="ID", help="Older than this job.")] = None,
    limit: Annotated[int, only("--limit", "-n", metavar="N", min=1, max=1_000, help="At most so many.")] = 20,
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List jobs, the newest first.

    Waiting, running and finished ones. `at` is when one finished, was claimed, or is due, in local time.
    The next page: --before with the last id.

    \b
    Examples:
      jobd list --state dead --kind resize
      jobd list --json -n 1000 | jq -r '.[].id' | xargs jobd retry
    """

    async def read(link: Link) -> list[Job]:
        from jobd.reader import Reader

        return await Reader(link).list(
            state=state, queue=queue, kind=kind, tenant_id=tenant, before=before, count=limit
        )

    jobs = call(read, database_url=database_url)
    if as_json:
        print_json([as_plain(job) for job in jobs])
        return
    with_tenant = any(job.tenant_id for job in jobs)
    columns = ["id", "kind", "queue", "state", "tries", "at"]
    print_table(
        [*columns, "tenant"] if with_tenant else columns,
        [
            (
                *(job.id, job.kind, job.queue, job.state.value, _attempt(job)),
                brief(job.finished_at or job.claimed_at or job.run_at),
                *((job.tenant_id,) if with_tenant else ()),
            )
            for job in jobs
        ],
        folding=("kind", "queue", "tenant"),
        empty="no jobs",
    )


def show(
    id: Annotated[UUID, typer.Argument(metavar="ID", help="The job's id.")],
    as_json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show all about one job: payload, timings, result, errors.

    \b
    Examples:
      jobd show 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10
      jobd show 0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10 --json | jq .result
    """

    async def read(link: Link) -> Job:
        from jobd.reader import Reader

        return await Reader(link).get(id)

    job = call(read, database_url=database_url)
    if as_json:
        print_json(as_plain(job))
    else:
        print_job(job)


def as_plain(job: Job) -> dict[str, Any]:
    """A job for `print_json`: its columns by name, durations in `_seconds`."""
    columns = asdict(job)
    for name in ("delay_tolerance", "timeout"):
        columns[f"{name}_seconds"] = columns.pop(name)
    return columns


def print_job(job: Job) -> None:
    """A job for people."""
    from jobd.duration import format_duration

    progress = job.progress or {}
    took = job.finished_at - job.claimed_at if job.finished_at and job.claimed_at else None
    print_fields(
        [
            ("id", job.id),
            ("kind", job.kind),
            ("queue", job.queue),
            ("tenant", job.tenant_id),
            ("use case", job.use_case),
            ("state", job.state.value),
            ("reason", job.reason),
            (
                "progress",
                f"{progress.get('fraction', 0):.0%} {progress.get('note', '')}" if progress else None,
            ),
            ("attempt", _attempt(job)),
            ("crashes", job.crashes or None),
            ("generation", job.generation or None),
            ("priority", job.priority or None),
            ("created at", local(job.created_at)),
            ("run at", local(job.run_at)),
            (
                "deadline at",
                f"{local(job.deadline_at)} ({job.deadline_policy})" if job.delay_tolerance else None,
            ),
            ("claimed at", local(job.claimed_at)),
            ("worker", job.worker_id),
            ("cancel asked at", local(job.cancel_requested_at)),
            ("finished at", local(job.finished_at)),
            ("took", format_duration(took) if took else None),
            ("unique key", job.unique_key),
            ("unique for", UNIQUE_FOR.get(job.unique_for, job.unique_for) if job.unique_key else None),
            ("concurrency key", job.concurrency_key),
            ("timeout", format_duration(job.timeout) if job.timeout else None),
            ("backoff", job.backoff),
            ("tags", ", ".join(job.tags)),
            ("meta", job.headers.get("meta")),
        ]
    )
    if job.kept:
        print_block("payload", _pretty(job.payload))
    if job.result is not None:
        print_block("result", _pretty(job.result))
    if (earlier := len(job.errors) - SHOWN_ERRORS) > 0:
        print_block("errors", f"{earlier} earlier ones: --json shows all")
    for error in job.errors[-SHOWN_ERRORS:]:
        title = f"error of attempt {error.get('attempt')} at {_instant(error.get('at'))}"
        what = f"{error.get('type')}: {error.get('message')}"
        trace = str(error.get("traceback") or "").strip()
        print_block(title, trace if trace.endswith(what) else f"{what}\n{trace}".strip())


def _attempt(job: Job) -> str:
    if not job.kept:
        return ""
    return f"{job.attempt}/{job.max_attempts}" if job.max_attempts else str(job.attempt)


def _instant(written: object) -> str:
    from datetime import datetime

    try:
        return local(datetime.fromisoformat(str(written)))
    except ValueError:
        return str(written)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
