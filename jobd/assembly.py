"""What the roles of one process share, made from plain settings.

    assembly
      +- work_roles       makes those of the work loop
      +- control_roles    makes those of the control thread

Every role gets a connection of its own, on the loop that it lives on, so that none can wait for
another and no handler can exhaust them. `daemon` decides when each runs and ends.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from jobd.app import Jobs
from jobd.door import Database, Link
from jobd.engine.holdings import Holdings
from jobd.engine.lease import Lease
from jobd.events import Events, UniqueKeyLost
from jobd.served import code_schedules, declared_limits, file_schedules

if TYPE_CHECKING:
    from jobd.settings import Settings


class Assembly:
    """Made once a process, on the work loop."""

    def __init__(
        self, jobs: Jobs, settings: Settings, *, roles: Sequence[str], queues: Sequence[str]
    ) -> None:
        assert settings.database_url is not None
        self.jobs = jobs
        self.settings = settings
        self.roles = tuple(roles)
        self.queues = tuple(queues)
        self.declared = {
            jobs.owner: code_schedules(jobs),
            f"file:{jobs.module}": file_schedules(jobs, settings),
        }
        self.limits = declared_limits(jobs, settings)
        # Subscriptions made here end with the daemon; the application's own stay.
        self.heard = Events()
        self.end_relay = jobs.events.relay(self.heard)
        self.events = jobs.events
        self.database = Database(settings.database_url, prepared_statements=settings.prepared_statements)
        self.lease = Lease(period=settings.lease)
        self.holdings = Holdings()
        self.terse_queues = {name for name, queue in settings.queues.items() if queue.keep != "all"}
        self.rng = random.Random()
        self._work_links: list[Link] = []
        self._control_links: list[Link] = []

    def work_link(self) -> Link:
        """A connection for a role of the work loop."""
        self._work_links.append(Link(self.database))
        return self._work_links[-1]

    def control_link(self) -> Link:
        """A connection for a role of the control thread."""
        self._control_links.append(Link(self.database))
        return self._control_links[-1]

    async def close_work_links(self) -> None:
        """On the work loop, when its roles have ended."""
        for link in self._work_links:
            await link.close()

    async def close_control_links(self) -> None:
        """On the control thread, when its roles have ended."""
        for link in self._control_links:
            await link.close()

    def key_lost(self, id: UUID) -> None:
        """A job came back and found its unique key taken."""
        self.events.emit(UniqueKeyLost(id))
