"""The numbers a Prometheus scrapes: what the events told, and what is true at the moment of asking.

Counters and histograms are fed by the bus and may be told from several threads at once. Gauges
(`gauges`) are never stored: `render` gets them from its caller. Names and labels are documented in
docs/metrics.md. This module asks nobody and serves nothing.

Every label value comes from a bounded set (`Labels`): ids, tenants and texts are no labels, and the
queues and kinds past a cap are counted together as `other`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Info, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from jobd.events import (
    Events,
    JobEnqueued,
    JobFinished,
    JobsExpired,
    JobsRescued,
    JobsStaged,
    JobStarted,
    JobsTurnedAway,
    LeaseLost,
    RunStale,
    ScheduleFaulty,
    ScheduleFired,
)
from jobd.gauges import process_gauges, queue_gauges, schedule_gauges
from jobd.histogram import BatchHistogram
from jobd.labels import OTHER, Labels
from jobd.lifecycle import OUTCOMES

if TYPE_CHECKING:
    from jobd.reader import Stock

OUTCOME_NAMES: Final = frozenset(OUTCOMES.values())

RUN_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
LATENESS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 3600, 86_400)
WAIT_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)


class Metrics:
    """Counts what `events` tells, from now on, and renders it with the gauges of the moment."""

    def __init__(self, events: Events, *, version: str) -> None:
        self._labels = Labels()
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("jobd", "The version of this process.", registry=registry).info({"version": version})

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(
            name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ("queue", "kind")
        ) -> BatchHistogram:
            return BatchHistogram(name, text, labels, buckets=buckets, registry=registry)

        self._enqueued = counter(
            "jobd_jobs_enqueued_total", "Jobs that this process put into the database.", "queue", "kind"
        )
        self._turned_away = counter(
            "jobd_jobs_turned_away_total",
            "Jobs that this process could not enqueue since their tenant had no room, refused or shed.",
            "queue",
            "kind",
            "outcome",
        )
        self._started = counter("jobd_jobs_started_total", "Runs of handlers that began.", "queue", "kind")
        self._deadlines = counter(
            "jobd_deadlines_total",
            "Jobs with a delay_tolerance: began in time, late, or were dropped.",
            "queue",
            "kind",
            "outcome",
        )
        self._finished = counter(
            "jobd_jobs_finished_total", "Runs that ended, by how they ended.", "queue", "kind", "outcome"
        )
        self._dead = counter(
            "jobd_jobs_dead_total", "Jobs that ended dead after a run in this process.", "queue", "kind"
        )
        self._run = histogram("jobd_job_run_seconds", "How long the handler ran.", RUN_BUCKETS)
        self._wait = histogram(
            "jobd_job_wait_seconds", "How long a due job waited for its handler to begin.", WAIT_BUCKETS
        )
        self._staged = counter("jobd_jobs_staged_total", "Scheduled jobs made ready when they fell due.")
        self._rescued = counter("jobd_jobs_rescued_total", "Jobs taken from workers whose lease had lapsed.")
        self._crashed = counter("jobd_jobs_crashed_total", "Rescued jobs declared dead at the crash limit.")
        self._stale = counter("jobd_runs_stale_total", "Runs whose claim was lost; nothing was written.")
        self._leases_lost = counter("jobd_leases_lost_total", "Times this worker had to stop all its runs.")
        self._occurrences = counter(
            "jobd_schedule_occurrences_total", "Occurrences of schedules, by what became of them.", "outcome"
        )
        self._lateness = histogram(
            "jobd_schedule_lateness_seconds",
            "How late occurrences that ran became jobs.",
            LATENESS_BUCKETS,
            (),
        )
        self._faults = counter(
            "jobd_schedule_faults_total", "Times a schedule came to rest because it cannot be computed."
        )
        for outcome in ("ran", "skipped", "missed"):
            self._occurrences.labels(outcome)
        self._lateness.observe((), ())

        events.subscribe(JobEnqueued, self._job_enqueued)
        events.subscribe(JobsTurnedAway, self._jobs_turned_away)
        events.subscribe_batches(JobStarted, self._jobs_started)
        events.subscribe_batches(JobFinished, self._jobs_finished)
        events.subscribe(JobsStaged, lambda event: self._staged.inc(event.count))
        events.subscribe(JobsRescued, self._jobs_rescued)
        events.subscribe(JobsExpired, self._jobs_expired)
        events.subscribe(RunStale, lambda _: self._stale.inc())
        events.subscribe(LeaseLost, lambda _: self._leases_lost.inc())
        events.subscribe_batches(ScheduleFired, self._schedules_fired)
        events.subscribe(ScheduleFaulty, lambda _: self._faults.inc())

    def declare(self, handlers: Iterable[tuple[str, str]]) -> None:
        """Show these (queue, kind) pairs at zero, and keep their names out of `other` whatever comes later.

        Without it a series appears at its first event, and Prometheus's `increase` misses that one.
        """
        for queue, kind in handlers:
            labels = self._labels.admit(queue, kind)
            self._started.labels(*labels)
            self._wait.observe(labels, ())
            for outcome in ("succeeded", "failed"):
                self._finished.labels(*labels, outcome)
            self._run.observe(labels, ())
            self._dead.labels(*labels)

    def families(self, stock: Stock | None, gauges: Mapping[str, float]) -> Iterator[Metric]:
        """Everything that the page shows; what the arguments mean, `render` tells."""
        gauges = {"database_up": 1, **gauges} if stock is not None else {**gauges, "database_up": 0}
        for metric in self._registry.collect():
            # The library's switch for `_created` is global, and the process may be somebody else's too.
            created = f"{metric.name}_created"
            metric.samples = [sample for sample in metric.samples if sample.name != created]
            yield metric
        yield from process_gauges(gauges)
        if stock is not None:
            yield from queue_gauges(stock.queues)
            yield from schedule_gauges(stock.schedules)

    def render(
        self, stock: Stock | None, gauges: Mapping[str, float], *, accept: str = ""
    ) -> tuple[bytes, str]:
        """Return the page and its content type: OpenMetrics where `accept` asks for it, else Prometheus text.

        `stock` is None when the database did not answer: then no queue and no schedule is reported, and
        `jobd_database_up` is 0. A name that is not in GAUGES raises ValueError.
        """
        return encode(self.families(stock, gauges), accept=accept)

    def _job_enqueued(self, event: JobEnqueued) -> None:
        self._enqueued.labels(*self._labels.admit(event.queue, event.kind)).inc(event.count)

    def _jobs_turned_away(self, event: JobsTurnedAway) -> None:
        labels = self._labels.admit(event.queue, event.kind)
        self._turned_away.labels(*labels, event.outcome).inc(event.count)

    def _jobs_started(self, events: Sequence[JobStarted]) -> None:
        waits: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for event in events:
            waits[event.queue, event.kind].append(event.wait_seconds)
            if event.late is not None:
                labels = self._labels.admit(event.queue, event.kind)
                self._deadlines.labels(*labels, "late" if event.late else "met").inc()
        for (queue, kind), seconds in waits.items():
            labels = self._labels.admit(queue, kind)
            self._started.labels(*labels).inc(len(seconds))
            self._wait.observe(labels, seconds)

    def _jobs_expired(self, event: JobsExpired) -> None:
        self._deadlines.labels(*self._labels.admit(event.queue, event.kind), "dropped").inc(event.count)

    def _jobs_finished(self, events: Sequence[JobFinished]) -> None:
        runs: defaultdict[tuple[str, str, str], list[float | None]] = defaultdict(list)
        for event in events:
            runs[event.queue, event.kind, event.outcome].append(event.run_seconds)
            if event.state == "dead":
                self._dead.labels(*self._labels.admit(event.queue, event.kind)).inc()
        for (queue, kind, outcome), seconds in runs.items():
            labels = self._labels.admit(queue, kind)
            self._finished.labels(*labels, outcome if outcome in OUTCOME_NAMES else OTHER).inc(len(seconds))
            self._run.observe(labels, [each for each in seconds if each is not None])

    def _schedules_fired(self, events: Sequence[ScheduleFired]) -> None:
        for event in events:
            self._occurrences.labels(event.outcome).inc(event.count)
        self._lateness.observe((), [event.late_seconds for event in events if event.outcome == "ran"])

    def _jobs_rescued(self, event: JobsRescued) -> None:
        self._rescued.inc(event.count)
        self._crashed.inc(event.dead)


def encode(families: Iterable[Metric], *, accept: str) -> tuple[bytes, str]:
    """The page of these metrics and its content type, as `Metrics.render` returns them."""
    # The library trips over versions that are none, so it is told only which of two formats.
    openmetrics = "application/openmetrics-text"
    encoder, content_type = choose_encoder(f"{openmetrics}; version=1.0.0" if openmetrics in accept else "")
    return encoder(_Page(families)), content_type


class _Page(Collector):
    """One answer to a scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
