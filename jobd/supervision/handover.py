"""How `jobd run` becomes a supervisor, and how a supervisor tells its children that they are such.

By variables that are not settings and are taken out of the environment when they are read, so that
no program that a handler starts takes itself for either. The command line stays the operator's own:
`ps` shows the same words for all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import jobd
from jobd.supervision import PLAN

if TYPE_CHECKING:
    from jobd.supervision.tether import Tether

TETHER: Final = "_JOBD_TETHER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a supervisor has to know. `arguments` are those of `jobd`, for each child again."""

    processes: int
    arguments: Sequence[str]
    http_host: str | None
    """None where no child has the role `http`: then the supervisor has no port."""
    http_port: int
    log_level: str
    grace_seconds: float
    until_idle: bool


def become_supervisor(plan: Plan) -> NoReturn:
    """Replace this program by a supervisor, under the same pid: what was imported so far is given back."""
    os.environ[PLAN] = json.dumps(asdict(plan))
    sys.stdout.flush()
    sys.stderr.flush()
    line = command(plan.arguments)
    os.execv(line[0], line)


def take_plan() -> Plan | None:
    """The plan, in a process that `become_supervisor` made."""
    told = os.environ.pop(PLAN, None)
    return None if told is None else Plan(**json.loads(told))


def tether_name(process: int, descriptor: int) -> dict[str, str]:
    """What a child finds in its environment."""
    return {TETHER: f"{process}:{descriptor}"}


def take_tether() -> Tether | None:
    """The line to the supervisor, in a process that a supervisor started."""
    told = os.environ.pop(TETHER, None)
    if told is None:
        return None
    from jobd.supervision.tether import Tether

    process, _, descriptor = told.partition(":")
    return Tether(int(process), descriptor=int(descriptor))


def command(arguments: Sequence[str]) -> list[str]:
    """`jobd` with these arguments, on this interpreter and with its -X, -W, -O and the like."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # A jobd.py in the current folder is the application's, unless that folder is where this package is.
    here = os.path.dirname(os.path.dirname(os.path.abspath(jobd.__file__)))
    safe = [] if os.path.samefile(here, os.getcwd()) else ["-P"]
    return [sys.executable, *flags, *safe, "-m", "jobd", *arguments]
