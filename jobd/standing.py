"""Where a job stands, as the database has it, and what is said of that.

`reasons` makes the one into the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
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
    TENANT_DELAYS = "tenant_delays"
    QUEUE_FULL = "queue_full"
    RATE = "rate"
    SUSPECT = "suspect"
    DEADLINE = "deadline"
    NO_SLOT = "no_slot"
    BEHIND = "behind"
    NEXT = "next"
    RUNNING = "running"
    WORKER_SILENT = "worker_silent"
    STOPPING = "stopping"
    WORKER_LOST = "worker_lost"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Reason:
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
    generation: int
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
    tenant_delays_from: int | None
    """Of a tenant whose jobs are delayed when more than this wait."""
    tenant_delays_until: datetime | None
    """When the last of those that were delayed becomes due."""
    use_case_limit: int | None
    use_case_running: int
    key_limit: int | None
    ordered: bool
    key_running: list[UUID]
    key_before: UUID | None
    """Of a key in order: the job that has to run first, where one waits."""
    key_before_state: str | None
    key_before_due: datetime | None
    queue_rate_until: datetime | None
    tenant_rate_until: datetime | None
    key_rate_until: datetime | None
    worker_host: str | None
    worker_pid: int | None
    worker_beat_at: datetime | None
    worker_lease_until: datetime | None
    worker_stopping_at: datetime | None
    rescue_at: datetime | None
    """From when on another process may take its worker for lost; None where there is no other one."""
    workers: int
    """Those that are alive, work, and are not stopping."""
    serving: int
    """Those among them that serve its queue."""
    knowing: int
    """Those among these that know its kind: the following are of them."""
    free: int
    """How many slots are free."""
    untouched: int
    """How many of them run nothing of its queue or kind, so that no limit of the process can hold it up."""
    trusting: int
    """How many of them run no job that was there when workers died."""
    stopping: int
    """How many that worked are about to end."""
    beaten_at: datetime | None
    """When any worker was heard of last."""
    ahead: int
    """How many ready jobs would start before it."""
    ahead_by_priority: int
    held: int
    """How many more stand before it, and are kept by limits that are not its own."""
    ended: int
    """How many jobs of its queue ended lately, and since when that is counted."""
    ended_since: datetime | None
