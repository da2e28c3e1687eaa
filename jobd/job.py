"""The nouns: a job as it is stored, as it is enqueued, as it is claimed, and as its run ended.

Plain data without behaviour. What may happen to a job is in `lifecycle`; how it is stored is in
`store` and `sql/`. Instants are aware datetimes; payloads and results are decoded JSON here, and
JSON text on the way to and from the database.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class JobState(StrEnum):
    """Where a job is in its life; the drawing is in `lifecycle`."""

    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def finished(self) -> bool:
        """True for the states that only an operator's retry leaves."""
        return self in FINISHED


FINISHED = frozenset({JobState.SUCCEEDED, JobState.CANCELLED, JobState.DEAD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of `jobd.all_jobs`.

    `kept` is False for a finished job whose queue does not keep it (`[queues.NAME] keep`). Then only id,
    queue, kind, tenant_id, state, claim_no and finished_at are known, for a day; `reason` says so, errors
    and headers are empty, and all else is None, also where the type of a kept job's field has no None.
    """

    id: UUID
    queue: str
    kind: str
    tenant_id: str | None
    use_case: str | None
    state: JobState
    reason: str | None
    priority: int
    run_at: datetime
    deadline_at: datetime
    delay_tolerance: timedelta | None
    deadline_policy: str
    payload: Any
    result: Any
    attempt: int
    max_attempts: int | None
    crashes: int
    generation: int
    claim_no: int
    worker_id: UUID | None
    created_at: datetime
    claimed_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    unique_key: str | None
    concurrency_key: str | None
    backoff: dict[str, Any] | None
    timeout: timedelta | None
    errors: list[dict[str, Any]]
    progress: dict[str, Any] | None
    headers: dict[str, Any]
    kept: bool = True
    unique_for: str | None = None
    """How long it holds its unique key: None, until it has ended; `waiting`, until it is claimed; `lost`, no
    longer, since another job took it while this one ran; else so long after its enqueue, like `1h30m`."""

    @property
    def tags(self) -> list[str]:
        """The tags given at enqueue."""
        return list(self.headers.get("tags", ()))


class NewJob(NamedTuple):
    """A job on its way into the database. None means: the default of the handler, the queue or jobd."""

    id: UUID
    kind: str
    payload: str
    queue: str = "default"
    tenant_id: str | None = None
    use_case: str | None = None
    priority: int = 0
    run_at: datetime | None = None
    delay: timedelta | None = None
    delay_tolerance: timedelta | None = None
    deadline_policy: str = "run"
    max_attempts: int | None = None
    unique_key: str | None = None
    concurrency_key: str | None = None
    backoff: str | None = None
    timeout: timedelta | None = None
    headers: str | None = None
    unique_for: str = "unfinished"
    on_conflict: str = "keep"


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The answer to an enqueue. `created` is False when an existing job already stood for it.

    `replaced`: that one was waiting, and got payload, time and priority of this call, as was asked for.
    `shed` is True when its tenant had no room for it and sheds what is too much: the job is `dead`, unrun.
    """

    id: UUID
    created: bool
    replaced: bool = False
    shed: bool = False

    @property
    def duplicate(self) -> bool:
        """True when nothing was inserted: the id was a repeat, or the unique key is held by job `id`."""
        return not self.created


class Claimed(NamedTuple):
    """A job that this worker has claimed and not yet ended. `claim_no` is the identity of the run.

    The fields are in the order in which the block `claim` returns them.
    """

    id: UUID
    claim_no: int
    queue: str
    kind: str
    tenant_id: str | None
    use_case: str | None
    priority: int
    run_at: datetime
    deadline_at: datetime
    delay_tolerance: timedelta | None
    deadline_policy: str
    payload: str
    attempt: int
    max_attempts: int | None
    crashes: int
    generation: int
    created_at: datetime
    claimed_at: datetime
    backoff: str | None
    timeout: timedelta | None
    headers: str | None = None


class Floor(NamedTuple):
    """Where in a queue's order a claim ended: at this job."""

    priority: int
    deadline_at: datetime
    id: UUID


class FinishedRun(NamedTuple):
    """How one run ended, ready to be written: a verdict of `lifecycle.judge` bound to its claim."""

    id: UUID
    claim_no: int
    state: JobState
    reason: str | None = None
    delay: timedelta | None = None
    unburned: bool = False
    result: str | None = None
    error: str | None = None

    @property
    def size(self) -> int:
        """Roughly how many bytes this adds to a flush."""
        return 200 + len(self.result or "") + len(self.error or "")


CURRENT: ContextVar[Claimed | None] = ContextVar("jobd_current_job", default=None)
"""The job whose handler runs in this context, threads included; for the log lines it writes."""
