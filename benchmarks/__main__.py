"""`python -m benchmarks`: what jobd does on this machine, as tables or JSON.

`drain` enqueues many jobs and drains them several times; `latency` enqueues single jobs on an idle daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.drain import drain
from benchmarks.latency import latency
from jobd.embedded import EmbeddedPostgres


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["drain", "latency"], default="drain")
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs a drain (default %(default)s)")
    parser.add_argument(
        "--concurrency", type=int, default=100, help="slots of the worker (default %(default)s)"
    )
    parser.add_argument("--times", type=int, default=3, help="how many drains (default %(default)s)")
    parser.add_argument(
        "--database-url", help="a database to use instead of an embedded one; loses schema jobd"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.database_url:
        rows = run(options.database_url, options)
    else:
        with tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder:
            server = EmbeddedPostgres(Path(folder) / "postgres", settings={"shared_buffers": "512MB"})
            url = server.start()
            try:
                rows = run(url, options)
            finally:
                server.stop()
    if options.json:
        print(json.dumps(rows, indent=2))
    elif options.what == "latency":
        for row in rows:
            print(", ".join(f"{name} {value:,.2f}" for name, value in row.items()))
    else:
        for name in rows[0]:
            values = [row[name] for row in rows]
            each = ", ".join(f"{value:,.2f}" for value in values)
            print(f"{name:28} {statistics.median(values):>12,.2f}   of {each}")


def run(url: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The measurements, one after the other."""
    if options.what == "latency":
        return [asyncio.run(latency(url, count=100, notify=notify)) for notify in (True, False)]
    measured = [
        asyncio.run(drain(url, count=options.jobs, concurrency=options.concurrency))
        for _ in range(options.times)
    ]
    return [row.as_dict() for row in measured]


if __name__ == "__main__":
    main()
