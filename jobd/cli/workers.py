"""The verb workers: which processes share the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobd.cli.options import AsJson, DatabaseUrl
from jobd.cli.output import ago, brief, print_json, print_table
from jobd.cli.session import call

if TYPE_CHECKING:
    from jobd.door import Link
    from jobd.reader import Worker


def workers(as_json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List the daemons: where, what they serve, how busy.

    \b
    Example:
      jobd workers
    """

    async def read(link: Link) -> Sequence[Worker]:
        from jobd.reader import Reader

        return await Reader(link).workers()

    found = call(read, database_url=database_url)
    if as_json:
        print_json(found)
        return
    now = datetime.now(UTC)
    print_table(
        ["id", "state", "busy", "queues", "roles", "host", "pid", "started at", "last beat", "version"],
        [
            (
                worker.id,
                "lapsed" if not worker.alive else "stopping" if worker.stopping_at else "alive",
                f"{worker.running}/{worker.concurrency}",
                " ".join(worker.queues),
                " ".join(worker.roles),
                *(worker.host, worker.pid, brief(worker.started_at)),
                f"{ago(max((now - worker.beat_at).total_seconds(), 0))} ago",
                worker.version,
            )
            for worker in found
        ],
        folding=("queues", "roles", "host"),
        empty="no daemon runs on this database: start one with `jobd run`",
    )
