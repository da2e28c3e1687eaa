"""What the kernel says of processes and of this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(root: int, *, without: frozenset[int] = frozenset()) -> float:
    """User and system time of a process and all below it, with those that ended and were waited for.

    A child that ends meanwhile moves into its parent's account, so differences stay true. 0.0 when the
    process is gone.
    """
    return sum(sum(stat.times) for pid, stat in _tree(root).items() if pid not in without) / TICK


class Stat:
    """The fields of /proc/PID/stat that count here."""

    def __init__(self, text: str) -> None:
        # The name may hold spaces and parentheses: what counts starts behind the last one.
        fields = text[text.rindex(")") + 2 :].split()
        self.ended = fields[0] in "ZX"
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.times = tuple(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime


def session(leader: int) -> list[int]:
    """The processes that run in the session that `leader` began, process groups of their own included."""
    return [pid for pid, stat in _everybody().items() if stat.session == leader and not stat.ended]


def _everybody() -> dict[int, Stat]:
    stats: dict[int, Stat] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stats[int(entry)] = Stat(Path(f"/proc/{entry}/stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return stats


def _tree(root: int) -> dict[int, Stat]:
    stats = _everybody()
    found = {root} & stats.keys()
    fresh = found
    while fresh:
        fresh = {pid for pid, stat in stats.items() if stat.parent in fresh}
        found = found | fresh
    return {pid: stats[pid] for pid in found}


def description() -> dict[str, str]:
    """The machine, for the head of the report."""
    model = "unknown"
    memory = 0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory = int(line.split()[1]) // 2**20
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{memory} GiB",
        "system": f"{platform.system()} {platform.release()}",
    }
