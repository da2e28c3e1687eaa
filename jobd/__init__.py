"""jobd: durable jobs, schedules and an outbox on the PostgreSQL you already run.

    from jobd import Jobs

    jobs = Jobs()

    @jobs.handler("greet")
    async def greet(name: str) -> str:
        return f"hello {name}"

Names are imported when first used, so that importing jobd costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobd.app import Jobs
    from jobd.backoff import Backoff
    from jobd.context import JobContext
    from jobd.errors import (
        CallTimeout,
        ClaimLost,
        ConfigError,
        DatabaseUnavailable,
        DrainTimeout,
        HandlerError,
        IdTaken,
        JobdError,
        JobNotFound,
        NotKept,
        PayloadError,
        QueueUnknown,
        ScheduleExists,
        ScheduleNotFound,
        SchemaError,
        TenantFull,
        UniqueKeyTaken,
        WaitTimeout,
        WrongState,
    )
    from jobd.job import Enqueued, Job, JobState
    from jobd.outcomes import Cancel, Discard, RetryAfter, Snooze
    from jobd.schedule import Schedule

__version__ = "0.1.0"

_WHERE = {
    "Backoff": "backoff",
    "CallTimeout": "errors",
    "Cancel": "outcomes",
    "ClaimLost": "errors",
    "ConfigError": "errors",
    "DatabaseUnavailable": "errors",
    "Discard": "outcomes",
    "DrainTimeout": "errors",
    "Enqueued": "job",
    "HandlerError": "errors",
    "IdTaken": "errors",
    "Job": "job",
    "JobContext": "context",
    "JobNotFound": "errors",
    "JobState": "job",
    "JobdError": "errors",
    "Jobs": "app",
    "NotKept": "errors",
    "PayloadError": "errors",
    "QueueUnknown": "errors",
    "RetryAfter": "outcomes",
    "Schedule": "schedule",
    "ScheduleExists": "errors",
    "ScheduleNotFound": "errors",
    "SchemaError": "errors",
    "Snooze": "outcomes",
    "TenantFull": "errors",
    "UniqueKeyTaken": "errors",
    "WaitTimeout": "errors",
    "WrongState": "errors",
}

__all__ = [
    "Backoff",
    "CallTimeout",
    "Cancel",
    "ClaimLost",
    "ConfigError",
    "DatabaseUnavailable",
    "Discard",
    "DrainTimeout",
    "Enqueued",
    "HandlerError",
    "IdTaken",
    "Job",
    "JobContext",
    "JobNotFound",
    "JobState",
    "JobdError",
    "Jobs",
    "NotKept",
    "PayloadError",
    "QueueUnknown",
    "RetryAfter",
    "Schedule",
    "ScheduleExists",
    "ScheduleNotFound",
    "SchemaError",
    "Snooze",
    "TenantFull",
    "UniqueKeyTaken",
    "WaitTimeout",
    "WrongState",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'jobd' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"jobd.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
