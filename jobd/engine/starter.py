"""Between a claim and its run: an answer that came late may be of jobs that are somebody else's by now."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import UUID

from jobd.engine.executor import Executor
from jobd.engine.lease import Lease
from jobd.job import Claimed
from jobd.store import Store


class Starter:
    """Lives on the work loop."""

    def __init__(self, store: Store, executor: Executor, lease: Lease, *, beat: timedelta) -> None:
        self._store = store
        self._executor = executor
        self._lease = lease
        self._beat = beat.total_seconds()

    def late(self, asked_at: float) -> bool:
        """Whether beats since may have given back what was claimed then, by the monotonic clock."""
        return time.monotonic() - asked_at > self._beat

    async def start(
        self, claims: list[Claimed], worker_id: UUID, asked_at: float, *, limited: bool = False
    ) -> None:
        """Let the executor have them, if they are ours still. `limited`: they are under limits over all
        daemons."""
        if claims and (self.late(asked_at) or not self._lease.valid or worker_id != self._lease.worker_id):
            claims = await self._still_ours(claims, worker_id)
        self._executor.start(claims, limited=limited)
        if claims:
            # Let what was started run before the next statement, or quick jobs would wait for slow ones'.
            await asyncio.sleep(0)

    async def _still_ours(self, claims: list[Claimed], worker_id: UUID) -> list[Claimed]:
        """Those of claims whose answer came late, to a blocked loop say, that may still be started.

        Beats that found nobody holding them have given them back, or we are somebody else by now.
        """
        keys = [(claim.id, claim.claim_no) for claim in claims]
        if not self._lease.valid or worker_id != self._lease.worker_id:
            await self._store.release(keys)
            return []
        ours = await self._store.still_ours(keys)
        return [claim for claim in claims if claim.id in ours]
