"""`python -m benchmarks`: run the drain several times and print a table, or JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.drain import Drain, drain
from jobd.embedded import EmbeddedPostgres


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="jobs a drain (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=100, help="slots of the worker (default %(default)s)")
    parser.add_argument("--times", type=int, default=3, help="how many drains (default %(default)s)")
    parser.add_argument("--database-url", help="a database to use instead of an embedded one; loses schema jobd")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.database_url:
        drains = run(options.database_url, options)
    else:
        with tempfile.TemporaryDirectory(prefix="jobd-bench-") as folder:
            server = EmbeddedPostgres(Path(folder) / "postgres", settings={"shared_buffers": "512MB"})
            url = server.start()
            try:
                drains = run(url, options)
            finally:
                server.stop()
    if options.json:
        print(json.dumps([measured.as_dict() for measured in drains], indent=2))
        return
    for name in drains[0].as_dict():
        values = [measured.as_dict()[name] for measured in drains]
        print(f"{name:28} {statistics.median(values):>12,.2f}   of {', '.join(f'{value:,.2f}' for value in values)}")


def run(url: str, options: argparse.Namespace) -> list[Drain]:
    """The drains, one after the other."""
    return [
        asyncio.run(drain(url, count=options.jobs, concurrency=options.concurrency)) for _ in range(options.times)
    ]


if __name__ == "__main__":
    main()
