"""The golden file: 200 expressions with 20 fires each, which no upgrade of a dependency may move.

A line of golden/schedules.jsonl is `{"schedule": {what Schedule.parse takes}, "after": ..., "fires": [...]}`.

    uv run python -m tests.unit.schedule_golden     # computes the fires anew: then look at the difference

To add an expression, add a line without fires and run that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from jobd import Schedule

PATH = Path(__file__).parent / "golden" / "schedules.jsonl"
FIRES = 20


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]


def compute(entry: dict[str, Any]) -> Iterator[str]:
    """Up to 20 fires after `after`, in UTC."""
    options = dict(entry["schedule"])
    if "anchor" in options:
        options["anchor"] = datetime.fromisoformat(options["anchor"])
    schedule = Schedule.parse(**options)
    fire = datetime.fromisoformat(entry["after"])
    for _ in range(FIRES):
        following = schedule.next_after(fire)
        if following is None:
            return
        fire = following
        yield f"{fire:%Y-%m-%dT%H:%M:%SZ}"


def write() -> None:
    lines = [json.dumps(entry | {"fires": list(compute(entry))}) for entry in read()]
    PATH.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} expressions in {PATH}")


if __name__ == "__main__":
    write()
