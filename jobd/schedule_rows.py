"""A schedule as it is declared and as it stands, what was decided about it, and what became of that.

Read and written by `timetable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from jobd.occurrences import CatchUp, Policy

# Who pauses what is no longer declared.
BY_DEPLOY = "deploy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A schedule as it is declared: when it occurs, what job that becomes, and what if it is late."""

    id: str
    owner: str
    expression: str
    time_zone: str = "UTC"
    dst: str = "debian"
    seconds: str | None = None
    anchor: datetime | None = None
    kind: str
    payload: Any = None
    queue: str = "default"
    priority: int = 0
    tenant_id: str | None = None
    use_case: str | None = None
    concurrency_key: str | None = None
    delay_tolerance: timedelta | None = None
    deadline_policy: str = "run"
    max_attempts: int | None = None
    backoff: dict[str, Any] | None = None
    timeout: timedelta | None = None
    headers: dict[str, Any] | None = None
    catch_up: str = CatchUp.LAST
    cap: int = 100
    stagger: timedelta = timedelta(0)
    misfire_grace: timedelta | None = None
    overlap: str = "skip"
    max_instances: int = 1
    jitter: timedelta = timedelta(0)
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    max_runs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEntry(Terms):
    """A schedule as it stands. `due_at` is its next occurrence, as a scheduler saw it; None, none ever."""

    paused_at: datetime | None
    paused_by: str | None
    fault: str | None
    runs: int
    decided_until: datetime
    passed_until: datetime | None
    due_at: datetime | None
    last_fire_at: datetime | None
    last_success_at: datetime | None
    queued_until: datetime | None
    passed_from: datetime | None
    revision: int
    created_at: datetime
    changed_at: datetime

    @property
    def policy(self) -> Policy:
        """What happens to occurrences that are due."""
        return Policy(CatchUp(self.catch_up), self.misfire_grace, self.cap, self.stagger, self.ends_at)


class Occurrence(NamedTuple):
    """One row of the history to come: an occurrence that runs or is skipped, or a stretch that was missed."""

    fire_at: datetime
    last_at: datetime
    number: int
    outcome: str
    reason: str | None = None
    job_id: UUID | None = None
    run_at: datetime | None = None
    headers: str | None = None


class Outlook(NamedTuple):
    """Schedules in numbers: how many are `active`, `paused`, `faulty` or `ended`, and when some occur next.

    Those that code or file declare are told by id, as many as were asked for; None is the next of the rest.
    """

    numbers: Mapping[str, int]
    next_fires: Mapping[str | None, datetime]


class Decision(NamedTuple):
    """What a scheduler decided about one schedule as it was in `revision`."""

    id: str
    revision: int
    until: datetime
    due_at: datetime | None
    occurrences: Sequence[Occurrence] = ()
    fault: str | None = None
    # Its jobs that have not ended, those that begin included; when one last succeeded; what waits for room.
    open_jobs: Sequence[UUID] = ()
    last_success_at: datetime | None = None
    queued_until: datetime | None = None


class DueSchedule(NamedTuple):
    """A schedule to look at: when it was read, its unfinished jobs, the oldest first, its last success."""

    entry: ScheduleEntry
    moment: datetime
    unfinished: list[UUID]
    last_success_at: datetime | None

    def decided(
        self,
        until: datetime,
        *,
        due_at: datetime | None,
        occurrences: Sequence[Occurrence] = (),
        fault: str | None = None,
        queued_until: datetime | None = None,
    ) -> Decision:
        """What was decided about it, as it was read."""
        begin = [run.job_id for run in occurrences if run.job_id is not None]
        return Decision(
            self.entry.id, self.entry.revision, until, due_at, occurrences, fault,
            [*self.unfinished, *begin], self.last_success_at, queued_until,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRun:
    """What became of an occurrence, or of a stretch of them, and of the job that it became."""

    schedule_id: str
    fire_at: datetime
    last_at: datetime
    count: int
    outcome: str
    reason: str | None
    job_id: UUID | None
    decided_at: datetime
    kind: str | None
    state: str | None
    started_at: datetime | None
    finished_at: datetime | None
    job_reason: str | None
    error: dict[str, Any] | None


class Standing(NamedTuple):
    """A schedule as declared, which occurs after this moment; who else declared it until now."""

    decided_until: datetime
    taken_from: str | None
