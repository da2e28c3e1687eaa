"""Loads the settings, jobd.toml < JOBD_* environment < keyword overrides, and explains them.

The CLI, the daemon and `Jobs()` come here and hand plain values on; nothing else of jobd reads a
file or the environment. Every complaint is a ConfigError that names the setting as its author wrote
it, shows the value (never a secret) and says what to write instead. The settings themselves are in
`setting_fields`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

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
from jobd.setting_words import MODELS, dotted, meant, not_json, quotable, remedy_for, shown
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
    values = {dotted(place): value for place, value in _flat(settings)}
    return [Shown(name, shown(name, value), origins[name]) for name, value in values.items()]


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
            raise not_json(error) from None
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
            settings._origins[dotted(place)] = self._find(place)[0]
        return settings, []

    def _find(self, place: tuple[str, ...]) -> tuple[str, str, Any]:
        """Which source decides the setting at `place`, the name it has there, and its value there."""
        key = dotted(place)
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
        said = dotted(place[1:])
        if place[-1] == "max_pending":
            said = f"{said}_jobs"
        return f"{said} in {QUOTAS}" if said else QUOTAS

    def _complaint(self, detail: ErrorDetails) -> ConfigError:
        place = tuple(str(part) for part in detail["loc"])
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, RuleBroken):
            _, name, value = self._find(tuple(cause.setting.split(".")))
            _, other, other_value = self._find(tuple(cause.other.split(".")))
            remedy = cause.rule.format(other=other, value=shown(cause.other, other_value))
            return ConfigError(name, quotable(cause.setting, value), remedy)
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
            return ConfigError(name, HIDDEN, f"is not a setting{meant(place, quotas=quotas)}")
        remedy = str(cause) if cause else remedy_for(detail, place, quotas=name.endswith(QUOTAS))
        return ConfigError(name, quotable(".".join(place), value), remedy)


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


def _default_at(place: tuple[str, ...]) -> Any:
    model = MODELS.get(place[0], Settings)
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
                told = [part for part in type(said).model_fields if part in said.model_fields_set]
                if name == "queues" and "concurrency" not in told:
                    told.insert(0, "concurrency")
                yield from (((name, key, part), getattr(said, part)) for part in told)
        else:
            yield (name,), value
