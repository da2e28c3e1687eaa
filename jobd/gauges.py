"""Metrics of what is true at the moment of asking.

None is stored, so a queue that is gone leaves no series behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import Metric
from prometheus_client.metrics_core import GaugeMetricFamily

from jobd.labels import MAX_QUEUES, OTHER

if TYPE_CHECKING:
    from jobd.reader import Depth
    from jobd.schedule_rows import Outlook

GAUGES: Final[Mapping[str, tuple[str, str, Mapping[str, str]]]] = {
    "slots_total": ("jobd_slots", "Slots for running jobs in this process.", {"state": "total"}),
    "slots_busy": ("jobd_slots", "Slots for running jobs in this process.", {"state": "busy"}),
    "lease_age_seconds": ("jobd_lease_age_seconds", "Seconds since the last confirmed heartbeat.", {}),
    "loop_lag_seconds": ("jobd_loop_lag_seconds", "How late the work loop is running.", {}),
    "listener_up": ("jobd_listener_up", "1 while notifications arrive, 0 while only polling finds jobs.", {}),
    "leader": ("jobd_leader", "1 in the process that leads.", {}),
    "database_up": ("jobd_database_up", "1 while this process reaches the database.", {}),
}
"""What `render` may be told: name of the gauge -> metric, help, labels."""


def process_gauges(gauges: Mapping[str, float]) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for gauge, value in gauges.items():
        try:
            name, text, labels = GAUGES[gauge]
        except KeyError:
            raise ValueError(f"no metric shows the gauge {gauge!r}; known are {', '.join(GAUGES)}") from None
        family = families.get(name)
        if family is None:
            family = families[name] = GaugeMetricFamily(name, text, labels=tuple(labels))
        family.add_metric(tuple(labels.values()), value)
    return families.values()


def queue_gauges(depths: Sequence[Depth]) -> Iterable[Metric]:
    def family(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=("queue",))

    ready = family("jobd_jobs_ready", "Jobs that may be claimed now.")
    scheduled = family("jobd_jobs_scheduled", "Jobs that become ready at a later time.")
    running = family("jobd_jobs_running", "Jobs that some worker has claimed.")
    oldest = family("jobd_oldest_ready_seconds", "How long the oldest ready job has been due; 0 without one.")
    paused = family("jobd_queue_paused", "1 while the queue is paused.")
    # Several queues may share a label: those past the cap do, and they meet a queue that is really
    # called `other`. A series told twice would make the whole page unreadable.
    by_label: dict[str, list[Depth]] = {}
    for depth in sorted(depths, key=lambda depth: depth.queue):
        label = depth.queue if depth.queue in by_label or len(by_label) < MAX_QUEUES else OTHER
        by_label.setdefault(label, []).append(depth)
    for label, group in by_label.items():
        ready.add_metric((label,), sum(depth.ready for depth in group))
        scheduled.add_metric((label,), sum(depth.scheduled for depth in group))
        running.add_metric((label,), sum(depth.running for depth in group))
        oldest.add_metric((label,), max(depth.oldest_ready_seconds or 0.0 for depth in group))
        paused.add_metric((label,), float(all(depth.paused_at is not None for depth in group)))
    return ready, scheduled, running, oldest, paused


def schedule_gauges(outlook: Outlook | None) -> Iterable[Metric]:
    if outlook is None:
        return
    numbers = GaugeMetricFamily("jobd_schedules", "Schedules, by what holds them up.", labels=("state",))
    for state, number in outlook.numbers.items():
        numbers.add_metric((state,), number)
    yield numbers
    nearest: dict[str, float] = {}
    for id, moment in outlook.next_fires.items():
        label = OTHER if id is None else id
        nearest[label] = min(moment.timestamp(), nearest.get(label, math.inf))
    next_fire = GaugeMetricFamily(
        "jobd_schedule_next_fire_timestamp_seconds", "When the schedule occurs next.", labels=("schedule",)
    )
    for label, seconds in nearest.items():
        next_fire.add_metric((label,), seconds)
    yield next_fire
