"""The errors: one tree, drawn as it is, and each with its facts and a next step."""

from __future__ import annotations

import inspect
import re
from uuid import UUID

import pytest

import jobd
from jobd import errors
from jobd.errors import (
    CallTimeout,
    ClaimLost,
    ConfigError,
    DatabaseUnavailable,
    DrainTimeout,
    IdTaken,
    JobdError,
    JobNotFound,
    NotKept,
    PartitionMissing,
    PayloadError,
    Refused,
    SchemaOutdated,
    SchemaTooNew,
    TenantFull,
    UniqueKeyTaken,
    WaitTimeout,
    WrongState,
)

ID = UUID("01900000-0000-7000-8000-000000000001")
OTHER = UUID("01900000-0000-7000-8000-000000000002")

EXAMPLES = [
    (ConfigError("JOBD_LEASE", "5s", "must be at least 30s"), "JOBD_LEASE = '5s': must be at least 30s"),
    (PayloadError("$.items[3]", "is NaN", "send null"), r"payload $.items[3]: is NaN; send null"),
    (PayloadError("$", "is too deep"), "payload $: is too deep"),
    (JobNotFound(ID), f"no job {ID}: it never existed, was deleted"),
    (
        WrongState(ID, "running", "delete", "a job that does not run"),
        f"cannot delete job {ID}: it is running",
    ),
    (
        NotKept(ID, "dead", "retry", "pings"),
        f"cannot retry job {ID}: it is dead, and retry takes a job with its payload, which queue 'pings' "
        "did not keep (setting queues.pings.keep): enqueue it anew",
    ),
    (UniqueKeyTaken(ID, "k", OTHER), f"its unique key 'k' is held by job {OTHER}; cancel that one first"),
    (UniqueKeyTaken(ID, "k", None), "held by another job"),
    (IdTaken(ID), f"id {ID} belongs to a job of another kind or tenant"),
    (
        TenantFull("acme", limit=50, waiting=48, surplus=3),
        "tenant 'acme' has 48 jobs waiting, and its max_pending is 50: 3 of the new ones are too many; try",
    ),
    (ClaimLost(ID, 3), f"claim 3 of job {ID} is lost"),
    (WaitTimeout(ID, 1.5, "running"), f"job {ID} is still running after 1.5 s"),
    (
        DrainTimeout("mail", 5.0, 3, paused=True),
        "queue 'mail' is not drained after 5 s: 3 of its jobs still run; it stays paused: wait again, or "
        "`jobd queues resume mail`",
    ),
    (CallTimeout("enqueue", 5.0), "enqueue did not end within 5 s (setting call_timeout)"),
    (CallTimeout("cancel", 5.0), "whether it took effect is unknown: look, or repeat it with the same id"),
    (DatabaseUnavailable("gone"), "the database cannot be used now: gone"),
    (DatabaseUnavailable("no such role", permanent=True), "the database cannot be used: no such role"),
    (Refused("too long", sqlstate="22001", constraint=None), "too long"),
    (PartitionMissing("none for today"), "none for today"),
    (SchemaOutdated(0, 3), "the database has no jobd schema yet: run `jobd migrate`"),
    (SchemaOutdated(2, 3), "is at schema version 2, this jobd needs version 3: run `jobd migrate`"),
    (SchemaOutdated(None), "the database lacks a part of jobd's schema: run `jobd migrate`"),
    (errors.QueueUnknown("mial"), "no queue 'mial' is known: `jobd queues list` shows those that are"),
    (errors.ScheduleNotFound("nightli"), "no schedule 'nightli': `jobd schedules list` shows"),
    (
        errors.ScheduleExists("nightly"),
        "schedule 'nightly' exists already: replace it (replace=True, --replace), or choose another id",
    ),
    (SchemaTooNew(4, 3), "is at schema version 4, this jobd knows versions up to 3: upgrade jobd here"),
]


def kinds() -> list[type]:
    return [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
    ]


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_says_what_is_wrong_and_what_to_do(error: JobdError, text: str):
    assert text in str(error)


def test_the_tree_is_drawn_as_it_is():
    names = re.findall(r"\|?[`|]-- (\w+)", str(errors.__doc__))
    drawn: dict[str, type[JobdError]] = dict.fromkeys(names, JobdError)
    drawn |= {"NotKept": WrongState, "Locked": errors.Transient}
    drawn |= {"SchemaOutdated": errors.SchemaError, "SchemaTooNew": errors.SchemaError}
    assert drawn == {kind.__name__: kind.__mro__[1] for kind in kinds() if kind is not JobdError}


@pytest.mark.parametrize("kind", [WaitTimeout, CallTimeout])
def test_what_took_too_long_is_a_timeout_for_callers_that_know_no_jobd(kind: type):
    assert issubclass(kind, TimeoutError)


def test_a_wrong_payload_is_a_value_error():
    assert issubclass(PayloadError, ValueError)


def test_every_error_that_a_caller_may_meet_is_shown_by_an_example():
    plain = {"JobdError", "HandlerError", "SchemaError", "Transient", "Locked"}
    assert {type(error).__name__ for error, _ in EXAMPLES} | plain == {kind.__name__ for kind in kinds()}


def test_errors_are_imported_from_the_package_itself():
    for name in (
        "JobNotFound",
        "WaitTimeout",
        "CallTimeout",
        "PayloadError",
        "ConfigError",
        "UniqueKeyTaken",
    ):
        assert getattr(jobd, name) is getattr(errors, name)
