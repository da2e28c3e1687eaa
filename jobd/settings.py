"""Loads the settings, jobd.toml < JOBD_* environment < keyword overrides, and explains them.

The CLI, the daemon and `Jobs()` come here and hand plain values on; nothing else of jobd reads a
file or the environment. Every complaint is a ConfigError that names the setting as its author wrote
it, shows the value (never a secret) and says what to write instead. The settings themselves are in
`setting_fields`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from jobd.duration import format_duration
from jobd.errors import ConfigError
from jobd.redaction import HIDDEN, redact_url
from jobd.setting_fields import (
    QUOTAS,
    QueueSettings,
    RuleBroken,
    Settings,
    SmtpSettings,
    TenantSettings,
    UseCaseSettings,
    environment_source,
    file_source,
)
from jobd.spellings import ScheduleWrong

__all__ = [
    "QueueSettings",
    "Settings",
    "Shown",
    "SmtpSettings",
    "TenantSettings",
    "UseCaseSettings",
    "explain",
    "find_problems",
    "load_settings",
    "redact_url",
    "unread_environment",
]


class Shown(NamedTuple):
    """One line of `explain`."""

    name: str
    value: str
    source: str


def load_settings(**overrides: Any) -> Settings:
    """The settings that hold here; an override of None counts as not given.

    Raises ConfigError for the first thing wrong; `find_problems` has all of them.
    """
    settings, problems = _Sources.read(overrides).load()
    if settings is None:
        raise problems[0]
    return settings


def find_problems(**overrides: Any) -> list[ConfigError]:
    """Everything `load_settings` would complain about, in the order of the settings."""
    try:
        return _Sources.read(overrides).load()[1]
    except ConfigError as error:
        return [error]


def explain(settings: Settings) -> list[Shown]:
    """Each setting's name, value (secrets hidden) and source: default, jobd.toml, environment or flag."""
    origins = settings._origins
    values = {_dotted(place): value for place, value in _flat(settings)}
    return [Shown(name, _shown(name, value), origins[name]) for name, value in values.items()]


# Those whose names go on with one of their own.
TABLES = ("JOBD_QUEUES", "JOBD_TENANTS", "JOBD_USE_CASES")


def unread_environment() -> list[tuple[str, str]]:
    """JOBD_ variables that look like a misspelt setting, each with the name that may be meant.

    They cannot be errors: Kubernetes sets JOBD_PORT and its like for a service that is called jobd.
    """
    known = [f"JOBD_{name.upper()}" for name in Settings.model_fields]
    known += [f"JOBD_SMTP__{name.upper()}" for name in SmtpSettings.model_fields]
    found = []
    for name in sorted(os.environ):
        upper = name.upper()
        if upper.startswith("JOBD_") and upper not in (*known, "JOBD_CONFIG"):
            table, _, rest = upper.partition("__")
            close = get_close_matches(upper, known, n=1, cutoff=0.8)
            if rest and not close:
                close = [f"{meant}__{rest}" for meant in get_close_matches(table, TABLES, n=1, cutoff=0.8)]
            if close and not (rest and table in TABLES):
                found.append((name, close[0]))
    return found


@dataclass(frozen=True, slots=True)
class _Sources:
    """What each source says, before anything is merged: complaints quote it as it was written."""

    flags: Mapping[str, Any]
    environment: Mapping[str, Any]
    variables: Mapping[str, Any]
    """The environment without QUOTAS."""
    file: Mapping[str, Any]
    file_name: str

    @classmethod
    def read(cls, overrides: Mapping[str, Any]) -> _Sources:
        file = file_source()
        source = environment_source()
        try:
            environment = source()
        except SettingsError as error:
            raise _not_json(error) from None
        return cls(
            flags={name: value for name, value in overrides.items() if value is not None},
            environment=environment,
            variables=source.own,
            file=file.toml_data,
            file_name=os.path.basename(str(file.toml_file_path)),
        )

    def load(self) -> tuple[Settings | None, list[ConfigError]]:
        try:
            settings = Settings(**self.flags)
        except ValidationError as error:
            return None, [self._complaint(detail) for detail in error.errors(include_url=False)]
        for place, _ in _flat(settings):
            settings._origins[_dotted(place)] = self._find(place)[0]
        return settings, []

    def _find(self, place: tuple[str, ...]) -> tuple[str, str, Any]:
        """Which source decides the setting at `place`, the name it has there, and its value there."""
        key = _dotted(place)
        # The only list, in the environment one variable.
        variable = key.replace("schedules", "SCHEDULES", 1) if "[" in key else "__".join(place).upper()
        names = {
            "flag": (self.flags, key),
            "environment": (self.environment, self._variable(variable, place)),
            "jobd.toml": (self.file, f"{key} in {self.file_name}"),
        }
        for source, (values, name) in names.items():
            found, value = _value_at(values, place)
            if found:
                return source, name, value
        return "default", key, _default_at(place)

    def _variable(self, variable: str, place: tuple[str, ...]) -> str:
        """The name of a setting in the environment."""
        if place[0] != "tenants" or _value_at(self.variables, place)[0]:
            return f"JOBD_{variable}"
        said = _dotted(place[1:])
        if place[-1] == "max_pending":
            said = f"{said}_jobs"
        return f"{said} in {QUOTAS}" if said else QUOTAS

    def _complaint(self, detail: ErrorDetails) -> ConfigError:
        place = tuple(str(part) for part in detail["loc"])
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, RuleBroken):
            _, name, value = self._find(tuple(cause.setting.split(".")))
            _, other, other_value = self._find(tuple(cause.other.split(".")))
            remedy = cause.rule.format(other=other, value=_shown(cause.other, other_value))
            return ConfigError(name, _quotable(cause.setting, value), remedy)
        if isinstance(cause, ScheduleWrong):
            _, name, _ = self._find((*place, cause.key) if cause.key else place)
            said = f" (schedule {cause.id!r})" if cause.id is not None and cause.key != "id" else ""
            return ConfigError(name, cause.value, f"{cause.remedy}{said}")
        if place[-1] == "[key]":  # a name of a table, such as [queues."no good"]
            quotas = self._find(place[:-1])[1].endswith(QUOTAS)
            return ConfigError(QUOTAS if quotas else self._find(place[:-2])[1], place[-2], str(cause))
        _, name, value = self._find(place)
        if detail["type"] == "extra_forbidden":
            # The value of an unknown setting may be a misspelt password's.
            quotas = name.endswith(QUOTAS)
            return ConfigError(name, HIDDEN, f"is not a setting{_meant(place, quotas=quotas)}")
        remedy = str(cause) if cause else _remedy(detail, place, quotas=name.endswith(QUOTAS))
        return ConfigError(name, _quotable(".".join(place), value), remedy)


def _remedy(detail: ErrorDetails, place: tuple[str, ...], *, quotas: bool) -> str:
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


def _not_json(error: SettingsError) -> ConfigError:
    field = next((name for name in _EXAMPLES if f'"{name}"' in str(error)), "queues")
    name = f"JOBD_{field.upper()}"
    rest = "" if field == "schedules" else f", or set {name}__..."
    return ConfigError(name, HIDDEN, f"is not JSON; write it like {_EXAMPLES[field]}{rest}")


_QUOTA = '{"t1": {"max_pending_jobs": 100}}'
_EXAMPLES = {
    "queues": '{"images": {"concurrency": 2}}',
    "tenants": '{"t1": {"max_pending": 100}}',
    "use_cases": '{"labels": {"max_running": 2}}',
    "schedules": '[{"id": "nightly", "when": "30 2 * * *", "kind": "report"}]',
    "smtp": '{"host": "localhost"}',
}


def _meant(place: tuple[str, ...], *, quotas: bool) -> str:
    match place:
        case ("tenants", _, _) if quotas:
            known = ["max_pending_jobs", *list(TenantSettings.model_fields)[1:]]
            place = place[1:]
        case ("smtp", _):
            known = list(SmtpSettings.model_fields)
        case ("queues" | "tenants" | "use_cases", _, _):
            known = list(_MODELS[place[0]].model_fields)
        case _:
            known = list(Settings.model_fields)
    close = get_close_matches(place[-1].lower(), known, n=1)
    if close:
        return f"; did you mean {'.'.join([*place[:-1], close[0]])}?"
    return f"; there are {', '.join(known)}"


def _value_at(values: Mapping[str, Any], place: tuple[str, ...]) -> tuple[bool, Any]:
    value: Any = values
    for part in place:
        if isinstance(value, BaseModel):
            value = {name: getattr(value, name) for name in value.model_fields_set}
        if isinstance(value, list):
            value = {str(number): item for number, item in enumerate(value)}
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, value


_MODELS: dict[str, type[BaseModel]] = {
    "smtp": SmtpSettings,
    "queues": QueueSettings,
    "tenants": TenantSettings,
    "use_cases": UseCaseSettings,
}


def _default_at(place: tuple[str, ...]) -> Any:
    model = _MODELS.get(place[0], Settings)
    field = model.model_fields.get(place[-1])
    return field.get_default(call_default_factory=True, validated_data={}) if field else None


def _flat(settings: Settings) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SmtpSettings):
            yield from (((name, part), getattr(value, part)) for part in SmtpSettings.model_fields)
        elif name == "schedules":
            yield from (((name, str(number)), schedule) for number, schedule in enumerate(value))
        elif isinstance(value, dict):
            # What is not said of a queue or a tenant holds as it was set at run time.
            for key, said in value.items():
                shown = [part for part in type(said).model_fields if part in said.model_fields_set]
                if name == "queues" and "concurrency" not in shown:
                    shown.insert(0, "concurrency")
                yield from (((name, key, part), getattr(said, part)) for part in shown)
        else:
            yield (name,), value


def _dotted(place: tuple[str, ...]) -> str:
    """The name of a setting, like `smtp.port` or `schedules[2].when`."""
    return re.sub(r"^schedules\.([0-9]+)", r"schedules[\1]", ".".join(place))


def _quotable(name: str, value: Any) -> Any:
    if isinstance(value, timedelta) or _secret(name) or isinstance(value, SecretStr):
        return _shown(name, value)
    return value


def _secret(name: str) -> bool:
    return name in ("database_url", "smtp", "smtp.password")


def _shown(name: str, value: Any) -> str:
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
