"""The shape of all verbs: help in sections, and errors as one readable block with a fitting exit code.

0   done; healthy; the awaited job succeeded
1   the verb was refused or failed; unhealthy; the awaited job did not succeed
2   wrong usage, a wrong setting, a payload that cannot be stored
3   the database cannot be reached
70  `run` only: the lease was lost while handlers that cannot be stopped still ran
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from jobd.errors import CallTimeout, ConfigError, DatabaseUnavailable, HandlerError, JobdError, PayloadError

FAILED, USAGE, NO_DATABASE = 1, 2, 3


class Verb(TyperCommand):
    """A verb whose options stand in the sections that their `rich_help_panel` names."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        words = [_word(parameter) for parameter in self.get_params(ctx) if _is_argument(parameter)]
        return [*words, "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            record = parameter.get_help_record(ctx)
            if _is_argument(parameter):
                panel, record = "Arguments", (_word(parameter), getattr(parameter, "help", None) or "")
            if record is not None:
                sections.setdefault(panel, []).append(record)
        # What belongs to no section goes last: --json, --help.
        _write(formatter, sorted(sections.items(), key=lambda section: section[0] == "Options"))


class Verbs(TyperGroup):
    """Verbs in sections. Every error of jobd that a verb lets through ends here."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                title = panel if isinstance(panel, str) else "Verbs"
                sections.setdefault(title, []).append((name, command.get_short_help_str(limit=70)))
        _write(formatter, sections.items())

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except JobdError as error:
            raise typer.Exit(report(error)) from error
        except ExceptionGroup as group:
            # A service of the daemon failed; the others were only cancelled.
            known = [leaf for leaf in _leaves(group) if isinstance(leaf, JobdError)]
            if not known:
                raise
            raise typer.Exit(report(known[0])) from group


def report(error: JobdError) -> int:
    """Print an error on stderr: what, why, what next. Return the exit code."""
    _trace(error)
    _print("\n".join([str(error), *getattr(error, "__notes__", ())]))
    return exit_code(error)


def report_unexpected(error: Exception) -> int:
    """Print an error that no verb foresaw, a bug of the application's or of ours. Return the exit code."""
    _trace(error)
    told = [f"{type(leaf).__name__}: {leaf} (raised at {_place(leaf)})" for leaf in _leaves(error)]
    _print("\n".join([*told, "JOBD_LOG_LEVEL=debug shows the way there"]))
    return FAILED


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _trace(error: Exception) -> None:
    if os.environ.get("JOBD_LOG_LEVEL", "").lower() == "debug":
        typer.echo(readable("".join(traceback.format_exception(error))), err=True)


def _print(text: str) -> None:
    typer.echo("jobd: " + readable(text).replace("\n", "\n      "), err=True)


def readable(text: str) -> str:
    """An error's text as it may be shown: drivers like to quote URLs, and errors what they were given."""
    from jobd.cli.output import visible
    from jobd.redaction import hide_passwords

    return visible(hide_passwords(text), lines=True)


def exit_code(error: JobdError) -> int:
    """The code for an error; see the module's table."""
    if isinstance(error, (ConfigError, HandlerError, PayloadError)):
        return USAGE
    if isinstance(error, (DatabaseUnavailable, CallTimeout)):
        return NO_DATABASE
    return FAILED


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _word(argument: Any) -> str:
    """How an argument stands in the usage line."""
    word = argument.metavar or str(argument.name).upper()
    return word if argument.required else f"[{word}]"


def _write(formatter: Any, sections: Iterable[tuple[str, list[tuple[str, str]]]]) -> None:
    for title, rows in sections:
        with formatter.section(title):
            formatter.write_dl(rows)
