"""What happened, told to whoever wants to know: metrics and logs subscribe, the engine only tells.

An event for what this process did to jobs, for how runs ended in it, and for changes of its own condition;
not for every move of `lifecycle.MOVES`, since those of operators and of other processes happen in the
database alone. Subscribers are called at once, in the thread that emits, and must not block; one that
raises is logged and dropped from that call, since telling must never harm the work.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID


@dataclass(frozen=True, slots=True)
class JobEnqueued:
    """This process put jobs into the database (or into a caller's transaction)."""

    kind: str
    queue: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class JobsTurnedAway:
    """Jobs that this process was to enqueue, and for which their tenant had no room.

    `outcome`: they were `refused`, by an error, or `shed`: they are dead, unrun.
    """

    kind: str
    queue: str
    outcome: str
    count: int = 1


class JobStarted(NamedTuple):
    """A handler is about to run. `late`: after the job's deadline; None, it has none, or has run before."""

    id: UUID
    kind: str
    queue: str
    attempt: int
    wait_seconds: float
    late: bool | None = None


class JobFinished(NamedTuple):
    """A run ended and its verdict is durable. `outcome` is one of lifecycle.OUTCOMES; no `run_seconds`: no
    handler began."""

    id: UUID
    kind: str
    queue: str
    attempt: int
    state: str
    outcome: str
    run_seconds: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RunStale:
    """A run ended, but its claim was no longer ours; nothing was written."""

    id: UUID
    kind: str
    queue: str
    attempt: int
    claim_no: int


@dataclass(frozen=True, slots=True)
class EndRefused:
    """The database stores the end of this run in no form; the job goes back to the queue."""

    id: UUID
    kind: str
    queue: str
    attempt: int
    detail: str


@dataclass(frozen=True, slots=True)
class UniqueKeyLost:
    """A job came back from its run and goes on without its unique key: another job took it meanwhile."""

    id: UUID


@dataclass(frozen=True, slots=True)
class JobsStaged:
    """Due jobs were made ready."""

    count: int


@dataclass(frozen=True, slots=True)
class JobsRescued:
    """Orphans of lost workers were put back, cancelled, or declared dead."""

    count: int
    dead: int


@dataclass(frozen=True, slots=True)
class JobsExpired:
    """Jobs of policy `drop` whose deadline passed were declared dead."""

    queue: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class UnknownKind:
    """A claimed job's kind has no handler in this process; it went back unburned."""

    kind: str
    queue: str


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The worker's lease was confirmed until `until` (the database's clock)."""

    until: datetime


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The lease could not be confirmed in time, or another daemon took it; all runs here are stopped."""

    detail: str


@dataclass(frozen=True, slots=True)
class DatabaseLost:
    """A service of this process cannot reach the database; told once an outage and service."""

    service: str
    detail: str


@dataclass(frozen=True, slots=True)
class DatabaseBack:
    """That service reached the database again after `seconds`."""

    service: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ListenerChanged:
    """Notifications work (True) or do not (False); polling goes on either way."""

    up: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ScheduleFired:
    """Occurrences of a schedule became one row: `ran`, `skipped` or `missed`, so long after they were due."""

    schedule_id: str
    outcome: str
    count: int
    late_seconds: float


@dataclass(frozen=True, slots=True)
class ScheduleFaulty:
    """No occurrence of a schedule can be computed; it rests until it is changed."""

    schedule_id: str
    fault: str


@dataclass(frozen=True, slots=True)
class ScheduleDropped:
    """A schedule is no longer declared by its owner, and was paused."""

    schedule_id: str
    owner: str


@dataclass(frozen=True, slots=True)
class ScheduleTaken:
    """A schedule was declared by `owner` and, until now, by another one."""

    schedule_id: str
    owner: str
    before: str


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """This process became the leader, or ceased to be it."""

    leading: bool
    term: int


@dataclass(frozen=True, slots=True)
class DutyFailed:
    """The leader could not see to the history's partitions; it tries again some minutes later."""

    detail: str


@dataclass(frozen=True, slots=True)
class LateResult:
    """A handler returned or raised after its job had already ended inside `ctx.transaction()`."""

    id: UUID
    kind: str
    queue: str
    attempt: int
    detail: str


E = TypeVar("E")


class Events:
    """A list of callbacks per event type."""

    def __init__(self) -> None:
        self._subscribers: dict[type, list[Callable[[Sequence[Any]], None]]] = defaultdict(list)
        self._relays: list[Events] = []

    def subscribe(self, event_type: type[E], callback: Callable[[E], None]) -> Callable[[], None]:
        """Call `callback` with each event of exactly this type; the answer ends the subscription."""

        def each(events: Sequence[E]) -> None:
            for event in events:
                try:
                    callback(event)
                except Exception:
                    _report(event_type)

        return self.subscribe_batches(event_type, each)

    def subscribe_batches(
        self, event_type: type[E], callback: Callable[[Sequence[E]], None]
    ) -> Callable[[], None]:
        """Call `callback` with the events of this type that happened together, in their order.

        For whoever only adds up: under load hundreds of runs begin or end together.
        """
        self._subscribers[event_type].append(callback)
        return lambda: self._subscribers[event_type].remove(callback)

    def relay(self, to: Events) -> Callable[[], None]:
        """Tell `to` everything as well; the answer ends that, and with it all subscriptions made there."""
        self._relays.append(to)
        return lambda: self._relays.remove(to)

    def wants(self, event_type: type) -> bool:
        """False when building the event would be work for nobody."""
        return bool(self._subscribers.get(event_type)) or any(to.wants(event_type) for to in self._relays)

    def emit(self, event: object) -> None:
        """Tell every subscriber of this type of event."""
        self.emit_all((event,))

    def emit_all(self, events: Sequence[object]) -> None:
        """Tell of events of one type that happened together; of none, tell nobody."""
        if not events:
            return
        event_type = type(events[0])
        for callback in tuple(self._subscribers.get(event_type, ())):
            try:
                callback(events)
            except Exception:
                _report(event_type)
        for to in tuple(self._relays):
            to.emit_all(events)


def _report(event_type: type) -> None:
    logging.getLogger("jobd.events").exception("a subscriber of %s failed", event_type.__name__)
