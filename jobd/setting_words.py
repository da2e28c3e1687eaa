"""How a setting, its value and what is wrong with it are put into words; a secret never is."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from jobd.duration import format_duration
from jobd.errors import ConfigError
from jobd.redaction import HIDDEN, redact_url
from jobd.setting_fields import QueueSettings, Settings, SmtpSettings, TenantSettings, UseCaseSettings

_QUOTA = '{"t1": {"max_pending_jobs": 100}}'
_EXAMPLES = {
    "queues": '{"images": {"concurrency": 2}}',
    "tenants": '{"t1": {"max_pending": 100}}',
    "use_cases": '{"labels": {"max_running": 2}}',
    "schedules": '[{"id": "nightly", "when": "30 2 * * *", "kind": "report"}]',
    "smtp": '{"host": "localhost"}',
}

MODELS: dict[str, type[BaseModel]] = {
    "smtp": SmtpSettings,
    "queues": QueueSettings,
    "tenants": TenantSettings,
    "use_cases": UseCaseSettings,
}


def remedy_for(detail: ErrorDetails, place: tuple[str, ...], *, quotas: bool) -> str:
    """What to write instead of a value whose type or size is wrong."""
    match detail["type"]:
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size" | "bool_type":
            return "must be a whole number"
        case "string_type":
            return "must be a text"
        case "dict_type" | "model_type" | "model_attributes_type":
            example = _QUOTA if quotas else _EXAMPLES.get(place[0], "{}")
            return f"must be a table, like {example if len(place) == 1 else _inner(example)}"
        case "list_type":
            return f"must be a list of tables, like {_EXAMPLES.get(place[0], '[]')}"
    return detail["msg"].replace("Input should be", "must be").removeprefix("Value error, ")


def _inner(example: str) -> str:
    """The table of one queue, say, in an example of all."""
    return json.dumps(next(iter(json.loads(example).values())))


def not_json(error: SettingsError) -> ConfigError:
    """The complaint about a variable of the environment that has to be JSON."""
    field = next((name for name in _EXAMPLES if f'"{name}"' in str(error)), "queues")
    name = f"JOBD_{field.upper()}"
    rest = "" if field == "schedules" else f", or set {name}__..."
    return ConfigError(name, HIDDEN, f"is not JSON; write it like {_EXAMPLES[field]}{rest}")


def meant(place: tuple[str, ...], *, quotas: bool) -> str:
    """Which setting somebody may have meant who wrote one that does not exist."""
    match place:
        case ("tenants", _, _) if quotas:
            known = ["max_pending_jobs", *list(TenantSettings.model_fields)[1:]]
            place = place[1:]
        case ("smtp", _):
            known = list(SmtpSettings.model_fields)
        case ("queues" | "tenants" | "use_cases", _, _):
            known = list(MODELS[place[0]].model_fields)
        case _:
            known = list(Settings.model_fields)
    close = get_close_matches(place[-1].lower(), known, n=1)
    if close:
        return f"; did you mean {'.'.join([*place[:-1], close[0]])}?"
    return f"; there are {', '.join(known)}"


def dotted(place: tuple[str, ...]) -> str:
    """The name of a setting, like `smtp.port` or `schedules[2].when`."""
    return re.sub(r"^schedules\.([0-9]+)", r"schedules[\1]", ".".join(place))


def quotable(name: str, value: Any) -> Any:
    """The value as a complaint may quote it."""
    if isinstance(value, timedelta) or _secret(name) or isinstance(value, SecretStr):
        return shown(name, value)
    return value


def _secret(name: str) -> bool:
    return name in ("database_url", "smtp", "smtp.password")


def shown(name: str, value: Any) -> str:
    """The value of a setting as `explain` shows it."""
    if value is None:
        return "not set"
    if name == "database_url":
        return redact_url(str(value))
    if _secret(name) or isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, timedelta):
        return format_duration(value)
    if name.startswith("schedules["):
        terms = value.terms
        return f"{terms.id}: {terms.kind} at {terms.expression} ({terms.time_zone})"
    if isinstance(value, bool):
        return "on" if value else "off"
    if name in ("max_payload", "max_result") and isinstance(value, int):
        unit, size = ("MiB", 1_048_576) if value % 1_048_576 == 0 else ("KiB", 1_024)
        return f"{value // size}{unit}" if value % size == 0 else str(value)
    return str(value)
