"""One page of numbers from many processes."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from jobd.events import Events, JobFinished, JobStarted
from jobd.gauges import GAUGES
from jobd.ids import uuid7
from jobd.metrics import Metrics, encode
from jobd.reader import Depth, Stock
from jobd.schedule_rows import Outlook
from jobd.supervision.tether import plain
from jobd.supervision.totals import RULES, Told, Totals, counter, gauge

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Process:
    """What one process counts and tells."""

    def __init__(self, *handlers: tuple[str, str]) -> None:
        self._events = Events()
        self._metrics = Metrics(self._events, version="1.2.3")
        self._metrics.declare(handlers)

    def run(self, times: int, *, kind: str = "resize", seconds: float = 0.2) -> None:
        for _ in range(times):
            about: dict[str, Any] = {"id": uuid7(), "kind": kind, "queue": "images", "attempt": 1}
            self._events.emit(JobStarted(**about, wait_seconds=seconds))
            self._events.emit(
                JobFinished(**about, state="succeeded", outcome="succeeded", run_seconds=seconds)
            )

    def told(self, *depths: Depth, **gauges: float) -> Told:
        return self.told_of(Stock(depths), gauges)

    def told_of(self, stock: Stock, gauges: Mapping[str, float]) -> Told:
        return plain(self._metrics.families(stock, gauges))


def shown(totals: Totals, present: Collection[Hashable] = ()) -> Series:
    page, _ = encode(totals.families(present), accept="")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(page.decode())
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def depth(queue: str, **counts: Any) -> Depth:
    known = {"ready": 0, "scheduled": 0, "running": 0, "oldest_ready_seconds": None}
    return Depth(queue=queue, paused_at=None, paused_by=None, **(known | counts))


def test_counters_and_histograms_are_added() -> None:
    totals, one, other = Totals(), Process(), Process()
    one.run(3, seconds=0.2)
    other.run(4, seconds=2.0)
    other.run(1, kind="mail")
    totals.tell(1, one.told())
    totals.tell(2, other.told())

    series = shown(totals)

    images = {"queue": "images", "kind": "resize"}
    assert value(series, "jobd_jobs_finished_total", **images, outcome="succeeded") == 7
    assert value(series, "jobd_jobs_started_total", queue="images", kind="mail") == 1
    assert value(series, "jobd_job_run_seconds_bucket", **images, le="0.25") == 3
    assert value(series, "jobd_job_run_seconds_bucket", **images, le="2.5") == 7
    assert value(series, "jobd_job_run_seconds_bucket", **images, le="+Inf") == 7
    assert value(series, "jobd_job_run_seconds_sum", **images) == pytest.approx(8.6)
    assert value(series, "jobd_job_run_seconds_count", **images) == 7


def test_what_a_process_tells_takes_the_place_of_what_it_told_before() -> None:
    totals, process = Totals(), Process()
    for _ in range(3):
        process.run(2)
        totals.tell(1, process.told())
    assert value(shown(totals), "jobd_jobs_started_total", queue="images", kind="resize") == 6


def test_the_counts_of_an_ended_process_stay_and_its_gauges_go() -> None:
    totals, one, other = Totals(), Process(), Process()
    one.run(3)
    totals.tell(1, one.told(slots_total=10))
    totals.tell(2, other.told(slots_total=10))
    totals.end(1)
    totals.end(1)  # nothing more of it is known

    series = shown(totals, present=[2])

    assert value(series, "jobd_jobs_started_total", queue="images", kind="resize") == 3
    assert value(series, "jobd_slots", state="total") == 10


def test_gauges_of_a_process_that_does_not_answer_now_are_left_out() -> None:
    totals = Totals()
    totals.tell(1, Process().told(slots_total=10, leader=1))
    totals.tell(2, Process().told(slots_total=10, leader=0))

    series = shown(totals, present=[2])

    assert (value(series, "jobd_slots", state="total"), value(series, "jobd_leader")) == (10, 0)


def test_each_gauge_is_combined_as_its_meaning_demands() -> None:
    totals = Totals()
    one: dict[str, float] = {
        "slots_total": 5,
        "slots_busy": 1,
        "lease_age_seconds": 3,
        "loop_lag_seconds": 0.5,
    }
    other: dict[str, float] = {
        "slots_total": 5,
        "slots_busy": 2,
        "lease_age_seconds": 9,
        "loop_lag_seconds": 0.1,
    }
    totals.tell(1, Process().told(**one, listener_up=1, leader=1, database_up=1))
    totals.tell(2, Process().told(**other, listener_up=0, leader=0, database_up=0))

    series = shown(totals, present=[1, 2])

    assert value(series, "jobd_slots", state="total") == 10
    assert value(series, "jobd_slots", state="busy") == 3
    assert value(series, "jobd_lease_age_seconds") == 9
    assert value(series, "jobd_loop_lag_seconds") == 0.5
    assert value(series, "jobd_listener_up") == 0
    assert value(series, "jobd_database_up") == 0
    assert value(series, "jobd_leader") == 1
    assert value(series, "jobd_info", version="1.2.3") == 1


def test_queues_are_those_of_the_database_whoever_counts_them() -> None:
    totals = Totals()
    full = depth("images", ready=7, scheduled=2, running=3, oldest_ready_seconds=4.5)
    totals.tell(1, Process().told(full))
    totals.tell(2, Process().told(full))
    totals.tell(3, Process().told())

    series = shown(totals, present=[1, 2, 3])

    found = [
        value(series, f"jobd_jobs_{state}", queue="images") for state in ("ready", "scheduled", "running")
    ]
    assert found == [7, 2, 3]
    assert value(series, "jobd_oldest_ready_seconds", queue="images") == 4.5


def test_memory_is_added_and_the_process_with_most_files_counts() -> None:
    totals = Totals()
    for process, (memory, files) in {1: (100, 30), 2: (200, 50)}.items():
        totals.tell(
            process,
            [
                gauge("process_resident_memory_bytes", "", [({}, memory)]),
                gauge("process_open_fds", "", [({}, files)]),
                gauge("process_max_fds", "", [({}, 1000 * process)]),
                gauge("process_start_time_seconds", "", [({}, 10.0 * process)]),
                counter("process_cpu_seconds", "", 1.5),
            ],
        )

    series = shown(totals, present=[1, 2])

    names = ("process_resident_memory_bytes", "process_open_fds", "process_max_fds")
    assert [value(series, name) for name in names] == [300, 50, 1000]
    assert value(series, "process_start_time_seconds") == 10
    assert value(series, "process_cpu_seconds_total") == 3


def test_every_gauge_there_is_has_a_rule() -> None:
    schedules = Outlook({"active": 1}, {"nightly": datetime(2026, 1, 1, tzinfo=UTC)})
    process = Process(("images", "resize"))
    told = process.told_of(Stock([depth("images")], schedules), dict.fromkeys(GAUGES, 1.0))
    gauges = {name for name, type, _, _ in told if type not in ("counter", "histogram")}
    supervisor = {"jobd_processes"}
    assert gauges | supervisor == set(RULES)


def test_the_page_is_valid_openmetrics_too() -> None:
    totals, one, other = Totals(), Process(("images", "resize")), Process(("images", "mail"))
    one.run(1)
    other.run(1, kind="crop")
    totals.tell(1, one.told(depth("images", ready=1), slots_total=1))
    totals.tell(2, other.told(slots_total=1))
    totals.end(1)
    page, content_type = encode(totals.families([2]), accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = parse_openmetrics(page.decode())  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"jobd", "jobd_job_run_seconds"}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["work", "tell", "die"])), max_size=60))
def test_no_counter_ever_goes_back(steps: list[tuple[int, str]]) -> None:
    totals = Totals()
    lives = [0, 0, 0, 0]
    counts = [0.0, 0.0, 0.0, 0.0]
    before = 0.0
    for place, step in steps:
        match step:
            case "work":
                counts[place] += 1
            case "tell":
                totals.tell((place, lives[place]), [counter("jobs", "", counts[place])])
            case _:
                totals.end((place, lives[place]))
                lives[place] += 1
                counts[place] = 0
        now = value(shown(totals), "jobs_total") or 0.0
        assert now >= before
        before = now


def test_what_is_told_survives_the_socket() -> None:
    told = Process(("images", "resize")).told(depth("images", ready=1), slots_total=3)
    crossed = json.loads(json.dumps(told))
    totals, direct = Totals(), Totals()
    totals.tell(1, crossed)
    direct.tell(1, told)
    assert shown(totals, present=[1]) == shown(direct, present=[1])
