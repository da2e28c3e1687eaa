"""The numbers: what each event and each gauge shows on the page, and that the page stays bounded."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

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
from jobd.gauges import GAUGES
from jobd.labels import MAX_KINDS, MAX_PAIRS, MAX_QUEUES
from jobd.lifecycle import OUTCOMES
from jobd.metrics import Metrics
from jobd.reader import Depth, Stock
from jobd.schedule_rows import Outlook
from jobd.supervision.crew import Crew
from jobd.supervision.handover import Plan
from tests.edges.served import depth, new_metrics

JOB = UUID("0190a000-0000-7000-8000-000000000000")
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OUTLOOK = Outlook({"active": 5, "paused": 1, "faulty": 0, "ended": 2}, {"nightly": NOON, None: NOON})

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def started(kind: str = "resize", queue: str = "images", wait: float = 0.2) -> JobStarted:
    return JobStarted(id=JOB, kind=kind, queue=queue, attempt=1, wait_seconds=wait)


def finished(
    outcome: str = "succeeded",
    *,
    state: str = "succeeded",
    kind: str = "resize",
    queue: str = "images",
    seconds: float | None = 1.5,
) -> JobFinished:
    return JobFinished(
        id=JOB, kind=kind, queue=queue, attempt=1, state=state, outcome=outcome, run_seconds=seconds
    )


def supervisor() -> Crew:
    plan = Plan(
        processes=2,
        arguments=[],
        http_host=None,
        http_port=0,
        log_level="info",
        grace_seconds=0,
        until_idle=False,
    )
    return Crew(plan, command=[], environment={})


def shown(
    metrics: Metrics,
    depths: Sequence[Depth] | None = (),
    schedules: Outlook | None = None,
    **gauges: float,
) -> Series:
    page, _ = metrics.render(None if depths is None else Stock(depths, schedules), gauges)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def names(series: Series) -> set[str]:
    return {name for name, _ in series if name.startswith("jobd_")}


def test_enqueued_jobs_are_counted_by_queue_and_kind() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(JobEnqueued(kind="resize", queue="images"))
    events.emit(JobEnqueued(kind="resize", queue="images", count=1_000))
    events.emit(JobEnqueued(kind="mail", queue="default"))

    series = shown(metrics)

    assert value(series, "jobd_jobs_enqueued_total", queue="images", kind="resize") == 1_001
    assert value(series, "jobd_jobs_enqueued_total", queue="default", kind="mail") == 1


def test_jobs_that_were_turned_away_are_counted_by_what_became_of_them() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(JobsTurnedAway(kind="resize", queue="images", outcome="refused"))
    events.emit(JobsTurnedAway(kind="resize", queue="images", outcome="shed", count=3))

    series = shown(metrics)

    name, labels = "jobd_jobs_turned_away_total", {"queue": "images", "kind": "resize"}
    assert value(series, name, **labels, outcome="refused") == 1
    assert value(series, name, **labels, outcome="shed") == 3


def test_a_started_run_is_counted_with_its_wait() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(started(wait=0.2))

    series = shown(metrics)

    assert value(series, "jobd_jobs_started_total", queue="images", kind="resize") == 1
    assert value(series, "jobd_job_wait_seconds_sum", queue="images", kind="resize") == 0.2
    assert value(series, "jobd_job_wait_seconds_bucket", queue="images", kind="resize", le="0.1") == 0
    assert value(series, "jobd_job_wait_seconds_bucket", queue="images", kind="resize", le="0.5") == 1


def test_deadlines_are_counted_for_jobs_that_have_one() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit_all([started()._replace(late=late) for late in (None, True, False, False)])

    series = shown(metrics)

    assert value(series, "jobd_deadlines_total", queue="images", kind="resize", outcome="met") == 2
    assert value(series, "jobd_deadlines_total", queue="images", kind="resize", outcome="late") == 1


def test_a_wait_below_zero_counts_as_none() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(started(wait=-0.5))

    assert value(shown(metrics), "jobd_job_wait_seconds_sum", queue="images", kind="resize") == 0


@pytest.mark.parametrize("outcome", sorted(set(OUTCOMES.values())))
def test_each_outcome_of_a_run_is_counted_under_its_own_name(outcome: str) -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(finished(outcome, state="scheduled"))

    series = shown(metrics)

    assert value(series, "jobd_jobs_finished_total", queue="images", kind="resize", outcome=outcome) == 1


def test_a_finished_run_is_counted_with_its_duration() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(finished(seconds=1.5))
    events.emit(finished("failed", state="scheduled", seconds=0.5))

    series = shown(metrics)

    assert value(series, "jobd_job_run_seconds_sum", queue="images", kind="resize") == 2.0
    assert value(series, "jobd_job_run_seconds_count", queue="images", kind="resize") == 2


def test_a_job_of_an_unknown_kind_did_not_run_and_has_no_duration() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(finished("unknown_kind", state="scheduled", seconds=None))

    assert value(shown(metrics), "jobd_job_run_seconds_count", queue="images", kind="resize") == 0


def test_a_run_that_left_its_job_dead_is_told_from_one_that_will_be_tried_again() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(finished("failed", state="scheduled"))
    events.emit(finished("failed", state="dead"))

    series = shown(metrics)

    assert value(series, "jobd_jobs_finished_total", queue="images", kind="resize", outcome="failed") == 2
    assert value(series, "jobd_jobs_dead_total", queue="images", kind="resize") == 1


def test_chores_and_losses_are_counted() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(JobsStaged(count=40))
    events.emit(JobsRescued(count=7, dead=2))
    events.emit(JobsExpired(queue="images", kind="resize", count=3))
    events.emit(RunStale(id=JOB, kind="resize", queue="images", attempt=1, claim_no=4))
    events.emit(LeaseLost(detail="no beat for 30 s"))

    series = shown(metrics)

    assert value(series, "jobd_jobs_staged_total") == 40
    assert value(series, "jobd_jobs_rescued_total") == 7
    assert value(series, "jobd_jobs_crashed_total") == 2
    dropped = {"queue": "images", "kind": "resize", "outcome": "dropped"}
    assert value(series, "jobd_deadlines_total", **dropped) == 3
    assert value(series, "jobd_runs_stale_total") == 1
    assert value(series, "jobd_leases_lost_total") == 1


def test_occurrences_are_counted_by_outcome_and_a_stretch_by_its_number() -> None:
    events = Events()
    metrics = new_metrics(events)
    assert value(shown(metrics), "jobd_schedule_occurrences_total", outcome="missed") == 0
    events.emit(ScheduleFired("nightly", "ran", 1, 0.02))
    events.emit(ScheduleFired("nightly", "missed", 144, 7_200.0))
    events.emit(ScheduleFired("nightly", "skipped", 1, 0.5))
    events.emit(ScheduleFaulty("weekly", "no such zone"))

    series = shown(metrics)

    counted = {
        outcome: value(series, "jobd_schedule_occurrences_total", outcome=outcome)
        for outcome in ("ran", "skipped", "missed")
    }
    assert counted == {"ran": 1, "skipped": 1, "missed": 144}
    assert value(series, "jobd_schedule_faults_total") == 1


def test_the_lateness_is_of_occurrences_that_ran() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(ScheduleFired("nightly", "ran", 1, 0.02))
    events.emit(ScheduleFired("nightly", "missed", 144, 7_200.0))

    series = shown(metrics)

    assert value(series, "jobd_schedule_lateness_seconds_sum") == 0.02
    assert value(series, "jobd_schedule_lateness_seconds_count") == 1
    assert value(series, "jobd_schedule_lateness_seconds_bucket", le="0.01") == 0
    assert value(series, "jobd_schedule_lateness_seconds_bucket", le="0.05") == 1


def test_schedules_show_their_number_and_when_the_nearest_occur() -> None:
    series = shown(new_metrics(), schedules=OUTLOOK)

    assert value(series, "jobd_schedules", state="active") == 5
    assert value(series, "jobd_schedules", state="faulty") == 0
    next_fire = "jobd_schedule_next_fire_timestamp_seconds"
    assert value(series, next_fire, schedule="nightly") == NOON.timestamp()
    assert value(series, next_fire, schedule="other") == NOON.timestamp()


def test_a_schedule_that_is_really_called_other_is_told_once() -> None:
    later = NOON.replace(hour=13)
    series = shown(new_metrics(), schedules=Outlook({}, {"other": later, None: NOON}))

    assert value(series, "jobd_schedule_next_fire_timestamp_seconds", schedule="other") == NOON.timestamp()


def test_declared_handlers_show_zeros_before_their_first_job() -> None:
    metrics = new_metrics()
    metrics.declare([("images", "resize")])

    series = shown(metrics)

    assert value(series, "jobd_jobs_started_total", queue="images", kind="resize") == 0
    assert value(series, "jobd_jobs_finished_total", queue="images", kind="resize", outcome="failed") == 0
    assert value(series, "jobd_jobs_dead_total", queue="images", kind="resize") == 0


def test_gauges_show_what_the_process_says_of_itself() -> None:
    series = shown(
        new_metrics(),
        slots_total=100,
        slots_busy=3,
        lease_age_seconds=1.5,
        loop_lag_seconds=0.01,
        listener_up=1,
        leader=0,
    )

    assert value(series, "jobd_slots", state="total") == 100
    assert value(series, "jobd_slots", state="busy") == 3
    assert value(series, "jobd_lease_age_seconds") == 1.5
    assert value(series, "jobd_loop_lag_seconds") == 0.01
    assert value(series, "jobd_listener_up") == 1
    assert value(series, "jobd_leader") == 0
    assert value(series, "jobd_info", version="1.2.3") == 1


def test_a_gauge_that_is_not_known_yet_is_left_out() -> None:
    assert "jobd_lease_age_seconds" not in names(shown(new_metrics()))


def test_a_gauge_without_a_metric_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="slots_bussy"):
        new_metrics().render(Stock(), {"slots_bussy": 1})


def test_queues_show_their_depth_and_the_age_of_their_oldest_ready_job() -> None:
    series = shown(
        new_metrics(),
        [
            depth("images", ready=5, scheduled=2, running=1, oldest_ready_seconds=12.5),
            depth("mail", paused_at=datetime(2026, 1, 1, tzinfo=UTC), paused_by="ops"),
        ],
    )

    assert value(series, "jobd_jobs_ready", queue="images") == 5
    assert value(series, "jobd_jobs_scheduled", queue="images") == 2
    assert value(series, "jobd_jobs_running", queue="images") == 1
    assert value(series, "jobd_oldest_ready_seconds", queue="images") == 12.5
    assert value(series, "jobd_oldest_ready_seconds", queue="mail") == 0
    assert value(series, "jobd_queue_paused", queue="images") == 0
    assert value(series, "jobd_queue_paused", queue="mail") == 1


def test_a_queue_that_is_gone_leaves_no_series_behind() -> None:
    metrics = new_metrics()
    shown(metrics, [depth("images", ready=5)])

    assert value(shown(metrics, [depth("mail")]), "jobd_jobs_ready", queue="images") is None


def test_without_an_answer_of_the_database_queues_are_absent_and_it_is_down() -> None:
    series = shown(new_metrics(), None, database_up=1)

    assert value(series, "jobd_database_up") == 0
    assert "jobd_jobs_ready" not in names(series)


def test_the_database_is_up_when_it_answered_unless_a_service_lost_it() -> None:
    assert value(shown(new_metrics()), "jobd_database_up") == 1
    assert value(shown(new_metrics(), database_up=0), "jobd_database_up") == 0


def test_100_000_distinct_kinds_and_queues_stay_within_the_caps() -> None:
    events = Events()
    metrics = new_metrics(events)
    metrics.declare([("images", "resize")])
    for number in range(100_000):
        events.emit(JobEnqueued(kind=f"kind_{number}", queue=f"queue_{number % 1_000}"))
    events.emit(JobEnqueued(kind="resize", queue="images"))

    counted = {key: count for key, count in shown(metrics).items() if key[0] == "jobd_jobs_enqueued_total"}
    labels = [dict(labels) for _, labels in counted]

    assert sum(counted.values()) == 100_001
    assert len(counted) <= MAX_PAIRS + MAX_QUEUES + 1
    assert len({label["kind"] for label in labels}) <= MAX_KINDS + 1
    assert len({label["queue"] for label in labels}) <= MAX_QUEUES + 1
    assert counted["jobd_jobs_enqueued_total", frozenset({("queue", "images"), ("kind", "resize")})] == 1


def test_an_outcome_that_nobody_named_counts_as_other() -> None:
    events = Events()
    metrics = new_metrics(events)
    for number in range(1_000):
        events.emit(finished(f"outcome_{number}"))

    series = shown(metrics)

    assert value(series, "jobd_jobs_finished_total", queue="images", kind="resize", outcome="other") == 1_000
    assert len([name for name, _ in series if name == "jobd_jobs_finished_total"]) == 1


def test_queues_past_the_cap_are_shown_together_and_once() -> None:
    queues = [
        depth(f"queue_{number:04}", ready=1, oldest_ready_seconds=float(number)) for number in range(500)
    ]
    page, _ = new_metrics().render(Stock([*queues, depth("other", ready=1)]), {})
    lines = [line for line in page.decode().splitlines() if line.startswith("jobd_jobs_ready{")]

    assert len(lines) <= MAX_QUEUES + 1
    assert len({line.split()[0] for line in lines}) == len(lines)
    assert sum(float(line.split()[1]) for line in lines) == 501


@pytest.mark.parametrize("queue", ['quo"ted', "back\\slash", "new\nline", 'x"} 1\njobd_leader 7', "ünïcode"])
def test_a_hostile_name_survives_the_round_trip_and_adds_no_line(queue: str) -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(JobEnqueued(kind="resize", queue=queue))

    series = shown(metrics, [depth(queue, ready=1)])

    assert value(series, "jobd_jobs_enqueued_total", queue=queue, kind="resize") == 1
    assert value(series, "jobd_jobs_ready", queue=queue) == 1
    assert value(series, "jobd_leader") is None


def test_threads_that_count_at_once_lose_nothing() -> None:
    events = Events()
    metrics = new_metrics(events)
    together = threading.Barrier(4)

    def count() -> None:
        together.wait()
        for number in range(5_000):
            events.emit(started(kind=f"kind_{number % 50}"))
            events.emit(finished(kind=f"kind_{number % 50}"))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    counts = shown(metrics)
    assert sum(count for (name, _), count in counts.items() if name == "jobd_jobs_started_total") == 20_000
    assert sum(count for (name, _), count in counts.items() if name == "jobd_job_run_seconds_count") == 20_000


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=nonsense", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.3",
            "application/openmetrics-text; version=1.0.0",
        ),
        ("application/openmetrics-text; version=x\x80y", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_the_page_comes_in_the_format_that_the_scraper_accepts(accept: str, content_type: str) -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(finished())
    page, found = metrics.render(Stock([depth()]), {"leader": 1}, accept=accept)

    assert found.startswith(content_type)
    parse = parse_openmetrics if "openmetrics" in found else text_string_to_metric_families
    assert "jobd_jobs_finished" in {
        family.name.removesuffix("_total") for family in parse(page.decode()) if family.samples
    }


def test_the_page_has_no_series_about_when_counting_began() -> None:
    events = Events()
    metrics = new_metrics(events)
    events.emit(finished())

    assert not [name for name in names(shown(metrics)) if name.endswith("_created")]


def test_the_documentation_names_every_metric_and_no_other() -> None:
    events = Events()
    metrics = new_metrics(events)
    metrics.declare([("images", "resize")])
    events.emit(JobEnqueued(kind="resize", queue="images"))
    page, _ = metrics.render(Stock([depth()], OUTLOOK), dict.fromkeys(GAUGES, 1.0))
    exposed = set(re.findall(r"^# TYPE (jobd_\w+)", page.decode(), flags=re.MULTILINE))

    page, _ = supervisor().page.render(None, {})
    exposed |= set(re.findall(r"^# TYPE (jobd_\w+)", page.decode(), flags=re.MULTILINE))

    documented = set(re.findall(r"^\| `(jobd_\w+)`", DOCS.read_text(), flags=re.MULTILINE))

    assert documented == exposed
