"""Which jobs an operation on many of them means. Plain data; the rules of the options are in `filters`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobd.duration import format_duration
from jobd.job import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs are meant. None: whatever they have there."""

    states: frozenset[JobState]
    queues: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    tenants: tuple[str, ...] | None = None
    use_cases: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    error_types: tuple[str, ...] | None = None
    error: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None

    def to_json(self) -> dict[str, Any]:
        """The filters as the audit shows them, by the names of `Filters`."""
        told = {
            "queue": self.queues,
            "kind": self.kinds,
            "state": [state for state in JobState if state in self.states],
            "tenant_id": self.tenants,
            "use_case": self.use_cases,
            "tag": self.tags,
            "error_type": self.error_types,
            "error": self.error,
            "older_than": None if self.older_than is None else format_duration(self.older_than),
            "newer_than": None if self.newer_than is None else format_duration(self.newer_than),
        }
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Already:
    """Which of them are left out, since they are already as an operation would make them."""

    queue: str | None = None
    asked: bool = False
    """Whether those are that were asked to stop."""
    run_at: datetime | None = None
    priority: int | None = None
