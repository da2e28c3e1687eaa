"""Removing a day of the history without stopping those who write to today's."""

from __future__ import annotations

import asyncio
import re

from jobd.door import Database, Link
from jobd.errors import Transient

NAME = re.compile(r"^job_history_\d{8}$")
TRIES = 5


async def drop_partition(database: Database, name: str, *, half_detached: bool) -> None:
    """Detach one partition of `jobd.job_history` and drop it. Safe to repeat after any failure.

    DETACH CONCURRENTLY does not lock the parent, unlike DROP; it must run outside a transaction, and one that
    was interrupted is finished with FINALIZE. Locks are waited for two seconds at a time.
    """
    if not NAME.match(name):
        raise ValueError(f"{name!r} is no partition of the history")
    link = Link(database)
    try:
        await link.execute_plain("set lock_timeout = '2s'")
        how = "finalize" if half_detached else "concurrently"
        await _patiently(link, f"alter table jobd.job_history detach partition jobd.{name} {how}")
        await _patiently(link, f"drop table jobd.{name}")
    finally:
        await link.close()


async def _patiently(link: Link, statement: str) -> None:
    for attempt in range(1, TRIES + 1):
        try:
            await link.execute_plain(statement)
            return
        except Transient:
            if attempt == TRIES:
                raise
            await asyncio.sleep(attempt)
