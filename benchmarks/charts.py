"""The results as pictures (PNG), drawn without a display. Needs matplotlib (dependency group `bench`)."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.contestant import OWN
from benchmarks.results import Results

# File name -> workload, its bars, title, and whether the axis is logarithmic.
CHARTS = {
    "drain": ("drain", ("drain_per_second",), "Drain: jobs a second, one worker process", False),
    "enqueue": ("drain", ("enqueue_per_second",), "Bulk enqueue: jobs a second", False),
    "cpu": ("drain", ("worker_us", "database_us"), "CPU of worker and database, us a job", True),
    "latency": ("latency", ("p50_ms", "p99_ms"), "Enqueue call to handler, idle, ms", True),
    "offered": (
        "latency",
        ("offered_p50_ms", "offered_p99_ms"),
        "The same at 1,000 jobs/s offered, ms",
        True,
    ),
    "steady": ("steady", ("completed_per_second",), "Single enqueues and a worker: completed jobs/s", False),
}


def draw(results: Results, folder: Path) -> None:
    """One chart a figure, contestants below each other, medians as bars."""
    for name, (workload, metrics, title, logarithmic) in CHARTS.items():
        contestants = [
            each for each in results.contestants(workload) if results.values(workload, each, metrics[0])
        ]
        if contestants:
            _bars(results, folder / f"{name}.png", workload, metrics, contestants, title, logarithmic)
    _walks(results, folder / "pairs.png")


def _bars(
    results: Results,
    path: Path,
    workload: str,
    metrics: tuple[str, ...],
    contestants: list[str],
    title: str,
    logarithmic: bool,
) -> None:
    first = results.median
    ordered = sorted(contestants, key=lambda each: first(workload, each, metrics[0]) or 0.0)
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.36 * len(ordered) * len(metrics)))
    height = 0.8 / len(metrics)
    for number, metric in enumerate(metrics):
        places = [place - number * height for place in range(len(ordered))]
        values = [results.median(workload, each, metric) or 0.0 for each in ordered]
        colours = ["#1f6f54" if each in OWN else "#9aa5b1" for each in ordered]
        bars = axes.barh(places, values, height=height * 0.9, color=colours, alpha=1 - 0.4 * number)
        axes.bar_label(bars, [f"{value:,.4g}" for value in values], padding=3, fontsize=8)
    axes.set_yticks([place - height * (len(metrics) - 1) / 2 for place in range(len(ordered))], ordered)
    if logarithmic:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_title(title if len(metrics) == 1 else f"{title} (upper: {metrics[0]}, lower: {metrics[1]})")
    axes.title.set_fontsize(10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def _walks(results: Results, path: Path) -> None:
    """The pairs of the close bars, each a dot, beside the A/A pairs of the same walk."""
    walks = [walk for walk in results.walks if walk.ratios]
    if not walks:
        return
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.5 * len(walks)))
    for place, walk in enumerate(walks):
        same = walk.same_ratios
        axes.plot(same, [place - 0.15] * len(same), "|", color="#9aa5b1", markersize=9)
        axes.plot(walk.ratios, [place + 0.15] * len(walk.ratios), "o", color="#1f6f54", alpha=0.6)
        axes.plot([statistics.median(walk.ratios)], [place + 0.15], "D", color="black", markersize=5)
    axes.set_yticks(range(len(walks)), [walk.bar for walk in walks])
    axes.set_title("Ratios of ABBA pairs (dots, median black) and of A/A pairs (ticks)", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
