"""Limits at run time: `jobs.queues`, `jobs.tenants`, `jobs.kinds`, `jobs.use_cases`.

What is set holds with the next claim of any daemon, and nothing that runs is stopped. None takes a
limit away, and what is not named stays as it is. `by` is told to whoever finds it later.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, Unpack

from jobd.client import Client
from jobd.duration import parse_duration
from jobd.errors import MISSING, ConfigError, DrainTimeout, QueueUnknown, Refused
from jobd.options import Duration
from jobd.quota_options import (
    KindOptions,
    QueueOptions,
    TenantOptions,
    UseCaseOptions,
    kind_limits,
    limited_name,
    queue_limits,
    tenant_limits,
    use_case_limits,
)
from jobd.quotas import KindLimits, QueueLimits, Quotas, TenantLimits, UseCaseLimits
from jobd.registry import check_name
from jobd.storable import plain_text

# How often a drain looks, and how often in a row it has to find nothing: a claim that was under way when
# the queue was paused is seen once it has committed.
DRAIN_LOOK_SECONDS = 0.25
DRAIN_LOOKS = 3


class Queues:
    """Limits of queues, as the application sees them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set(self, name: str, *, by: str = "api", **limits: Unpack[QueueOptions]) -> None:
        """Set limits of a queue, also of one that nobody serves yet. Raises ConfigError, HandlerError."""
        await set_queue(Quotas(self._client.door), name, limits, by=by)

    async def reset(self, name: str, *, by: str = "api") -> None:
        """Set its limits to what code and files say, or to none. A pause stays. Raises QueueUnknown."""
        if not await Quotas(self._client.door).reset_limits("queues", check_name("queue", name), by=_who(by)):
            raise QueueUnknown(name)

    async def get(self, name: str) -> QueueLimits:
        """What holds for a queue, and how many of its jobs run. Raises QueueUnknown, HandlerError."""
        found = await Quotas(self._client.door).queues(check_name("queue", name))
        if not found:
            raise QueueUnknown(name)
        return found[0]

    async def list(self) -> Sequence[QueueLimits]:
        """Every queue that was ever served, paused or limited, by name."""
        return await Quotas(self._client.door).queues()

    async def drain(
        self, name: str, *, backlog: bool = False, timeout: Duration | None = None, by: str = "api"
    ) -> None:
        """Pause a queue and wait until none of its jobs runs; it stays paused until `set(..., paused=False)`.

        With `backlog` it is not paused: this waits until none is ready and none runs. What is scheduled
        for later is not waited for. Raises DrainTimeout, QueueUnknown.
        """
        door = self._client.door
        await drain(Quotas(door), name, backlog=backlog, timeout=timeout, by=by, sleep=door.sleep)


class Tenants:
    """Limits of tenants, as the application sees them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set(self, id: str, *, by: str = "api", **limits: Unpack[TenantOptions]) -> None:
        """Set limits of a tenant. Raises ConfigError."""
        await set_tenant(Quotas(self._client.door), id, limits, by=by)

    async def reset(self, id: str, *, by: str = "api") -> bool:
        """Set its limits to what files say, or to none; False when it had none."""
        return await Quotas(self._client.door).reset_limits(
            "tenants", limited_name("tenant", id), by=_who(by)
        )

    async def get(self, id: str) -> TenantLimits:
        """What holds for a tenant: no limit at all where nothing was set."""
        found = await Quotas(self._client.door).tenants(limited_name("tenant", id))
        return found[0] if found else TenantLimits(id=id)

    async def list(self) -> Sequence[TenantLimits]:
        """Every tenant that has limits, by id."""
        return await Quotas(self._client.door).tenants()

    async def remove(self, id: str) -> bool:
        """Take all limits of a tenant away; False when it had none. Those of a file are back with a start."""
        return await Quotas(self._client.door).remove_tenant(limited_name("tenant", id))


class Kinds:
    """Limits of each concurrency key of a kind, as the application sees them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set(self, name: str, *, by: str = "api", **limits: Unpack[KindOptions]) -> None:
        """Set limits of each key of a kind. Raises ConfigError, HandlerError."""
        await set_kind(Quotas(self._client.door), name, limits, by=by)

    async def reset(self, name: str, *, by: str = "api") -> bool:
        """Set its limits to what the code says, or to none; False when it had none."""
        return await Quotas(self._client.door).reset_limits("kinds", check_name("kind", name), by=_who(by))

    async def get(self, name: str) -> KindLimits:
        """What holds for each key of a kind: one at a time where nothing was set."""
        found = await Quotas(self._client.door).kinds(check_name("kind", name))
        return found[0] if found else KindLimits(name=name)

    async def list(self) -> Sequence[KindLimits]:
        """Every kind of which something was said, by name."""
        return await Quotas(self._client.door).kinds()


class UseCases:
    """Limits of use cases, as the application sees them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set(self, name: str, *, by: str = "api", **limits: Unpack[UseCaseOptions]) -> None:
        """Set the limit of a use case; None is 10 again. Raises ConfigError."""
        await set_use_case(Quotas(self._client.door), name, limits, by=by)

    async def reset(self, name: str, *, by: str = "api") -> bool:
        """Set its limit to what files say, or to 10; False when nothing was said of it."""
        return await Quotas(self._client.door).reset_limits(
            "use_cases", limited_name("use_case", name), by=_who(by)
        )

    async def get(self, name: str) -> UseCaseLimits:
        """What holds for a use case: 10 at once where nothing was set."""
        found = await Quotas(self._client.door).use_cases(limited_name("use_case", name))
        return found[0] if found else UseCaseLimits(name=name)

    async def list(self) -> Sequence[UseCaseLimits]:
        """Every use case of which something was said, by name."""
        return await Quotas(self._client.door).use_cases()


async def set_queue(quotas: Quotas, name: str, limits: Any, *, by: str) -> None:
    """See Queues.set."""
    await _set(quotas.set_queue, check_name("queue", name), queue_limits(limits), by)


async def set_tenant(quotas: Quotas, id: str, limits: Any, *, by: str) -> None:
    """See Tenants.set."""
    await _set(quotas.set_tenant, limited_name("tenant", id), tenant_limits(limits), by)


async def set_kind(quotas: Quotas, name: str, limits: Any, *, by: str) -> None:
    """See Kinds.set."""
    await _set(quotas.set_kind, check_name("kind", name), kind_limits(limits), by)


async def set_use_case(quotas: Quotas, name: str, limits: Any, *, by: str) -> None:
    """See UseCases.set."""
    await _set(quotas.set_use_case, limited_name("use_case", name), use_case_limits(limits), by)


class _Setting(Protocol):
    async def __call__(self, name: str, limits: Any, /, *, by: str | None) -> None: ...


async def _set(set_limits: _Setting, name: str, limits: dict[str, Any], by: str) -> None:
    if not limits:
        raise ConfigError("limits", MISSING, "none is named, so nothing is to be set")
    try:
        await set_limits(name, limits, by=_who(by))
    except Refused as refusal:
        if named := _named(refusal, limits):
            raise named from refusal
        raise


def _who(by: str) -> str:
    plain_text("by", by)
    return by


def _named(refusal: Refused, limits: dict[str, Any]) -> ConfigError | None:
    """What is refused for what was set before, by the limit that was named now."""
    if refusal.constraint == "burst_of_a_rate":
        burst = "key_burst" if "key_burst" in limits else "burst"
        rate = burst.replace("burst", "rate")
        return ConfigError(burst, limits.get(burst), f"belongs to a {rate}, and none is set; set both")
    if refusal.constraint == "limit_of_an_ordered_key":
        name, other = ("ordered", "key_limit") if limits.get("ordered") else ("key_limit", "ordered")
        remedy = f"jobs of a key that run in order run one at a time, and {other} is set; take it away, too"
        return ConfigError(name, limits[name], remedy)
    return None


async def drain(
    quotas: Quotas,
    name: str,
    *,
    backlog: bool,
    timeout: Duration | None,
    by: str,
    sleep: Callable[[float], Awaitable[None]],
    told: Callable[[int, bool], None] = lambda running, ready: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """See Queues.drain; `told` hears now and then how many jobs run, and whether more are ready."""
    seconds = None if timeout is None else parse_duration(timeout, setting="timeout").total_seconds()
    if not await quotas.queues(check_name("queue", name)):
        raise QueueUnknown(name)
    if not backlog:
        await quotas.set_queue(name, {"paused": True}, by=_who(by))
    end, quiet = None if seconds is None else clock() + seconds, 0
    while True:
        running, ready = await quotas.unfinished(name)
        quiet = quiet + 1 if running == 0 and not (backlog and ready) else 0
        if quiet >= DRAIN_LOOKS:
            return
        told(running, ready)
        # What looks done is looked at again, however little time there was.
        if seconds is not None and end is not None and clock() >= end and quiet == 0:
            raise DrainTimeout(name, seconds, running, paused=not backlog)
        await sleep(DRAIN_LOOK_SECONDS)
