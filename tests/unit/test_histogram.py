"""Our histogram: the numbers of the Prometheus library's own histogram, for a fraction of its cost."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from jobd.histogram import BatchHistogram

BUCKETS = (0.005, 0.1, 1, 2.5, 60)

# Also what lies exactly on a bound.
seconds = st.one_of(st.sampled_from([0.0, *map(float, BUCKETS)]), st.floats(0.0, 1e6, allow_nan=False))
labels = st.tuples(st.sampled_from(["default", "mail"]), st.sampled_from(["noop", 'a "kind"\n', "ü"]))
batches = st.lists(st.tuples(labels, st.lists(seconds, max_size=20)), max_size=10)


def histogram(registry: CollectorRegistry) -> BatchHistogram:
    return BatchHistogram("run_seconds", "How long.", ("queue", "kind"), buckets=BUCKETS, registry=registry)


def page(registry: CollectorRegistry) -> list[str]:
    """What a scrape reads, without the times of creation, which are the library's alone."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(batches=batches)
def test_a_page_is_what_the_librarys_histogram_would_show(batches: list):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = histogram(ours)
    librarys = Histogram("run_seconds", "How long.", ("queue", "kind"), buckets=BUCKETS, registry=theirs)
    for labels, seconds in batches:
        mine.observe(labels, seconds)
        child = librarys.labels(*labels)
        for value in seconds:
            child.observe(value)
    assert page(ours) == page(theirs)


def test_a_series_is_seen_before_anything_was_observed():
    registry = CollectorRegistry()
    histogram(registry).observe(("default", "noop"), ())
    sample = {"queue": "default", "kind": "noop"}
    assert registry.get_sample_value("run_seconds_count", sample) == 0
    assert registry.get_sample_value("run_seconds_sum", sample) == 0
    assert registry.get_sample_value("run_seconds_bucket", {**sample, "le": "+Inf"}) == 0


@pytest.mark.parametrize(
    ("value", "bound"), [(0.1, "0.1"), (0.1000001, "1.0"), (60.0, "60.0"), (61.0, "+Inf")]
)
def test_a_bound_belongs_to_the_bucket_below_it(value: float, bound: str):
    registry = CollectorRegistry()
    histogram(registry).observe(("default", "noop"), [value])
    counts = {
        sample.labels["le"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "run_seconds_bucket"
    }
    assert next(le for le, count in counts.items() if count) == bound


def test_observations_of_several_threads_are_all_counted():
    registry = CollectorRegistry()
    ours = histogram(registry)
    begin = threading.Barrier(4)

    def observe() -> None:
        begin.wait()
        for _ in range(2000):
            ours.observe(("default", "noop"), [0.5, 0.25])

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sample = {"queue": "default", "kind": "noop"}
    assert registry.get_sample_value("run_seconds_count", sample) == 16_000
    assert registry.get_sample_value("run_seconds_sum", sample) == 6_000
