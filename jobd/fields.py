"""One parameter of a handler: from a JSON value to what its annotation asks for.

Values whose type already is the annotation (`int`, `str`, `dict`, ...) pass untouched; the rest goes
through pydantic, which is imported at the first value that needs it. What does not fit becomes a
`Misfit`: where, and in words. Values never appear in these words, since they end in logs and in
error columns: they say "got a string of 12 characters".
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Path = tuple[str | int, ...]
Problem = tuple[Path, str]

_SCALARS: frozenset[Any] = frozenset({int, str, float, bool, types.NoneType})
_WORDS = {
    int: "an integer",
    str: "a string",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    types.NoneType: "null",
}
_FREE = (Any, object, inspect.Parameter.empty)


class Misfit(Exception):
    """A value does not fit; one problem for each place in it that is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = problems
        super().__init__(text_of(problems))


class Unusable(Exception):
    """No JSON value can become what the annotation says: a connection, say, or an unfinished model."""


class Field:
    """Turns JSON values into what one annotation asks for, or says why they do not fit.

    `exact` holds the types that need no work: who is in a hurry asks `type(value) in field.exact`
    before calling `convert`.
    """

    __slots__ = ("_free", "_validator", "annotation", "exact")

    def __init__(self, annotation: Any) -> None:
        """Raises Unusable at once where pydantic has to be asked whether the annotation can work."""
        self.annotation = annotation
        self.exact = _exact_types(annotation)
        self._free = any(annotation is free for free in _FREE)
        self._validator: Any = None  # a pydantic SchemaValidator, once one is needed
        if not self._free and not (self.exact and all(_is_simple(member) for member in _members(annotation))):
            self._validator = _validator(annotation)

    def convert(self, value: Any) -> Any:
        """Raises Misfit. JSON's rules count: a datetime may come as text even into a strict model."""
        if self._free or type(value) in self.exact:
            return value
        validator = self._validator
        if validator is None:
            validator = self._validator = _validator(self.annotation)
        # pydantic's ValidationError is a ValueError; an import of it here would double the time of a call.
        try:
            return validator.validate_python(value)
        except ValueError as refusal:
            first = refusal
        text = _json(value)
        if text is None:
            raise Misfit(_problems(first, value)) from None
        try:
            return validator.validate_json(text)
        except ValueError as refusal:
            raise Misfit(_problems(refusal, json.loads(text))) from None

    def __str__(self) -> str:
        """What is expected, in the words of JSON where it has them."""
        word = _WORDS.get(self.annotation) if isinstance(self.annotation, type) else None
        return word or name_of(self.annotation)


def core_of(annotation: Any) -> Any:
    """What remains of an annotation without Annotated, `| None`, NewType and type aliases."""
    while True:
        if hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        else:
            members = [member for member in _members(annotation) if member is not types.NoneType]
            if len(members) != 1 or members[0] is annotation:
                return annotation
            annotation = members[0]


def takes_object(annotation: Any) -> bool:
    """Whether it names a whole JSON object: a model, dataclass, TypedDict, dict, or a union of such."""
    core = core_of(annotation)
    members = [core_of(member) for member in _members(core) if member is not types.NoneType]
    if len(members) > 1:
        return all(takes_object(member) for member in members)
    origin = typing.get_origin(core) or core
    if not isinstance(origin, type):
        return False
    return issubclass(origin, dict) or origin in (Mapping, MutableMapping) or has_fields(origin)


def has_fields(annotation: Any) -> bool:
    """Whether it is a pydantic model, a dataclass or a TypedDict."""
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and (
        hasattr(origin, "__pydantic_validator__")
        or dataclasses.is_dataclass(origin)
        or typing.is_typeddict(origin)
        or hasattr(origin, "__required_keys__")  # typing_extensions.TypedDict
    )


def keys_of(annotation: Any) -> frozenset[str] | None:
    """The keys of the object that it names, as it is stored; None where there may be any."""
    core = core_of(annotation)
    members = [core_of(member) for member in _members(core) if member is not types.NoneType]
    if len(members) > 1:
        found = [keys_of(member) for member in members]
        return None if None in found else frozenset().union(*(keys for keys in found if keys is not None))
    origin = typing.get_origin(core) or core
    if not has_fields(origin):
        return None
    if hasattr(origin, "model_fields"):
        if origin.model_config.get("extra") == "allow":
            return None
        return frozenset(
            said.serialization_alias or said.alias or name for name, said in origin.model_fields.items()
        )
    if dataclasses.is_dataclass(origin):
        return frozenset(field.name for field in dataclasses.fields(origin))
    return frozenset(typing.get_type_hints(origin))


def name_of(annotation: Any) -> str:
    """An annotation as its author wrote it, short."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__name__
    return inspect.formatannotation(annotation)[:100]


def describe(value: Any) -> str:
    """What came, without what it says."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return f"a string of {_count(len(value), 'character')}"
        case dict():
            return f"an object of {_count(len(value), 'key')}"
        case list() | tuple():
            return f"an array of {_count(len(value), 'item')}"
        case int():
            return "an integer"
        case float():
            return "a number"
    return f"a value of type {type(value).__name__}"


def path_text(path: Iterable[str | int]) -> str:
    """`$.items[3].name`; a key that is no plain word is quoted, a long one cut."""
    text = "$"
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and len(part) <= 60:
            text += f".{part}"
        else:
            text += f"[{json.dumps(part if len(part) <= 60 else part[:59] + '…')}]"
    return text


def text_of(problems: Sequence[Problem], *, limit: int = 4) -> str:
    """The first problem's words, then the others with their paths; the first path is left to the caller."""
    others = [f"{path_text(path)}: {words}" for path, words in problems[1:limit]]
    if len(problems) > limit:
        others.append(f"and {len(problems) - limit} more")
    return "; ".join([problems[0][1], *others])


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _exact_types(annotation: Any) -> frozenset[Any]:
    members = _members(annotation)
    if len(members) > 1:
        # Only scalars: for `dict | Model` pydantic's choice depends on what is in the dict.
        return frozenset(member for member in members if isinstance(member, type) and member in _SCALARS)
    if annotation is None:
        return frozenset({types.NoneType})
    if isinstance(annotation, type) and (annotation in _SCALARS or annotation in (dict, list)):
        return frozenset({annotation})
    if typing.get_origin(annotation) in (dict, Mapping, MutableMapping):
        return frozenset({dict}) if typing.get_args(annotation) == (str, Any) else frozenset()
    return frozenset({list}) if annotation == list[Any] else frozenset()


def _is_simple(annotation: Any) -> bool:
    return bool(_exact_types(annotation))


def _validator(annotation: Any) -> Any:
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticUndefinedAnnotation

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_modern(annotation))
        adapter.rebuild(raise_errors=True)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError, NameError) as error:
        raise Unusable(str(error).splitlines()[0]) from error
    return adapter.validator


def _modern(annotation: Any) -> Any:
    """pydantic refuses `typing.TypedDict` before Python 3.12; its twin from typing_extensions will do."""
    if sys.version_info >= (3, 12) or not typing.is_typeddict(annotation):
        return annotation
    from typing_extensions import TypedDict

    hints = typing.get_type_hints(annotation, include_extras=True)
    for name in annotation.__optional_keys__:
        if typing.get_origin(hints[name]) is not typing.NotRequired:
            hints[name] = typing.NotRequired[hints[name]]
    return TypedDict(annotation.__name__, hints)  # type: ignore[operator]


def _json(value: Any) -> bytes | None:
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return to_json(value)
    except (PydanticSerializationError, ValueError):
        return None


def _problems(refusal: ValueError, value: Any) -> list[Problem]:
    """What pydantic found, one line a place: the members of a union all complain about the same value."""
    from pydantic_core import ValidationError

    if not isinstance(refusal, ValidationError):
        raise refusal
    found: dict[Path, list[str]] = {}
    got: dict[Path, str] = {}
    for error in refusal.errors(include_url=False, include_context=False):
        path = _locate(error["loc"], value, missing=error["type"] == "missing")
        words = found.setdefault(path, [])
        if error["type"] == "missing":
            wanted = "missing"
        elif error["type"] == "extra_forbidden":
            wanted = "unexpected key"
        else:
            wanted = _scrubbed(error["msg"], error["input"])
            got[path] = describe(error["input"])
        if wanted not in words:
            words.append(wanted)
    return [
        (path, " or ".join(words[:4]) + (f", got {got[path]}" if path in got else ""))
        for path, words in found.items()
    ]


def _locate(location: Sequence[str | int], value: Any, *, missing: bool) -> Path:
    """pydantic's location without the names of union members and validators that it mixes in."""
    path: list[str | int] = []
    for depth, part in enumerate(location):
        in_object = isinstance(value, dict) and part in value
        in_array = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_object or in_array:
            value = value[part]
        elif not (missing and depth == len(location) - 1):
            continue
        path.append(part)
    return tuple(path)


def _scrubbed(message: str, value: Any) -> str:
    """pydantic's words without the value: an unknown tag, or what a validator of the user's quoted."""
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if message.startswith("Input should "):
        message = message.removeprefix("Input ")
    else:
        values = value.values() if isinstance(value, dict) else [value]
        quoted = {str(part) for part in values if isinstance(part, str | int | float)}
        for text in sorted(quoted, key=len, reverse=True):
            if len(text) >= 4:
                message = message.replace(text, "…")
    return message if len(message) <= 200 else message[:199] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
