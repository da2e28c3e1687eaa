"""Verbs about queues: queues list, pause, resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import ago, local, note, print_json, print_table
from jobd.cli.session import call

if TYPE_CHECKING:
    from datetime import datetime

    from jobd.door import Link
    from jobd.reader import Depth

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]


def list_(as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List queues and how full they are.

    \b
    Example:
      jobd queues list
    """

    async def read(link: Link) -> Sequence[Depth]:
        from jobd.reader import Reader

        return await Reader(link).depths()

    depths = call(read, database_url=database_url)
    if as_json:
        print_json(depths)
        return
    print_table(
        ["queue", "ready", "scheduled", "running", "oldest ready", "paused"],
        [
            (
                *(depth.queue, depth.ready, depth.scheduled, depth.running, ago(depth.oldest_ready_seconds)),
                f"since {local(depth.paused_at)} by {depth.paused_by or 'unknown'}"
                if depth.paused_at
                else "",
            )
            for depth in depths
        ],
        folding=("paused",),
        empty="no queues: none was served or used yet",
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

        await Fleet(link).resume(queue)

    call(move, database_url=database_url)
    typer.echo(f"queue {queue} is served again")


def who() -> str:
    """Who pauses, for those who find the queue paused later."""
    import getpass
    import socket

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name, as in containers
        return socket.gethostname()
