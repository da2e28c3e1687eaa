"""Files that handlers wait for, and how a test knows that they do.

A job is `running` from the moment its claim commits, before its worker has even read the answer. Whoever
signals a daemon, or takes its database away, wants to meet its handlers: they leave a mark beside the file.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from tests.daemon.daemons import PATIENCE
from tests.signals import eventually


def mark(path: str) -> None:
    """Tell that a handler waits for this file from now on."""
    Path(f"{path}.{uuid4().hex}.waits").touch()


async def waited_for(gate: Path, count: int = 1) -> None:
    """Wait until so many handlers have come to wait for this file."""
    await eventually(
        lambda: len(list(gate.parent.glob(f"{gate.name}.*.waits"))),
        until=lambda now: now >= count,
        timeout=PATIENCE,
    )
