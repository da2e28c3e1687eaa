"""What PostgreSQL can store of a Python value, and what becomes of the rest.

jsonb takes neither NUL nor lone surrogates nor NaN, and a text column no NUL. One walk applies the
rules to both sides: over a payload it stops at the first fault, over a result it substitutes and goes
on. Messages name paths and types, never values: payloads do not belong in logs.
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from reprlib import Repr
from types import TracebackType
from typing import Any, Final

from jobd.errors import ConfigError, PayloadError

MIN_INT: Final = -(2**63)
MAX_INT: Final = 2**63 - 1
_MAX_REPR: Final = 10_000
_MAX_NOTES: Final = 5
# repr() of a list that holds the same list twice, sixty levels deep, would never end; this one does.
_brief: Final = Repr()


def plain_text(option: str, value: str) -> bytes:
    """The bytes of a text that PostgreSQL takes as it is. Raises ConfigError for any other."""
    if not isinstance(value, str):
        raise ConfigError(option, value, "must be a string")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ConfigError(option, value[:40], "must not contain NUL or half of a surrogate pair")
    return value.encode()


def storable_text(text: str, *, max_chars: int) -> str:
    """`text` as a PostgreSQL text column takes it, of at most `max_chars` characters.

    NUL and lone surrogates are made visible. What is too long loses its middle: an error's beginning
    says what failed, its end says where.
    """
    text = _visible(text)
    if len(text) <= max_chars:
        return text
    mark = f"\n[... {len(text) - max_chars:,}+ characters left out ...]\n"
    room = max_chars - len(mark)
    if room < len(mark):
        return text[: max(max_chars - 1, 0)] + "…"[:max_chars]
    tail = room * 2 // 3
    return text[: room - tail] + mark + text[-tail:]


def told(error: BaseException, frames: TracebackType | None) -> tuple[str, str, str]:
    """Type, message and traceback of an error as text. Never raises, whatever the error's own methods do."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception as failed:
        message = f"<no message: its __str__ raised {type(failed).__name__}>"
    try:
        trace = "".join(traceback.format_exception(kind, error, frames))
    except Exception as failed:
        trace = f"<no traceback: formatting it raised {type(failed).__name__}>"
    return name, message, trace


def encode_error(
    error: BaseException, *, attempt: int, at: datetime, max_chars: int = 8_000
) -> dict[str, Any]:
    """One entry of a job's `errors`: attempt, at, type, message and traceback, all storable.

    Never raises. `max_chars` bounds the traceback; the message gets a quarter of it.
    """
    name, message, trace = told(error, error.__traceback__)
    return {
        "attempt": attempt,
        "at": at.isoformat(),
        "type": storable_text(name, max_chars=200),
        "message": storable_text(message, max_chars=max_chars // 4),
        "traceback": storable_text(trace, max_chars=max_chars),
    }


class Walk:
    """The rules of what jsonb stores, applied to one value: a plain copy, or a fault at a path.

    A fault ends a walk over a payload; a walk over a result notes it and goes on with a substitute.
    """

    def __init__(self, max_depth: int, max_nodes: int, *, repair: bool) -> None:
        self._max_depth = max_depth
        self._max_nodes = max_nodes
        self._nodes = 0
        self._repair = repair
        self._faults = 0
        self._noted: list[str] = []

    @property
    def notes(self) -> list[str]:
        more = self._faults - len(self._noted)
        return [*self._noted, f"and {more:,} more"] if more else self._noted

    def plain(self, value: Any, path: str, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        # The base class's own conversions: an enum member that is a str or an int has other ideas.
        if isinstance(value, str):
            return self._text(str.__str__(value), path)
        if isinstance(value, int):
            return self._integer(int.__int__(value), path)
        if isinstance(value, float):
            return self._float(float.__float__(value), path)
        if isinstance(value, (Mapping, list, tuple)):
            return self._container(value, path, depth)
        return self._object(value, path, depth)

    def _fault(self, path: str, problem: str, remedy: str) -> None:
        path = storable_text(path, max_chars=200)
        if not self._repair:
            raise PayloadError(path, problem, remedy)
        self._faults += 1
        if len(self._noted) < _MAX_NOTES:
            self._noted.append(f"{path}: {problem}")

    def _text(self, text: str, path: str) -> str:
        seen = _visible(text)
        if seen != text:
            at = next(at for at, char in enumerate(text) if char == "\0" or "\ud800" <= char <= "\udfff")
            what = "a NUL character" if text[at] == "\0" else f"a lone surrogate (U+{ord(text[at]):04X})"
            self._fault(
                path,
                f"has {what} at index {at}, which PostgreSQL cannot store",
                "remove it, or send binary data as base64",
            )
        return seen

    def _integer(self, number: int, path: str) -> int | str:
        if MIN_INT <= number <= MAX_INT:
            return number
        self._fault(path, "is an integer beyond 64 bits", "send it as a string")
        # str() refuses more than 4,300 digits; hex() takes any number.
        return str(number) if number.bit_length() <= 10_000 else hex(number)

    def _float(self, number: float, path: str) -> float | str:
        if math.isfinite(number):
            return number
        name = "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
        self._fault(path, f"is {name}, which JSON does not have", "send null, or a string")
        return name

    def _container(
        self, value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], path: str, depth: int
    ) -> Any:
        if depth >= self._max_depth:
            problem = f"is nested deeper than {self._max_depth} levels, or contains itself"
            self._fault(path, problem, "flatten it")
            return _visible(_brief.repr(value))
        room = self._max_nodes - self._nodes
        if len(value) > room:
            problem = f"brings the number of values above {self._max_nodes:,}"
            self._fault(path, problem, "store the data elsewhere and send a reference to it")
        self._nodes += min(len(value), room)
        if not isinstance(value, Mapping):
            items = enumerate(islice(value, room))
            return [self.plain(item, f"{path}[{index}]", depth + 1) for index, item in items]
        made: dict[str, Any] = {}
        for key, item in islice(value.items(), room):
            name = self._name(key, path)
            where = inside(path, name)
            name = self._text(name, where)
            while name in made:  # two keys whose substitutes are the same
                name += "'"
            made[name] = self.plain(item, where, depth + 1)
        return made

    def _name(self, key: object, path: str) -> str:
        if isinstance(key, str):
            return str.__str__(key)
        self._fault(path, f"has a key of type {type(key).__name__}, and JSON's are strings", "use str(key)")
        return _repr(key, str)

    def _object(self, value: object, path: str, depth: int) -> Any:
        kind = type(value).__name__
        if isinstance(value, (bytes, bytearray, memoryview)):
            self._fault(path, f"is {kind}, which JSON does not have", "send it as base64 text")
        # pydantic would read an iterator to its end, which may never come.
        elif isinstance(value, Iterator):
            self._fault(path, f"is an iterator ({kind})", "send list(...) of it")
        else:
            # Imported late: most processes never meet more than plain JSON here.
            from pydantic_core import to_jsonable_python

            try:
                made = to_jsonable_python(value, by_alias=True, inf_nan_mode="constants")
            except Exception as error:
                self._fault(
                    path,
                    f"is an object of type {kind}, which has no JSON form ({type(error).__name__})",
                    "send a dict, list, str, number, dataclass or pydantic model",
                )
            else:
                return self.plain(made, path, depth)
        return _visible(_repr(value))


def _visible(text: str) -> str:
    """`text` itself if PostgreSQL can store it, else a copy with substitutes."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            # Through UTF-16, two surrogates that are a pair become the character they mean.
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\N{SYMBOL FOR NULL}")


def _repr(value: object, write: Callable[[object], str] = repr) -> str:
    try:
        text = write(value)
    except Exception as error:
        return f"<{type(value).__name__}: its __{write.__name__}__ raised {type(error).__name__}>"
    return text if len(text) <= _MAX_REPR else text[:_MAX_REPR] + "…"


def inside(path: str, name: str) -> str:
    return f"{path}.{name}" if name.isascii() and name.isidentifier() else f"{path}[{quoted(name)}]"


def quoted(name: str) -> str:
    return json.dumps(name if len(name) <= 60 else name[:60] + "...")
