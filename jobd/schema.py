"""What comes before a daemon's work: the database is waited for, its schema seen to as JOBD_MIGRATE says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jobd import migrate
from jobd.door import Database
from jobd.errors import DatabaseUnavailable, SchemaOutdated
from jobd.logs import get_logger
from jobd.redaction import redact_url

if TYPE_CHECKING:
    from jobd.settings import Settings


async def prepared(database: Database, settings: Settings, *, stop: asyncio.Event) -> bool:
    """Prepare the database; False when `stop` was set before that was done.

    Raises DatabaseUnavailable where waiting is of no use, and SchemaOutdated.
    """
    preparing = asyncio.ensure_future(_prepare(database, settings))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({preparing, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if preparing.done():
        preparing.result()
        return True
    preparing.cancel()
    await asyncio.wait({preparing})
    return False


async def _prepare(database: Database, settings: Settings) -> None:
    log = get_logger("jobd.daemon")
    pause = 0.25
    while True:
        try:
            match settings.migrate:
                case "auto":
                    for name in await migrate.migrate(database):
                        log.info("migrated", migration=name)
                case "check":
                    await migrate.check(database)
                case _:
                    if await migrate.found_version(database) == 0:
                        raise SchemaOutdated(0, migrate.needed_version())
            return
        except DatabaseUnavailable as outage:
            if outage.permanent:
                raise
            log.warning(
                "waiting for the database",
                database_url=redact_url(settings.database_url or ""),
                detail=outage.detail,
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)
