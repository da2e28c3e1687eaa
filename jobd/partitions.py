"""Removing a day of the history, or of tombstones, without stopping those who write to today's."""

from __future__ import annotations

import re

from jobd.door import Database, Link
from jobd.errors import Transient

NAME = re.compile(r"^(job_history|tombstones)_\d{8}$")


async def drop_partition(database: Database, name: str, *, detached: bool | None) -> None:
    """Detach a partition of `jobd.job_history` or `jobd.tombstones` and drop it.

    Safe to repeat after any failure.
    `detached` is True where that was done before, None where it was left half done.

    DETACH CONCURRENTLY does not lock the parent, unlike DROP; it runs outside a transaction, and one that
    was interrupted, by a lock time-out too, can only be finished with FINALIZE. Behind a pooler, where a
    session is not ours to set up, a plain DETACH locks the parent for a moment instead. Locks are
    waited for two seconds at a time.
    """
    named = NAME.match(name)
    if named is None:
        raise ValueError(f"{name!r} is no partition of the history, nor of the tombstones")
    detach = f"alter table jobd.{named[1]} detach partition jobd.{name}"
    link = Link(database)
    try:
        await link.opened()
        if not database.prepares:
            how = {False: f"{detach};", None: f"{detach} finalize;", True: ""}[detached]
            await link.execute_plain(
                f"begin; set local lock_timeout = '2s'; {how} drop table jobd.{name}; commit"
            )
            return
        await link.execute_plain("set lock_timeout = '2s'")
        if detached is False:
            try:
                await link.execute_plain(f"{detach} concurrently")
            except Transient:
                detached = None
        if detached is None:
            await link.execute_plain(f"{detach} finalize")
        await link.execute_plain(f"drop table jobd.{name}")
    finally:
        await link.close()
