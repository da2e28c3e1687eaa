"""Handlers for processes of their own: found by module and name from there."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from jobd import Discard


def pid() -> int:
    return os.getpid()


def dies(code: int) -> None:
    os._exit(code)


def exits() -> None:
    sys.exit(3)


def discards() -> None:
    raise Discard("hopeless")


def sleeps(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(3600)
