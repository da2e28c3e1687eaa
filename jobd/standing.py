"""Where a job stands, as the database has it, and what is said of that.

`reasons` makes the one into the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from jobd.job import JobState


class Why(StrEnum):
    """What holds a job up, or ended it."""

    NOT_DUE = "not_due"
    RETRY = "retry"
    SNOOZED = "snoozed"
    STAGING = "staging"
    QUEUE_PAUSED = "queue_paused"
    NO_WORKER = "no_worker"
    NOT_SERVED = "not_served"
    KIND_UNKNOWN = "kind_unknown"
    KEY_FULL = "key_full"
    KEY_ORDER = "key_order"
    USE_CASE_FULL = "use_case_full"
    TENANT_FULL = "tenant_full"
    QUEUE_FULL = "queue_full"
    RATE = "rate"
    SUSPECT = "suspect"
    DEADLINE = "deadline"
    NO_SLOT = "no_slot"
    BEHIND = "behind"
    NEXT = "next"
    RUNNING = "running"
    STOPPING = "stopping"
    WORKER_LOST = "worker_lost"
    ENDED = "ended"


class Reason(NamedTuple):
    """One reason: a word for programs, a sentence for people, and when it passes, where that is known."""

    why: Why
    text: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A job's state and why it is there, the firmest reason first."""

    id: UUID
    state: JobState
    queue: str
    kind: str
    reasons: Sequence[Reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What block `standing` says. Limits are None where there are none."""

    id: UUID
    state: str
    queue: str
    kind: str
    tenant_id: str | None
    use_case: str | None
    concurrency_key: str | None
    priority: int
    run_at: datetime
    deadline_at: datetime
    delay_tolerance: timedelta | None
    deadline_policy: str
    attempt: int
    crashes: int
    claim_no: int
    worker_id: UUID | None
    claimed_at: datetime | None
    cancel_requested_at: datetime | None
    error: dict[str, Any] | None
    moment: datetime
    paused_at: datetime | None
    paused_by: str | None
    queue_limit: int | None
    fair: bool
    queue_running: int
    tenant_limit: int | None
    tenant_running: int
    use_case_limit: int | None
    use_case_running: int
    key_limit: int | None
    ordered: bool
    key_running: list[UUID]
    key_before: UUID | None
    queue_rate_until: datetime | None
    tenant_rate_until: datetime | None
    key_rate_until: datetime | None
    worker_host: str | None
    worker_pid: int | None
    worker_lease_until: datetime | None
    workers: int
    serving: int
    knowing: int
    free: int
    ahead: int
    ahead_by_priority: int
    ended_per_second: float | None
