"""The results as Markdown: how it was run, a table a workload, the verdicts, what was left out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.results import Results, Sample
from benchmarks.verdicts import Verdict

# Workload -> its columns: metric, heading, format.
COLUMNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "drain": (
        ("jobs", "jobs", ",.0f"),
        ("drain_per_second", "drain jobs/s", ",.0f"),
        ("enqueue_per_second", "bulk enqueue jobs/s", ",.0f"),
        ("worker_us", "worker CPU us a job", ",.0f"),
        ("database_us", "database CPU us a job", ",.0f"),
        ("commits", "commits a job", ".4f"),
        ("wal_bytes", "WAL bytes a job", ",.0f"),
        ("dead_tuples", "dead tuples a job", ".2f"),
    ),
    "round trips": (("round_trips", "round trips a job", ".4f"),),
    "latency": (
        ("p50_ms", "idle p50 ms", ".2f"),
        ("p99_ms", "idle p99 ms", ".2f"),
        ("offered_p50_ms", "offered p50 ms", ".2f"),
        ("offered_p99_ms", "offered p99 ms", ".2f"),
        ("offered_per_second", "offered jobs/s", ",.0f"),
    ),
    "steady": (
        ("completed_per_second", "completed jobs/s", ",.0f"),
        ("produced_per_second", "produced jobs/s", ",.0f"),
        ("left_ms", "left at the end, as ms of what came", ".0f"),
    ),
    "producers": (("enqueued_per_second", "single enqueues/s, ten at a time", ",.0f"),),
    "backlog": (
        ("scheduled", "scheduled", ",.0f"),
        ("finished", "finished", ",.0f"),
        ("jobs", "jobs", ",.0f"),
        ("drain_per_second", "drain jobs/s", ",.0f"),
        ("worker_us", "worker CPU us a job", ",.0f"),
        ("database_us", "database CPU us a job", ",.0f"),
    ),
    "snapshot": (
        ("jobs", "jobs", ",.0f"),
        ("drain_per_second", "drain jobs/s", ",.0f"),
        ("first_quarter", "first quarter jobs/s", ",.0f"),
        ("last_quarter", "last quarter jobs/s", ",.0f"),
        ("ratio", "last to first", ".2f"),
    ),
    "bulk": (
        ("enqueue_per_second", "jobs/s", ",.0f"),
        ("memory_mb", "memory growth MB", ",.0f"),
        ("memory_of_allowed", "of 16 bytes a job + 32 MB", ".2f"),
    ),
    "processes": (("drain_per_second", "jobs/s", ",.1f"), ("worker_us", "worker CPU us a job", ",.0f")),
    "fleet": (("drain_per_second", "jobs/s", ",.0f"), ("database_us", "database CPU us a job", ",.0f")),
    "limits": (
        ("jobs", "jobs", ",.0f"),
        ("drain_per_second", "drain jobs/s", ",.0f"),
        ("worker_us", "worker CPU us a job", ",.0f"),
        ("database_us", "database CPU us a job", ",.0f"),
    ),
    "fairness": (
        ("jobs", "jobs", ",.0f"),
        ("drain_per_second", "drain jobs/s", ",.0f"),
        ("sent", "sent by the other", ",.0f"),
        ("p50_ms", "its wait p50 ms", ",.1f"),
        ("p99_ms", "its wait p99 ms", ",.1f"),
        ("jain", "Jain's index", ".3f"),
    ),
    "deadlines": (
        ("jobs", "jobs", ",.0f"),
        ("best", "begun in time at best", ",.0f"),
        ("ended", "ended in time", ",.0f"),
        ("of_best", "part of the best", ".2f"),
    ),
    "growth": (
        ("few_us", "us a job with few", ",.1f"),
        ("many_us", "us a job with many", ",.1f"),
        ("ratio", "many to few", ".2f"),
    ),
    "schedules": (
        ("schedules", "schedules", ",.0f"),
        ("at_once", "in one minute", ",.0f"),
        ("minute_seconds", "until the last is committed s", ".2f"),
        ("minute_inserted_seconds", "inserted s", ".2f"),
        ("late_p50_ms", "spread: late p50 ms", ".1f"),
        ("late_p99_ms", "p99 ms", ".1f"),
        ("late_most_ms", "most ms", ".1f"),
        ("idle_percent", "idle CPU %", ".2f"),
        ("idle_database_percent", "database idle CPU %", ".2f"),
        ("look_seconds", "first look s", ".1f"),
    ),
}


def markdown(results: Results, verdicts: Sequence[Verdict]) -> str:
    """The whole report."""
    lines = ["# Benchmarks", ""]
    for name, value in results.environment.items():
        pairs = value.items() if isinstance(value, dict) else ()
        told = ", ".join(value if isinstance(value, list) else [f"{key} {each}" for key, each in pairs])
        if told or not isinstance(value, (dict, list)):
            lines.append(f"- {name}: {told or value}")
    lines += ["", "Medians of the rounds, least and most in brackets where they differ.", ""]
    for workload, columns in COLUMNS.items():
        samples = [sample for sample in results.samples if sample.workload == workload]
        if samples:
            lines += [f"## {workload.capitalize()}", "", *_table(samples, columns), ""]
    if verdicts:
        lines += ["## Verdicts", "", "| bar | measured | |", "|---|---|---|"]
        lines += [f"| {each.bar} | {each.measured} | {each.judgement} |" for each in verdicts]
        lines.append("")
    if results.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in results.notes), ""]
    return "\n".join(lines)


def _table(samples: Sequence[Sample], columns: Sequence[tuple[str, str, str]]) -> list[str]:
    shown = [column for column in columns if any(column[0] in sample.metrics for sample in samples)]
    lines = [
        "| | " + " | ".join(heading for _, heading, _ in shown) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for contestant, variant in dict.fromkeys((sample.contestant, sample.variant) for sample in samples):
        rows = [s.metrics for s in samples if (s.contestant, s.variant) == (contestant, variant)]
        cells = [_cell([row[metric] for row in rows if metric in row], form) for metric, _, form in shown]
        lines.append(f"| {f'{contestant} {variant}'.strip()} | " + " | ".join(cells) + " |")
    return lines


def _cell(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    middle, least, most = (
        format(value, form) for value in (statistics.median(values), min(values), max(values))
    )
    return middle if least == most else f"{middle} ({least} - {most})"
