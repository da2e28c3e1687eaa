"""One page of numbers from many processes: what may be added is added, the rest as its meaning demands.

Counters and histograms are sums, and what an ended process told last stays in them: a total never
goes back. Gauges are of the processes that answer now, each combined by its rule in `RULES`; a test
keeps that table equal to the metrics there are.

Pure but for the rendering; what a process told comes as `jobd.supervision.tether.plain` made it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import Metric

Told = Sequence[Sequence[Any]]
"""[name, type, help, [[sample, labels, value], ...]] for each metric."""

Combine = Callable[[float, float], float]


def _sum(one: float, other: float) -> float:
    return one + other


RULES: Final[Mapping[str, Combine]] = {
    "jobd": max,  # jobd_info
    # Of the process: together, or as bad as the worst of them.
    "jobd_slots": _sum,
    "jobd_lease_age_seconds": max,
    "jobd_loop_lag_seconds": max,
    "jobd_listener_up": min,
    "jobd_database_up": min,
    "jobd_leader": max,
    # Of the whole database: whoever counts finds the same, and the latest is as good as the largest.
    "jobd_jobs_ready": max,
    "jobd_jobs_scheduled": max,
    "jobd_jobs_running": max,
    "jobd_oldest_ready_seconds": max,
    "jobd_queue_paused": max,
    "jobd_schedules": max,
    "jobd_schedule_next_fire_timestamp_seconds": max,
    # The supervisor alone tells these.
    "jobd_processes": _sum,
    # The memory of all; but files are limited for each process, so the fullest one counts.
    "process_virtual_memory_bytes": _sum,
    "process_resident_memory_bytes": _sum,
    "process_open_fds": max,
    "process_max_fds": min,
    # A child that was replaced is no restart of the whole.
    "process_start_time_seconds": min,
}
"""How the values of a gauge in several processes become one."""

_ADDED: Final = frozenset({"counter", "histogram"})

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Totals:
    """What each process told last, and what those that have ended had counted."""

    def __init__(self) -> None:
        self._latest: dict[Hashable, Told] = {}
        self._kept = _Sums()

    def tell(self, process: Hashable, told: Told) -> None:
        """A process told its numbers; they take the place of those that it told before."""
        self._latest[process] = told

    def end(self, process: Hashable) -> None:
        """A process has ended: its counts stay, and its gauges go."""
        self._kept.add(self._latest.pop(process, ()), gauges=False)

    def families(self, present: Collection[Hashable]) -> Iterator[Metric]:
        """The totals; of gauges those of the processes that are `present`, which have told just now."""
        sums = self._kept.copy()
        for process, told in self._latest.items():
            sums.add(told, gauges=process in present)
        return sums.families()


class _Sums:
    def __init__(self) -> None:
        self._heads: dict[str, tuple[str, str]] = {}
        self._samples: dict[str, dict[_Key, float]] = {}

    def copy(self) -> _Sums:
        other = _Sums()
        other._heads = dict(self._heads)
        other._samples = {name: dict(samples) for name, samples in self._samples.items()}
        return other

    def add(self, told: Told, *, gauges: bool) -> None:
        for name, type, help, samples in told:
            added = type in _ADDED
            if not added and not gauges:
                continue
            # A gauge that nobody decided about yet shows its worst guess rather than none.
            combine = _sum if added else RULES.get(name, max)
            self._heads.setdefault(name, (type, help))
            known = self._samples.setdefault(name, {})
            for sample, labels, value in samples:
                key = sample, tuple(sorted(labels.items()))
                known[key] = combine(known[key], value) if key in known else value

    def families(self) -> Iterator[Metric]:
        for name, (type, help) in self._heads.items():
            family = Metric(name, help, type)
            for (sample, labels), value in self._samples[name].items():
                family.add_sample(sample, dict(labels), value)
            yield family


def gauge(name: str, help: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[Any]:
    """A gauge as a process would tell it."""
    return [name, "gauge", help, [[name, dict(labels), value] for labels, value in samples]]


def counter(name: str, help: str, value: float) -> list[Any]:
    """A counter without labels as a process would tell it; `name` without `_total`."""
    return [name, "counter", help, [[f"{name}_total", {}, value]]]
