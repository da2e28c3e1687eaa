"""What a job may be told, as options: of `enqueue`, and of `schedules add` for the jobs that occur."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any

import typer

from jobd.cli.options import decoded
from jobd.errors import ConfigError, PayloadError

_job = partial(typer.Option, rich_help_panel="The job")

Queue = Annotated[str | None, _job("--queue", metavar="NAME", help="The handler's queue unless said.")]
Priority = Annotated[int, _job("--priority", metavar="N", help="Higher runs first within a queue.")]
Tenant = Annotated[str | None, _job("--tenant", metavar="NAME", help="On whose behalf.")]
UseCase = Annotated[str | None, _job("--use-case", metavar="NAME", help="What for.")]
ConcurrencyKey = Annotated[
    str | None, _job("--concurrency-key", metavar="TEXT", help="Limits how many of the key run at once.")
]
DelayTolerance = Annotated[
    str | None, _job("--delay-tolerance", metavar="DURATION", help="How long after it is due it may start.")
]
DeadlinePolicy = Annotated[
    str, _job("--deadline-policy", metavar="RULE", help="Later than that: run or drop.")
]
MaxAttempts = Annotated[int | None, _job("--max-attempts", metavar="N", help="Dead after so many.")]
Backoff = Annotated[
    str | None,
    _job("--backoff", metavar="RULE|JSON", help='exponential, linear, constant or {"base": "10s", ...}.'),
]
Timeout = Annotated[str | None, _job("--timeout", metavar="DURATION", help="Of one attempt.")]
# Where --timeout means something else.
AttemptTimeout = Annotated[str | None, _job("--attempt-timeout", metavar="DURATION", help="Of one attempt.")]
Tags = Annotated[list[str] | None, _job("--tag", metavar="TAG", help="To find it by; repeatable.")]
Meta = Annotated[str | None, _job("--meta", metavar="JSON", help="What handlers see as ctx.meta.")]

# Those whose flag is not the option's own name.
FLAGS = {"tenant_id": "--tenant", "tags": "--tag"}


def backoff_of(text: str | None) -> Any:
    """The rule, or the object that describes one. Raises ConfigError."""
    return json_of(text, "--backoff") if text and text.startswith("{") else text


def json_of(text: str | None, option: str) -> Any:
    """The value of an option that is JSON. Raises ConfigError."""
    try:
        return None if text is None else decoded(text)
    except PayloadError as error:
        raise ConfigError(option, text, f"{error.problem}; {error.remedy}".removesuffix("; ")) from error


def as_typed(error: ConfigError, said: Collection[str], **flags: str) -> ConfigError:
    """The same error by the flag, where one of the options `said` on this command line was wrong."""
    name, dot, part = error.setting.partition(".")
    if name not in said:
        return error
    flag = {**FLAGS, **flags}.get(name, f"--{name.replace('_', '-')}")
    return ConfigError(f"{flag}{dot}{part}", error.value, error.remedy)
