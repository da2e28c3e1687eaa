"""Limits over all daemons as the database has them: one method for each block of `sql/quotas.sql`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from jobd import sql
from jobd.door import Executes, Record
from jobd.rate import Rate

BLOCKS = sql.blocks("quotas")

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What holds for a queue over all daemons; None is no limit. `declared` is what code and files say."""

    name: str
    max_running: int | None = None
    rate: Rate | None = None
    burst: int | None = None
    fair: bool = False
    weight: int = 1
    delay_tolerance: timedelta | None = None
    paused_at: datetime | None = None
    paused_by: str | None = None
    changed_at: datetime | None = None
    changed_by: str | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)
    running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """What holds for a tenant over all queues; None is no limit. `pending` is told where it is limited."""

    id: str
    max_pending: int | None = None
    on_full: str = "refuse"
    exact: bool = True
    max_running: int | None = None
    rate: Rate | None = None
    burst: int | None = None
    weight: int = 1
    changed_at: datetime | None = None
    changed_by: str | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)
    running: int = 0
    pending: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KindLimits:
    """What holds for the jobs of one concurrency key, for each key of a kind.

    `running` counts the kind's jobs that have a key, `keys` how many different ones.
    """

    name: str
    key_limit: int = 1
    ordered: bool = False
    key_rate: Rate | None = None
    key_burst: int | None = None
    changed_at: datetime | None = None
    changed_by: str | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)
    running: int = 0
    keys: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCaseLimits:
    """What holds for a use case over all queues."""

    name: str
    max_running: int = 10
    changed_at: datetime | None = None
    changed_by: str | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)
    running: int = 0


class Unfinished(NamedTuple):
    """What a queue has still to do: how many of its jobs run, and whether any are ready."""

    running: int
    ready: bool


class Strange(NamedTuple):
    """Names that nobody knows so far, and what the live workers serve."""

    strange: list[str]
    queues: list[str]
    kinds: list[str]


class Quotas:
    """Limits, read and set. Limits to set are JSON objects: null takes one away, what is not named stays."""

    def __init__(self, door: Executes) -> None:
        self.door = door

    async def set_queue(self, name: str, limits: Mapping[str, Any], *, by: str | None) -> None:
        """Set limits of a queue."""
        await self.door.fetch(BLOCKS["set_queue"], name, json.dumps(limits), by)

    async def set_tenant(self, id: str, limits: Mapping[str, Any], *, by: str | None) -> None:
        """Set limits of a tenant."""
        await self.door.fetch(BLOCKS["set_tenant"], id, json.dumps(limits), by)

    async def set_kind(self, name: str, limits: Mapping[str, Any], *, by: str | None) -> None:
        """Set limits of each key of a kind."""
        await self.door.fetch(BLOCKS["set_kind"], name, json.dumps(limits), by)

    async def set_use_case(self, name: str, limits: Mapping[str, Any], *, by: str | None) -> None:
        """Set the limit of a use case."""
        await self.door.fetch(BLOCKS["set_use_case"], name, json.dumps(limits), by)

    async def remove_tenant(self, id: str) -> bool:
        """Forget a tenant's limits; False when it had none."""
        rows = await self.door.fetch(BLOCKS["remove_tenant"], id)
        return bool(rows[0]["found"])

    async def declare_limits(self, owner: str, declared: Mapping[str, Mapping[str, Any]]) -> int:
        """What code or a settings file says, by table and name; return of how many something was set."""
        (row,) = await self.door.fetch(BLOCKS["declare_limits"], owner, json.dumps(declared))
        return int(row["number"])

    async def reset_limits(self, place: str, name: str, *, by: str | None) -> bool:
        """Take what was set at run time of one of queues, tenants, kinds, use_cases back; False: unknown."""
        rows = await self.door.fetch(BLOCKS["reset_limits"], place, name, by)
        return bool(rows[0]["found"])

    async def queues(self, name: str | None = None) -> list[QueueLimits]:
        """Every queue that is known, or this one."""
        return [_made(QueueLimits, row) for row in await self.door.fetch(BLOCKS["queues"], name)]

    async def tenants(self, id: str | None = None) -> list[TenantLimits]:
        """Every tenant that has limits, or this one."""
        return [_made(TenantLimits, row) for row in await self.door.fetch(BLOCKS["tenants"], id)]

    async def kinds(self, name: str | None = None) -> list[KindLimits]:
        """Every kind of which something is said, or this one."""
        return [_made(KindLimits, row) for row in await self.door.fetch(BLOCKS["kinds"], name)]

    async def use_cases(self, name: str | None = None) -> list[UseCaseLimits]:
        """Every use case of which something is said, or this one."""
        return [_made(UseCaseLimits, row) for row in await self.door.fetch(BLOCKS["use_cases"], name)]

    async def strange(self, *, queues: Sequence[str] = (), kinds: Sequence[str] = ()) -> Strange:
        """Which of these may be misspelt."""
        (row,) = await self.door.fetch(BLOCKS["strange"], list(queues), list(kinds))
        return Strange(row["strange"], row["queues"], row["kinds"])

    async def unfinished(self, queue: str) -> Unfinished:
        """What a queue has still to do."""
        (row,) = await self.door.fetch(BLOCKS["unfinished"], queue)
        return Unfinished(row["running"], row["ready"])


def _made(what: type[Row], row: Record) -> Row:
    values: dict[str, Any] = {}
    for each in fields(what):  # type: ignore[arg-type]
        if each.name in ("rate", "key_rate"):
            count = row["rate_count"]
            values[each.name] = None if count is None else Rate(count, row["rate_period"])
        elif each.name == "declared":
            values[each.name] = json.loads(row["declared"])
        else:
            values[each.name] = row["rate_burst" if each.name in ("burst", "key_burst") else each.name]
    return what(**values)
