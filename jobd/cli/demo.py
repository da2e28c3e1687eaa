"""The verb demo: find the example application, beside the package or inside it, and run it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobd.errors import ConfigError

NAME = "sneaky_klaus"


def demo(
    seconds_per_day: Annotated[
        float,
        typer.Option("--seconds-per-day", metavar="N", min=1, help="How long a day of the story takes."),
    ] = 5.0,
    http_port: Annotated[
        int,
        typer.Option(
            "--http-port",
            metavar="PORT",
            min=0,
            max=65_535,
            help="Where probes and metrics listen; any free port if this one is taken.",
        ),
    ] = 8642,
) -> None:
    """Watch a small application at work, mails included.

    A gift exchange whose reminders really arrive. Starts an embedded PostgreSQL, an SMTP server and a
    daemon in a temporary folder, with time compressed. Ctrl-C ends it and leaves nothing behind.
    Needs: pip install 'jobd[embedded]'.

    \b
    Examples:
      jobd demo
      jobd demo --seconds-per-day 2
    """
    folder = examples_folder()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module = importlib.import_module(f"{NAME}.demo")
    raise typer.Exit(module.run_demo(seconds_per_day=seconds_per_day, http_port=http_port))


def examples_folder() -> Path:
    """The folder of the example: inside an installed package, beside it in a checkout. Raises ConfigError."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / NAME / "demo.py").is_file():
            return folder
    raise ConfigError("demo", str(package), f"this installation lacks examples/{NAME}: reinstall jobd")
