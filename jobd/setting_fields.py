"""Every setting: its name, default, spelling and bounds, and the rules between two of them.

Only `settings` reads this: it loads the values and words the complaints. What each setting means
stands in jobd.toml.example, which a test keeps equal to this file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
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

if TYPE_CHECKING:
    from jobd.schedule_table import Tabled

CONFIG_FILE = "jobd.toml"
_QUEUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,99}")
_APP_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SIZE = re.compile(r"([0-9]+)\s*(B|kB|KB|KiB|MB|MiB)?")
_SIZE_UNITS = {None: 1, "B": 1, "kB": 1_000, "KB": 1_000, "KiB": 1_024, "MB": 1_000_000, "MiB": 1_048_576}


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


class ScheduleWrong(ValueError):
    """A table of `[[schedules]]` cannot work: the wrong key, if it is one, its value and the remedy."""

    def __init__(self, id: object, key: str, value: object, remedy: str) -> None:
        super().__init__(remedy)
        self.id = id
        self.key = key
        self.value = value
        self.remedy = remedy


def _duration(minimum: str, maximum: str = "36525d") -> BeforeValidator:
    shortest, longest = parse_duration(minimum), parse_duration(maximum)

    def read(value: Any) -> timedelta:
        try:
            duration = parse_duration(value)
        except ConfigError as error:
            raise ValueError(error.remedy) from None
        if not shortest <= duration <= longest:
            raise ValueError(f"must be from {minimum} to {maximum}")
        return duration

    return BeforeValidator(read)


def _size(value: Any) -> int:
    written = _SIZE.fullmatch(str(value).strip())
    if isinstance(value, bool) or written is None:
        raise ValueError('is not a size; write it like "256KiB", "1MiB" or a number of bytes')
    return int(written[1]) * _SIZE_UNITS[written[2]]


def _database_url(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        return url
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        raise ValueError(f'names a driver; leave "+{scheme.partition("+")[2]}" out: postgresql://...')
    raise ValueError("is not the URL of a PostgreSQL; write it like postgresql://user@host:5432/name")


def _app(name: str) -> str:
    if _APP_NAME.fullmatch(name) is None:
        raise ValueError('must be "module:attribute", such as "shop.jobs:jobs"')
    return name


def _queue(name: str) -> str:
    if _QUEUE_NAME.fullmatch(name) is None:
        raise ValueError(
            "is not a queue's name: a letter or _ first, then up to 99 letters, digits and any of _ . : -"
        )
    return name


def _schedule(table: Any, info: ValidationInfo) -> Tabled:
    # Only here: without schedules nobody pays for what reads expressions and zones.
    from jobd.schedule_table import from_table

    try:
        return from_table(table, max_bytes=info.data.get("max_payload", 256 * 1_024))
    except ConfigError as error:
        id = table.get("id") if isinstance(table, dict) else None
        raise ScheduleWrong(id, error.setting, error.value, error.remedy) from None


def _different(schedules: Sequence[Tabled]) -> Sequence[Tabled]:
    seen: set[str] = set()
    for schedule in schedules:
        id = schedule.terms.id
        if id in seen:
            raise ScheduleWrong(None, "", id, "is the id of two schedules; give each its own")
        seen.add(id)
    return schedules


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _switch(value: Any) -> bool:
    found = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}.get(
        str(value).strip().lower()
    )
    if found is None:
        raise ValueError("must be on or off")
    return found


def _word(value: Any) -> Any:
    # TOML has no "on": `prepared_statements = true` and JOBD_PREPARED_STATEMENTS=true mean it, too.
    if isinstance(value, bool) or _lower(value) in ("true", "false"):
        return "on" if value is True or _lower(value) == "true" else "off"
    return _lower(value)


def _third(lease: timedelta) -> timedelta:
    return timedelta(milliseconds=lease // timedelta(milliseconds=3))


Size = Annotated[int, BeforeValidator(_size), Field(ge=1_024, le=64 * 1_048_576)]
_STRICT = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class QueueSettings(BaseModel):
    """One queue of `[queues.NAME]`: a daemon serves it, with this many of its jobs at once at most.

    `keep` says which of its finished jobs stay in the history, `delay_tolerance` how late those of its jobs
    may start that say nothing.
    """

    model_config = _STRICT

    concurrency: int | None = Field(None, ge=1)
    keep: Annotated[Literal["all", "errors", "nothing"], BeforeValidator(_lower)] = "all"
    delay_tolerance: Annotated[timedelta | None, _duration("0s")] = None


class SmtpSettings(BaseModel):
    """The mail server of the built-in kind `email`, which is there once `host` is set."""

    model_config = _STRICT

    host: str | None = None
    port: int = Field(587, ge=1, le=65_535)
    username: str | None = None
    password: SecretStr | None = None
    tls: Annotated[Literal["starttls", "tls", "none"], BeforeValidator(_lower)] = "starttls"
    sender: str | None = None
    timeout: Annotated[timedelta, _duration("100ms", "1h")] = timedelta(seconds=30)
    ca_file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _port_follows_tls(cls, given: Any) -> Any:
        if isinstance(given, dict) and "port" not in given and _lower(given.get("tls")) == "tls":
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

    database_url: Annotated[str, AfterValidator(_database_url)] | None = None
    app: Annotated[str, AfterValidator(_app)] | None = None
    concurrency: int = Field(100, ge=1, le=100_000)
    processes: int = Field(1, ge=1, le=256)
    lease: Annotated[timedelta, _duration("500ms", "1d")] = timedelta(seconds=30)
    heartbeat: Annotated[timedelta, _duration("50ms", "8h")] = timedelta(seconds=10)
    crash_limit: int = Field(3, ge=0, le=1_000)
    poll_interval: Annotated[timedelta, _duration("10ms", "1h")] = timedelta(seconds=1)
    notify: Annotated[bool, BeforeValidator(_switch)] = True
    shutdown_grace: Annotated[timedelta, _duration("0s", "1d")] = timedelta(seconds=30)
    default_timeout: Annotated[timedelta, _duration("1ms")] = timedelta(minutes=15)
    default_max_attempts: int = Field(10, ge=1, le=30_000)
    call_timeout: Annotated[timedelta, _duration("100ms", "1h")] = timedelta(seconds=5)
    pool_size: int = Field(10, le=10_000)
    prepared_statements: Annotated[Literal["auto", "on", "off"], BeforeValidator(_word)] = "auto"
    migrate: Annotated[Literal["auto", "check", "off"], BeforeValidator(_lower)] = "auto"
    max_payload: Size = 256 * 1_024
    max_result: Size = 1_048_576
    history_retention: Annotated[timedelta, _duration("1d")] = timedelta(days=14)
    schedule_history: Annotated[timedelta, _duration("1d")] = timedelta(days=90)
    http_host: str = Field("127.0.0.1", min_length=1)
    http_port: int = Field(8642, ge=0, le=65_535)
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)
    ] = "info"
    queues: dict[Annotated[str, AfterValidator(_queue)], QueueSettings] = Field(default_factory=dict)
    schedules: Annotated[list[Annotated[Any, PlainValidator(_schedule)]], AfterValidator(_different)] = Field(
        default_factory=list
    )
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
        return init_settings, env_settings, file_source()

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


def environment_source() -> EnvSettingsSource:
    """The settings of the environment as a source."""
    return EnvSettingsSource(Settings)
