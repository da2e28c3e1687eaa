"""What a run measured, before anybody judges it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One contestant's figures in one round of a workload; `variant` tells its settings apart."""

    workload: str
    contestant: str
    variant: str
    round: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Walk:
    """Measurements of A and B, one after the other in ABBA order, of one figure.

    Neighbours of the same letter are what the machine does by itself, so every walk brings its own A/A
    pairs along.
    """

    bar: str
    order: tuple[tuple[str, float], ...]

    @property
    def ratios(self) -> list[float]:
        """A to B, of each pair: steps 1 and 2, 3 and 4, and so on."""
        pairs = zip(self.order[::2], self.order[1::2], strict=True)
        return [dict(pair)["A"] / dict(pair)["B"] for pair in pairs]

    @property
    def same_ratios(self) -> list[float]:
        """The later to the earlier, of neighbours of the same letter."""
        steps = zip(self.order, self.order[1:], strict=False)
        return [second[1] / first[1] for first, second in steps if first[0] == second[0]]


@dataclass
class Results:
    """All of a run."""

    environment: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    walks: list[Walk] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def values(self, workload: str, contestant: str, metric: str, variant: str = "") -> list[float]:
        """A figure's values, one a round; none where it was not measured."""
        return [
            sample.metrics[metric]
            for sample in self.samples
            if (sample.workload, sample.contestant, sample.variant) == (workload, contestant, variant)
            and metric in sample.metrics
        ]

    def median(self, workload: str, contestant: str, metric: str, variant: str = "") -> float | None:
        values = self.values(workload, contestant, metric, variant)
        return statistics.median(values) if values else None

    def contestants(self, workload: str) -> list[str]:
        """Those that have samples of a workload, in the order they came."""
        return list(
            dict.fromkeys(sample.contestant for sample in self.samples if sample.workload == workload)
        )

    def walk(self, bar: str) -> Walk | None:
        return next((walk for walk in self.walks if walk.bar == bar), None)

    def without(self, workloads: Collection[str]) -> Results:
        """What there is of other workloads, in a run that goes on with these."""
        return Results(
            environment=dict(self.environment),
            samples=[sample for sample in self.samples if _measured_in(sample.workload) not in workloads],
            walks=[walk for walk in self.walks if _measured_in(walk.bar.split()[0]) not in workloads],
            notes=list(self.notes),
        )

    def as_json(self) -> str:
        return json.dumps(
            {
                "environment": self.environment,
                "samples": [asdict(sample) for sample in self.samples],
                "walks": [asdict(walk) for walk in self.walks],
                "notes": self.notes,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Results:
        data = json.loads(text)
        return cls(
            environment=data["environment"],
            samples=[Sample(**sample) for sample in data["samples"]],
            walks=[
                Walk(walk["bar"], tuple((letter, value) for letter, value in walk["order"]))
                for walk in data["walks"]
            ],
            notes=data["notes"],
        )


def _measured_in(name: str) -> str:
    """Which workload measures a figure or a bar of that name."""
    return {"round trips": "drain", "fleet": "processes"}.get(name, name)
