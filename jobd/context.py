"""What a handler is given to know and to do: the `JobContext` of one run."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

from jobd.engine.holdings import Run
from jobd.errors import CallTimeout, ClaimLost, DatabaseUnavailable, HandlerError, Transient
from jobd.job import FinishedRun, JobState
from jobd.outcomes import Cancel
from jobd.payload import encode_result
from jobd.storable import storable_text
from jobd.store import Store
from jobd.transaction import effect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobd.app import Jobs
    from jobd.pool import Pool

T = TypeVar("T")
PROGRESS_INTERVAL = 1.0


class JobContext:
    """One run, as its handler sees it.

    Annotate a parameter with this class and it is given. A handler is still a plain function: a test
    that calls it passes whatever has the attributes that it uses.
    """

    __jobd_context__: ClassVar[bool] = True

    def __init__(
        self,
        run: Run,
        *,
        jobs: Jobs,
        pool: Pool,
        max_attempts: int,
        timeout: float,
        max_result: int,
        terse: bool = False,
    ) -> None:
        self.jobs: Jobs = jobs
        self.max_attempts: int = max_attempts
        self._run = run
        self._claim = run.claim
        self._timeout = timeout
        self._pool = pool
        self._max_result = max_result
        self._terse = terse
        self._headers: dict[str, Any] | None = None
        self._log: Any = None
        self._loop = asyncio.get_running_loop()
        self._progress_at = 0.0
        self._result: str | None = None
        self._in_transaction = False
        self._asked_to_stop = False

    @property
    def id(self) -> UUID:
        """The job's."""
        return self._claim.id

    @property
    def kind(self) -> str:
        """Which handler runs."""
        return self._claim.kind

    @property
    def queue(self) -> str:
        """Where the job came from."""
        return self._claim.queue

    @property
    def tenant_id(self) -> str | None:
        """Whose job it is, as said at enqueue."""
        return self._claim.tenant_id

    @property
    def use_case(self) -> str | None:
        """What for, as said at enqueue."""
        return self._claim.use_case

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._claim.attempt

    @property
    def generation(self) -> int:
        """How often an operator has put the job back since it was enqueued."""
        return self._claim.generation

    @property
    def claim_no(self) -> int:
        """The identity of this run among all of the job's."""
        return self._claim.claim_no

    @property
    def priority(self) -> int:
        """Higher runs first."""
        return self._claim.priority

    @property
    def run_at(self) -> datetime:
        """When the job was due."""
        return self._claim.run_at

    @property
    def created_at(self) -> datetime:
        """When it was enqueued."""
        return self._claim.created_at

    @property
    def deadline(self) -> datetime | None:
        """`run_at` and the delay tolerance; None for a job without one."""
        return None if self._claim.delay_tolerance is None else self._claim.deadline_at

    @property
    def times_out_at(self) -> datetime:
        """When this attempt is stopped, by the database's clock."""
        return self._claim.claimed_at + timedelta(seconds=self._run.waited + self._timeout)

    @property
    def tags(self) -> list[str]:
        """The tags given at enqueue."""
        return list(self._read_headers().get("tags", ()))

    @property
    def meta(self) -> dict[str, Any]:
        """The meta given at enqueue."""
        return dict(self._read_headers().get("meta", {}))

    @property
    def fire_at(self) -> datetime | None:
        """The occurrence of the schedule that made this job; None for a job that no schedule made."""
        text = self._read_headers().get("fire_at")
        return None if text is None else datetime.fromisoformat(text)

    @property
    def last_success_at(self) -> datetime | None:
        """When a job of the same schedule last succeeded, as it stood when this one was made."""
        text = self._read_headers().get("last_success_at")
        return None if text is None else datetime.fromisoformat(text)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this generation: for peers that recognise repeats."""
        return f"{self.id}:{self.generation}"

    @property
    def log(self) -> Any:
        """A logger whose lines carry the job's id, kind, queue and attempt. Keep payloads out of it."""
        if self._log is None:
            from jobd.logs import get_logger

            self._log = get_logger("jobd.job").bind(
                job_id=str(self.id), kind=self.kind, queue=self.queue, attempt=self.attempt
            )
        return self._log

    @property
    def cancelled(self) -> bool:
        """True once this run shall stop. A coroutine is cancelled anyway; a thread has to look here."""
        return self._asked_to_stop

    def raise_if_cancelled(self) -> None:
        """Raise `Cancel` once this run shall stop; for handlers in threads."""
        if self._asked_to_stop:
            raise Cancel(self._run.stop.value if self._run.stop else "")

    def ask_to_stop(self) -> None:
        """Called by the engine."""
        self._asked_to_stop = True

    async def progress(self, fraction: float, note: str = "") -> None:
        """Show how far the run is: `fraction` of 1, and a word about it. Written at most once a second.

        A hint: what an outage of the database swallows is not made up for. Raises ClaimLost when
        the job is no longer ours.
        """
        now = time.monotonic()
        if now - self._progress_at < PROGRESS_INTERVAL:
            return
        self._progress_at = now
        share = 0.0 if math.isnan(fraction) else min(max(float(fraction), 0.0), 1.0)
        text = json.dumps({"fraction": share, "note": storable_text(note, max_chars=500)})
        if self._run.recorded:
            return
        try:
            ours = await Store(self._pool).progress(self.id, self.claim_no, text)
        except (DatabaseUnavailable, CallTimeout, Transient):
            return
        if not ours:
            raise ClaimLost(self.id, self.claim_no)

    def set_result(self, result: Any) -> None:
        """The result to record at the end of `transaction()`; anything else is returned instead."""
        self._result, _changed = encode_result(result, max_bytes=self._max_result)

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A transaction on an asyncpg connection in which this job also succeeds: exactly-once effects.

        At the block's exit the handler's writes and the end of the job become durable together; what
        the handler returns or raises later is only logged. An exception in the block undoes both, and
        the run fails as usual. Raises ClaimLost, undoing both, if another worker took the job over.
        """
        if self._in_transaction:
            raise HandlerError(
                f"handler {self.kind!r} opens ctx.transaction() a second time: the job ends with the first; "
                "put all writes into one block"
            )
        self._in_transaction = True
        return self._effect()

    @asynccontextmanager
    async def _effect(self) -> AsyncIterator[Any]:
        async with effect(
            self._pool, self._success, terse=self._terse, on_commit=self._recorded
        ) as connection:
            yield connection

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """From a handler in a thread: run a coroutine, such as `ctx.progress(...)`, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _success(self) -> FinishedRun:
        return FinishedRun(id=self.id, claim_no=self.claim_no, state=JobState.SUCCEEDED, result=self._result)

    def _recorded(self) -> None:
        self._run.recorded = True

    def _read_headers(self) -> dict[str, Any]:
        if self._headers is None:
            self._headers = json.loads(self._run.claim.headers) if self._run.claim.headers else {}
        return self._headers
