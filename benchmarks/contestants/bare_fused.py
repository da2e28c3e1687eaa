"""The limit, with finish and claim fused into one statement: one round trip and one commit a batch."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

STORE = "postgresql"

if __name__ == "__main__":
    os.environ["BENCH_BARE"] = "fused"
    runpy.run_path(str(Path(__file__).with_name("bare.py")), run_name="__main__")
