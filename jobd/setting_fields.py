"""Every setting: its name, default and bounds, and the rules between two of them.

Only `settings` reads this: it loads the values and words the complaints. How a value is written is in
`spellings`. What each setting means stands in jobd.toml.example, which a test keeps equal to this file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from jobd.duration import format_duration, parse_duration
from jobd.errors import ConfigError
from jobd.spellings import (
    ANY_CASE,
    ON_OR_OFF,
    AppName,
    Burst,
    DatabaseUrl,
    LimitedName,
    MaxRunning,
    QueueName,
    Rate,
    ScheduleTables,
    Size,
    Switch,
    Weight,
    duration,
    lower,
)

CONFIG_FILE = "jobd.toml"
# How the service that jobd takes over from was told its quotas.
QUOTAS = "ASYNC_JOBS_PER_TENANT_QUOTAS"


class RuleBroken(ValueError):
    """A value that is wrong only beside another one.

    In the rule, `{other}` and `{value}` stand for the other setting, under the name by which it was
    given, and for its value.
    """

    def __init__(self, setting: str, other: str, rule: str) -> None:
        super().__init__(rule)
        self.setting = setting
        self.other = other
        self.rule = rule


def _third(lease: timedelta) -> timedelta:
    return timedelta(milliseconds=lease // timedelta(milliseconds=3))


_STRICT = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class QueueSettings(BaseModel):
    """One queue of `[queues.NAME]`: a daemon serves it, with this many of its jobs at once at most.

    `keep` says which of its finished jobs stay in the history, `delay_tolerance` how late those of its jobs
    may start that say nothing. The others are limits over all daemons.
    """

    model_config = _STRICT

    concurrency: int | None = Field(None, ge=1)
    max_running: MaxRunning | None = None
    rate: Rate | None = None
    burst: Burst | None = None
    fair: Switch | None = None
    weight: Weight | None = None
    keep: Annotated[Literal["all", "errors", "nothing"], ANY_CASE] = "all"
    delay_tolerance: Annotated[timedelta | None, duration("0s")] = None


class TenantSettings(BaseModel):
    """One tenant of `[tenants.ID]`: its limits over all queues and daemons."""

    model_config = _STRICT

    max_pending: MaxRunning | None = None
    on_full: Annotated[Literal["refuse", "shed", "delay"], ANY_CASE] | None = None
    exact: Switch | None = None
    max_running: MaxRunning | None = None
    rate: Rate | None = None
    burst: Burst | None = None
    weight: Weight | None = None


class UseCaseSettings(BaseModel):
    """One use case of `[use_cases.NAME]`: its limit over all queues and daemons."""

    model_config = _STRICT

    max_running: MaxRunning | None = None


class SmtpSettings(BaseModel):
    """The mail server of the built-in kind `email`, which is there once `host` is set."""

    model_config = _STRICT

    host: str | None = None
    port: int = Field(587, ge=1, le=65_535)
    username: str | None = None
    password: SecretStr | None = None
    tls: Annotated[Literal["starttls", "tls", "none"], ANY_CASE] = "starttls"
    sender: str | None = None
    timeout: Annotated[timedelta, duration("100ms", "1h")] = timedelta(seconds=30)
    ca_file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _port_follows_tls(cls, given: Any) -> Any:
        if isinstance(given, dict) and "port" not in given and lower(given.get("tls")) == "tls":
            return given | {"port": 465}
        return given

    @model_validator(mode="after")
    def _whole(self) -> SmtpSettings:
        if self.password is not None and self.username is None:
            raise RuleBroken("smtp.password", "smtp.username", "needs {other}; set both or neither")
        if self.username is not None and self.password is None:
            raise RuleBroken("smtp.username", "smtp.password", "needs {other}; set both or neither")
        if self.password is not None and self.tls == "none" and self.host not in _LOOPBACK:
            rule = "would send {other} in the clear; use starttls or tls, or a server on localhost"
            raise RuleBroken("smtp.tls", "smtp.password", rule)
        return self


_LOOPBACK = ("localhost", "127.0.0.1", "::1", None)


class Settings(BaseSettings):
    """Every setting with its default. Made by `load_settings`; frozen."""

    model_config = SettingsConfigDict(
        env_prefix="JOBD_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )
    # Where each value that is no default came from, for `explain`.
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    database_url: DatabaseUrl | None = None
    app: AppName | None = None
    concurrency: int = Field(100, ge=1, le=100_000)
    processes: int = Field(1, ge=1, le=256)
    lease: Annotated[timedelta, duration("500ms", "1d")] = timedelta(seconds=30)
    heartbeat: Annotated[timedelta, duration("50ms", "8h")] = timedelta(seconds=10)
    crash_limit: int = Field(3, ge=0, le=1_000)
    poll_interval: Annotated[timedelta, duration("10ms", "1h")] = timedelta(seconds=1)
    notify: Switch = True
    shutdown_grace: Annotated[timedelta, duration("0s", "1d")] = timedelta(seconds=30)
    default_timeout: Annotated[timedelta, duration("1ms")] = timedelta(minutes=15)
    default_max_attempts: int = Field(10, ge=1, le=30_000)
    call_timeout: Annotated[timedelta, duration("100ms", "1h")] = timedelta(seconds=5)
    pool_size: int = Field(10, le=10_000)
    prepared_statements: Annotated[Literal["auto", "on", "off"], ON_OR_OFF] = "auto"
    migrate: Annotated[Literal["auto", "check", "off"], ANY_CASE] = "auto"
    max_payload: Size = 256 * 1_024
    max_result: Size = 1_048_576
    history_retention: Annotated[timedelta, duration("1d")] = timedelta(days=14)
    schedule_history: Annotated[timedelta, duration("1d")] = timedelta(days=90)
    http_host: str = Field("127.0.0.1", min_length=1)
    http_port: int = Field(8642, ge=0, le=65_535)
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], ANY_CASE] = "info"
    queues: dict[QueueName, QueueSettings] = Field(default_factory=dict)
    schedules: ScheduleTables = Field(default_factory=list)
    tenants: dict[LimitedName, TenantSettings] = Field(default_factory=dict)
    use_cases: dict[LimitedName, UseCaseSettings] = Field(default_factory=dict)
    smtp: SmtpSettings = Field(default_factory=SmtpSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, environment_source(), file_source()

    @model_validator(mode="before")
    @classmethod
    def _beat_follows_lease(cls, given: Any) -> Any:
        # Who only shortens the lease means the beats, too; who sets both is held to what they say.
        if isinstance(given, dict) and "lease" in given and "heartbeat" not in given:
            try:
                third = _third(parse_duration(given["lease"]))
            except ConfigError:
                return given
            return given | {"heartbeat": min(third, timedelta(seconds=10))}
        return given

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        if self.lease < 3 * self.heartbeat:
            rule = (
                "must be at least three beats ({other} is {value}); "
                f"raise it to {format_duration(3 * self.heartbeat)} "
                f"or lower the beat to {format_duration(_third(self.lease))}"
            )
            raise RuleBroken("lease", "heartbeat", rule)
        # One for a handler's transaction() and one for what the handler calls inside it: with a single
        # connection a handler would wait for itself. Control connections are never counted here.
        if self.pool_size < 2:
            rule = (
                "must be at least 2: connections of handlers and the client, above the control "
                "connections, shared by the jobs that {other} = {value} lets run; raise pool_size"
            )
            raise RuleBroken("pool_size", "concurrency", rule)
        for group in ("queues", "tenants"):
            for name, said in getattr(self, group).items():
                if said.burst is not None and said.rate is None:
                    place = f"{group}.{name}"
                    raise RuleBroken(f"{place}.burst", f"{place}.rate", "belongs to a rate; set {other}, too")
        return self


def file_source() -> TomlConfigSettingsSource:
    """The settings file as a source: JOBD_CONFIG, or jobd.toml in the current folder if it is there."""
    named = os.environ.get("JOBD_CONFIG")
    path = Path(named or CONFIG_FILE)
    if named and not path.is_file():
        raise ConfigError("JOBD_CONFIG", named, "there is no such file; create it or unset JOBD_CONFIG")
    try:
        return TomlConfigSettingsSource(Settings, toml_file=path)
    except OSError as error:
        raise ConfigError(CONFIG_FILE, str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # tomllib's own error, and text that is not UTF-8
        raise ConfigError(CONFIG_FILE, str(path), f"is not TOML: {error}") from None


class Environment(EnvSettingsSource):
    """The JOBD_ variables, `own`, and the quotas of tenants as the variable QUOTAS has them."""

    own: Mapping[str, Any] = MappingProxyType({})

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        given = found.get("tenants", {})
        if isinstance(given, dict):
            given = {id: _renamed(limits) for id, limits in given.items()}
            merged = {id: _renamed(limits) for id, limits in _quotas().items()}
            for id, limits in given.items():
                both = isinstance(limits, dict) and isinstance(merged.get(id), dict)
                merged[id] = merged[id] | limits if both else limits
            self.own = found | {"tenants": given} if given else dict(found)
            if merged:
                found["tenants"] = merged
        else:
            self.own = found
        return found


def _renamed(limits: Any) -> Any:
    if not isinstance(limits, dict):
        return limits
    return {"max_pending" if name == "max_pending_jobs" else name: value for name, value in limits.items()}


def _quotas() -> dict[str, Any]:
    text = os.environ.get(QUOTAS, "").strip()
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        remedy = 'is no JSON object; write it like {"tenant1": {"max_pending_jobs": 100}}'
        raise ConfigError(QUOTAS, text[:120], remedy)
    return found


def environment_source() -> Environment:
    """The settings of the environment as a source."""
    return Environment(Settings)
