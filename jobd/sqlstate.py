"""What an error of the driver means to jobd: one table, and nobody else looks at SQLSTATEs.

Only the error's own sentence is kept, never its DETAIL, which quotes rows and so payloads; but for errors
that jobd raises itself.
"""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from jobd.errors import (
    DatabaseUnavailable,
    JobdError,
    Locked,
    PartitionMissing,
    Refused,
    SchemaOutdated,
    TenantFull,
    Transient,
)

# A SQLSTATE, or its beginning. 28, 3D000, 42501: role, password, database or rights; waiting changes nothing.
PERMANENT = ("28", "3D000", "42501")
# 57014: somebody cancelled the statement, or the role has a statement_timeout.
TRANSIENT = ("40001", "40P01", "57014")
LOCKED = "55P03"
REFUSED = ("22", "23")
TENANT_FULL = "JD001"  # jobd.sift raises it
SCHEMA_MISSING = ("42P01", "3F000", "42883", "42703")


def translate(error: BaseException) -> JobdError | None:
    """jobd's own error for one of the driver's or the network's, or None for a bug of ours.

    A state that is in no table counts as an outage: it is told, and the call is tried again. Only what
    says that a statement itself is wrong (42...) stays loud.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error)
    if isinstance(error, ValueError):
        # The driver could not encode a value; as an InterfaceError it would look like a broken connection.
        return Refused(str(error), sqlstate="22000", constraint=None)
    if isinstance(error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)):
        return DatabaseUnavailable(f"{error}" or type(error).__name__)
    return None


def tenant_full(facts: Any) -> TenantFull | None:
    """jobd's own error, out of what a driver has of it: SQLSTATE and DETAIL, under any of their names."""
    if TENANT_FULL not in (getattr(facts, "sqlstate", None), getattr(facts, "pgcode", None)):
        return None
    detail = getattr(facts, "detail", None) or getattr(getattr(facts, "diag", None), "message_detail", None)
    return TenantFull(**json.loads(detail)) if isinstance(detail, str) else None


class _Translated:
    """`with translated:` raises jobd's errors in place of the driver's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, JobdError):
            named = translate(error)
            if named is not None:
                raise named from error


translated = _Translated()


def _of_server(error: asyncpg.PostgresError) -> JobdError | None:
    state = error.sqlstate or ""
    said = str(error.args[0]) if error.args else type(error).__name__
    constraint = getattr(error, "constraint_name", None)
    if state == TENANT_FULL:
        return tenant_full(error)
    if state == LOCKED:
        return Locked(said)
    if state.startswith(TRANSIENT):
        return Transient(said)
    if state == "23514" and constraint is None:  # not by its words, which may be in any language
        return PartitionMissing(said)
    if state.startswith(REFUSED):
        return Refused(said, sqlstate=state, constraint=constraint)
    if state.startswith(SCHEMA_MISSING) and "jobd" in said:
        # An INSERT into a schema that is not there names the table, which came with the schema.
        return SchemaOutdated(0 if state == "3F000" or "jobd.jobs" in said else None)
    if state.startswith("42") and not state.startswith(PERMANENT):
        return None
    return DatabaseUnavailable(f"{said} (SQLSTATE {state})", permanent=state.startswith(PERMANENT))
