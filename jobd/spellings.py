"""How values of settings are written: for each spelling a type that reads it, and says what would be right.

`setting_fields` says which setting is written how.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo

from jobd.duration import parse_duration
from jobd.errors import ConfigError
from jobd.quota_options import MAX_INT, MAX_WEIGHT, limited_name
from jobd.rate import MAX_COUNT, parse_rate

if TYPE_CHECKING:
    from jobd.schedule_table import Tabled

_QUEUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,99}")
_APP_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SIZE = re.compile(r"([0-9]+)\s*(B|kB|KB|KiB|MB|MiB)?")
_SIZE_UNITS = {None: 1, "B": 1, "kB": 1_000, "KB": 1_000, "KiB": 1_024, "MB": 1_000_000, "MiB": 1_048_576}


class ScheduleWrong(ValueError):
    """A table of `[[schedules]]` cannot work: the wrong key, if it is one, its value and the remedy."""

    def __init__(self, id: object, key: str, value: object, remedy: str) -> None:
        super().__init__(remedy)
        self.id = id
        self.key = key
        self.value = value
        self.remedy = remedy


def duration(minimum: str, maximum: str = "36525d") -> BeforeValidator:
    """Reads durations from `minimum` to `maximum`."""
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


def lower(value: Any) -> Any:
    """A word as it is compared; anything else as it is."""
    return value.strip().lower() if isinstance(value, str) else value


def _limited(name: str) -> str:
    try:
        return limited_name("", name)
    except ConfigError as error:
        raise ValueError(error.remedy) from None


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # which would pass as 0 or 1
        raise ValueError("must be a whole number")
    return value


def _rate(value: Any) -> str:
    try:
        return str(parse_rate(value))
    except ConfigError as error:
        raise ValueError(error.remedy) from None


def _switch(value: Any) -> bool:
    found = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}.get(
        str(value).strip().lower()
    )
    if found is None:
        raise ValueError("must be on or off")
    return found


def _on_or_off(value: Any) -> Any:
    # TOML has no "on": `prepared_statements = true` and JOBD_PREPARED_STATEMENTS=true mean it, too.
    if isinstance(value, bool) or lower(value) in ("true", "false"):
        return "on" if value is True or lower(value) == "true" else "off"
    return lower(value)


DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
AppName = Annotated[str, AfterValidator(_app)]
QueueName = Annotated[str, AfterValidator(_queue)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=1_024, le=64 * 1_048_576)]
Switch = Annotated[bool, BeforeValidator(_switch)]
ScheduleTables = Annotated[list[Annotated[Any, PlainValidator(_schedule)]], AfterValidator(_different)]

ANY_CASE: Final = BeforeValidator(lower)
ON_OR_OFF: Final = BeforeValidator(_on_or_off)
LimitedName = Annotated[str, AfterValidator(_limited)]
NUMBER: Final = BeforeValidator(_number)
MaxRunning = Annotated[int, NUMBER, Field(ge=0, le=MAX_INT)]
Burst = Annotated[int, NUMBER, Field(ge=1, le=MAX_COUNT)]
Weight = Annotated[int, NUMBER, Field(ge=1, le=MAX_WEIGHT)]
Rate = Annotated[str, BeforeValidator(_rate)]
