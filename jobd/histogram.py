"""A Prometheus histogram that takes many observations at once.

The library's own counts one at a time, under a lock for each bucket: several microseconds a job,
where a job as a whole may cost thirty.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class BatchHistogram(Collector):
    """Seconds by label values, in buckets; a series for each tuple of label values ever observed."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = (*buckets, float("inf"))
        self._lock = threading.Lock()
        # Label values -> how many in each bucket alone, and the sum of all seconds.
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        registry.register(self)

    def observe(self, labels: tuple[str, ...], seconds: Sequence[float]) -> None:
        """Count these, at least 0 each, under one tuple of label values. Thread-safe.

        Of none, only let the series be seen.
        """
        bounds = self._bounds
        with self._lock:
            series = self._series.get(labels)
            if series is None:
                series = self._series[labels] = [0] * len(bounds), [0.0]
            counts, total = series
            for value in seconds:
                counts[bisect_left(bounds, value)] += 1
                if value > 0:
                    total[0] += value

    def collect(self) -> Iterable[Metric]:
        """What the library asks for a page."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        with self._lock:
            series = {labels: (list(counts), total[0]) for labels, (counts, total) in self._series.items()}
        for labels, (counts, total) in series.items():
            names = map(floatToGoString, self._bounds)
            # As the library does, the bounds go from the least to +Inf, each with all that is below it.
            family.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), total)
        return [family]
