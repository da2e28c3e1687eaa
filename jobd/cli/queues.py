"""Verbs about queues: queues list, set, pause, resume, drain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobd.cli.limits import (
    Burst,
    MaxRunning,
    RateText,
    ask,
    back_to_declared,
    of,
    otherwise,
    plain,
    rate_text,
    said,
    set_and_show,
)
from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import ago, local, note, print_json, print_table
from jobd.cli.session import call, who

if TYPE_CHECKING:
    from datetime import datetime

    from jobd.door import Link
    from jobd.quotas import QueueLimits
    from jobd.reader import Depth

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]


def list_(as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List queues, how full they are, and their limits.

    \b
    Example:
      jobd queues list
    """

    async def read(link: Link) -> tuple[Sequence[Depth], dict[str, QueueLimits]]:
        from jobd.quotas import Quotas
        from jobd.reader import Reader

        return await Reader(link).depths(), {row.name: row for row in await Quotas(link).queues()}

    from jobd.quotas import QueueLimits

    depths, limits = call(read, database_url=database_url)
    held = [limits.get(depth.queue) or QueueLimits(name=depth.queue) for depth in depths]
    if as_json:
        hidden = {"name", "running"}
        print_json(
            [
                asdict(depth) | {name: value for name, value in plain(row).items() if name not in hidden}
                for depth, row in zip(depths, held, strict=True)
            ]
        )
        return
    print_table(
        ["queue", "ready", "scheduled", "running", "rate", "shares", "oldest ready", "paused", "declared"],
        [
            (
                *(depth.queue, depth.ready, depth.scheduled, of(depth.running, row.max_running)),
                *(rate_text(row.rate, row.burst), _shares(row), ago(depth.oldest_ready_seconds)),
                f"since {local(depth.paused_at)} by {depth.paused_by or 'unknown'}"
                if depth.paused_at
                else "",
                otherwise(row),
            )
            for depth, row in zip(depths, held, strict=True)
        ],
        folding=("paused", "declared"),
        empty="no queues: none was served or used yet",
    )


def _shares(row: QueueLimits) -> str:
    return ", ".join(
        [*(["fair"] if row.fair else []), *([f"weight {row.weight}"] if row.weight != 1 else [])]
    )


def set_(
    queue: Name,
    max_running: MaxRunning = None,
    rate: RateText = None,
    burst: Burst = None,
    fair: Annotated[
        bool | None,
        typer.Option("--fair/--unfair", help="Tenants take turns, by weight, whatever each has waiting."),
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option("--weight", metavar="N", help="Its part of a process's slots; 1 unless said."),
    ] = None,
    delay_tolerance: Annotated[
        str | None,
        typer.Option(
            "--delay-tolerance", metavar="DURATION|none", help="So late may those start that say nothing."
        ),
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Set limits of a queue over all daemons; those that are not named stay as they are.

    They hold with the next claim, without a restart. What runs goes on.

    \b
    Examples:
      jobd queues set mail --max-running 10 --rate 100/m --fair
      jobd queues set mail --rate none
    """
    from jobd.limits import set_queue

    limits = said(
        max_running=max_running, rate=rate, burst=burst, fair=fair, weight=weight,
        delay_tolerance=delay_tolerance,
    )  # fmt: skip
    set_and_show("queues", queue, limits, set_queue, database_url)


def drain(
    queue: Name,
    backlog: Annotated[
        bool, typer.Option("--backlog", help="Do not pause it: wait until nothing is ready either.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="DURATION", help="Wait no longer than this.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Pause a queue and wait until none of its jobs runs.

    It stays paused: `jobd queues resume` opens it. Jobs can be enqueued all the while, and wait. With
    --backlog it is not paused, and its daemons work off what is ready, for ever while more comes.

    \b
    Example:
      jobd queues drain mail --timeout 10m
    """
    import asyncio

    from jobd.duration import parse_duration
    from jobd.limits import drain as drained

    patience = None if timeout is None else parse_duration(timeout, setting="--timeout")

    last: list[str] = []

    def tell(running: int, ready: bool) -> None:
        told = f"{running or 'none'} of its jobs {'run' if running > 1 else 'runs'}"
        told += ", and some are ready" if backlog and ready else ""
        if last[-1:] != [told]:
            last.append(told)
            note(told)

    ask(
        lambda quotas: drained(
            quotas, queue, backlog=backlog, timeout=patience, by=who(), sleep=asyncio.sleep, told=tell
        ),
        database_url,
    )
    typer.echo(
        f"queue {queue} is drained" + ("" if backlog else f", and paused: `jobd queues resume {queue}`")
    )


def pause(queue: Name, database_url: DatabaseUrl = None) -> None:
    """Stop all daemons from taking jobs of a queue.

    What runs goes on, and jobs can still be enqueued. A queue that nobody knows yet can be paused, too.

    \b
    Example:
      jobd queues pause images
    """

    from jobd.registry import check_name

    check_name("queue", queue)

    async def move(link: Link) -> tuple[bool, datetime]:
        from jobd.fleet import Fleet
        from jobd.reader import Reader

        known = any(depth.queue == queue for depth in await Reader(link).depths())
        return known, await Fleet(link).pause(queue, by=who())

    known, since = call(move, database_url=database_url)
    if not known:
        note(f"no process and no job knows a queue {queue!r} yet: is it the right name? (`jobd queues list`)")
    typer.echo(f"queue {queue} is paused since {local(since)}")


def resume(queue: Name, database_url: DatabaseUrl = None) -> None:
    """Let daemons take jobs of a paused queue again.

    \b
    Example:
      jobd queues resume images
    """

    async def move(link: Link) -> None:
        from jobd.fleet import Fleet

        await Fleet(link).resume(queue, by=who())

    call(move, database_url=database_url)
    typer.echo(f"queue {queue} is served again")


def reset(queue: Name, database_url: DatabaseUrl = None) -> None:
    """Take what was set at run time back: its limits are those of files again, or none.

    A pause stays.

    \b
    Example:
      jobd queues reset mail
    """
    back_to_declared("queues", "queue", queue, database_url)
