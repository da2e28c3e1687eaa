"""A schedule of a settings file, as a table has it: `id`, `when`, `kind`, `payload` and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jobd.errors import ConfigError, HandlerError, PayloadError
from jobd.payload import encode_payload
from jobd.registry import check_name
from jobd.schedule_rows import Terms
from jobd.terms import ScheduleOptions, close_name, terms

OF_A_TABLE = ("id", "when", "kind", "payload")


class Tabled(NamedTuple):
    """A schedule of a settings file, and whether it names its queue: else its handler may."""

    terms: Terms
    queue_said: bool


def from_table(table: Any, *, max_bytes: int) -> Tabled:
    """The schedule that a table of a settings file means: `id`, `when`, `kind`, `payload` and the options.

    One whose date is over is no error, since the file outlives it. Raises ConfigError whose `setting` is the
    key that is wrong, or empty for the table.
    """
    if not isinstance(table, Mapping):
        raise ConfigError("", table, "must be a table with id, when and kind")
    known = [*OF_A_TABLE, *ScheduleOptions.__annotations__]
    for key in table:
        if key not in known:
            close = close_name(str(key), known)
            hint = f"did you mean {close}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(str(key), "***", f"is no key of a schedule; {hint}")
    for key in ("id", "when", "kind"):
        if key not in table:
            raise ConfigError("", "***", f"has no {key}: a schedule needs id, when and kind")
    options = {key: value for key, value in table.items() if key not in OF_A_TABLE}
    for key, name in (("kind", table["kind"]), ("queue", table.get("queue"))):
        if name is not None:
            _named(key, name)
    try:
        payload = encode_payload(table.get("payload", {}), max_bytes=max_bytes)
    except PayloadError as error:
        raise ConfigError("payload", "***", str(error)) from None
    try:
        made = terms(
            table["id"], table["when"], table["kind"],
            owner="file", payload=payload, max_bytes=max_bytes, may_be_over=True, **options,
        )  # fmt: skip
    except PayloadError as error:
        raise ConfigError("meta", "***", str(error)) from None
    except ConfigError as error:
        raise _of_a_key(error, table) from None
    return Tabled(made, "queue" in options)


def _named(key: str, name: Any) -> None:
    try:
        check_name(key, name)
    except HandlerError as error:
        raise ConfigError(key, name, f"is{str(error).partition(' is')[2]}") from None


def _of_a_key(error: ConfigError, table: Mapping[str, Any]) -> ConfigError:
    """The error by the key of the table: what is wrong with a part of the expression is wrong with `when`."""
    part, of, _ = error.setting.partition(" of schedule ")
    if of:
        return ConfigError("when", table["when"], f"{part} {error.value!r} {error.remedy}")
    key = "when" if part == "schedule" else part.partition(".")[0]
    return ConfigError(key, error.value, error.remedy)
