"""Payloads and results as the JSON text that goes into a jsonb column.

A payload is refused before it reaches the database, with the path of what is wrong: the caller can
still act. A result belongs to a run that has happened, so it is never refused but made storable.
Plain JSON takes a fast path that only asks whether there is any doubt; the rules themselves, and the
paths, are in `storable`.
"""

from __future__ import annotations

import json.encoder
from collections.abc import Callable, Iterable
from typing import Any, Final

from pydantic_core import from_json

from jobd.errors import PayloadError
from jobd.storable import MAX_INT, MIN_INT, Walk, encode_error, inside, quoted, storable_text

__all__ = [
    "MAX_DEPTH",
    "decode_stored",
    "encode_error",
    "encode_payload",
    "encode_result",
    "parse_payload",
    "storable_text",
]

MAX_DEPTH: Final = 64


def _encoder() -> Callable[[Any], str]:
    # Cycles are found by their depth, which spares the fast path a table of every container it enters.
    encoder = json.JSONEncoder(
        allow_nan=False, check_circular=False, ensure_ascii=False, separators=(",", ":")
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    # What `encode` makes anew for each value, which takes more than half of its time.
    quote = json.encoder.encode_basestring
    chunks = make(None, encoder.default, quote, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


_encode = _encoder()


def encode_payload(value: Any, *, max_bytes: int = 262_144, max_depth: int = MAX_DEPTH) -> str:
    """The JSON text of `value`, which jsonb accepts and gives back.

    It comes back the same, but for a float of 1e16 or more: jsonb returns the integer of that value.
    Pydantic models, dataclasses, dates, UUIDs, Decimals, enums and sets are written the way pydantic
    writes them. Raises PayloadError naming the path for NUL, a lone surrogate, NaN and infinity, an
    integer beyond 64 bits, a key that is not a string, bytes, anything else JSON has no form for, and
    what is deeper than `max_depth` or larger than `max_bytes` of UTF-8.
    """
    text = _encode_plain(value, max_depth, max_bytes)
    if text is None:
        walk = Walk(max_depth, _nodes_in(max_bytes), repair=False)
        value = walk.plain(value, "$", 0)
        text = _encode(value)
    size = _size(text)
    if size > max_bytes:
        path = _heaviest(value)
        raise PayloadError(
            path,
            f"{'is' if path == '$' else 'makes the payload'} {size:,} bytes of JSON, "
            f"and max_payload is {max_bytes:,}",
            "store the data elsewhere and send a reference to it, or raise max_payload",
        )
    return text


def parse_payload(text: str | bytes) -> Any:
    """The value of a JSON text from outside, where Python's own reader is too lenient.

    Raises PayloadError for what is not JSON in UTF-8 and for a name given twice in one object. NaN
    and the like pass here and are refused, with their path, by `encode_payload`.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except PayloadError:
        raise
    except RecursionError:
        raise PayloadError("$", "is nested too deeply", f"at most {MAX_DEPTH} levels are stored") from None
    except ValueError as error:
        raise PayloadError("$", f"is not JSON: {error}") from None


def decode_stored(text: str) -> Any:
    """The value of a payload as the database gives it: JSON that it has checked."""
    try:
        return from_json(text)
    except ValueError:  # nested more deeply than this reader goes: enqueued in SQL, most likely
        return json.loads(text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise PayloadError("$", f"has an object with the name {quoted(repeated)} twice", "keep one of them")
    return made


def encode_result(value: Any, *, max_bytes: int = 1_048_576) -> tuple[str, str | None]:
    """The JSON text of what a handler returned, and a note of what had to be changed, or None.

    Never raises. NUL becomes U+2400, a lone surrogate U+FFFD; NaN, infinities and integers beyond 64
    bits become strings, an object without a JSON form its repr. A result larger than `max_bytes` is
    replaced by `{"truncated": true, "bytes": its size, "head": as much of its text as fits}`.
    """
    try:
        text = _encode_plain(value, MAX_DEPTH, max_bytes)
        notes: list[str] = []
        if text is None:
            walk = Walk(MAX_DEPTH, _nodes_in(max_bytes), repair=True)
            text = _encode(walk.plain(value, "$", 0))
            notes = walk.notes
        size = _size(text)
        if size > max_bytes:
            notes.append(f"$: {size:,} bytes of JSON, cut to max_result ({max_bytes:,})")
            text = _truncated(text, size, max_bytes)
        return text, "; ".join(notes) or None
    except Exception as error:
        # A __repr__ or serializer with a mind of its own. The run has happened; record it.
        failed = f"the result could not be encoded: {type(error).__name__}"
        return _encode(f"<{type(value).__name__}>"), failed


def _encode_plain(value: Any, max_depth: int, max_bytes: int) -> str | None:
    """The JSON text of a value made of plain, storable parts, or None where only a walk can tell.

    Nearly every payload ends here, so this is what an enqueue pays.
    """
    if not _is_plain(value, max_depth, _nodes_in(max_bytes)):
        return None
    try:
        text = _encode(value)
        if not text.isascii():
            text.encode()
    except ValueError:  # NaN, infinity, or a lone surrogate
        return None
    # A backslash before "u0000" in the value looks the same; the walk tells them apart.
    return None if "\\u0000" in text else text


def _is_plain(value: Any, max_depth: int, max_nodes: int) -> bool:
    # Level by level and counted, so that a list that contains itself, or the same list twice at each
    # of sixty levels, cannot run away.
    level: list[Iterable[Any]] = [(value,)]
    nodes = 0
    if type(value) is dict:  # The usual payload is a flat one, which this loop settles.
        nested = []
        for key, item in value.items():
            if type(key) is not str:
                return False
            kind = type(item)
            if kind is int:
                if not MIN_INT <= item <= MAX_INT:
                    return False
            elif not (kind is str or item is None or kind is bool or kind is float):
                nested.append(item)
        level = [nested]
        nodes = len(value)
        max_depth -= 1
        if nodes > max_nodes:
            return False
        if not nested and max_depth >= 0:
            return True
    for _ in range(max_depth + 1):
        deeper: list[Iterable[Any]] = []
        for items in level:
            for item in items:
                kind = type(item)
                if kind is str or item is None or kind is bool or kind is float:
                    continue
                if kind is int:
                    if not MIN_INT <= item <= MAX_INT:
                        return False
                elif kind is dict:
                    for key in item:
                        if type(key) is not str:
                            return False
                    deeper.append(item.values())
                    nodes += len(item)
                elif kind is list or kind is tuple:
                    deeper.append(item)
                    nodes += len(item)
                else:
                    return False
            if nodes > max_nodes:
                return False
        if not deeper:
            return True
        level = deeper
    return False


def _nodes_in(max_bytes: int) -> int:
    # Each value takes a byte and a comma: with more of them than this, the text is too long.
    return max_bytes // 2 + 1


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _heaviest(value: Any) -> str:
    """The path to the part that alone is most of an oversized value, or as near as there is one."""
    path = "$"
    while isinstance(value, (dict, list, tuple)) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        key, part = max(parts, key=lambda entry: len(_encode(entry[1])))
        if len(_encode(part)) * 2 < len(_encode(value)):
            break
        path = inside(path, key) if isinstance(key, str) else f"{path}[{key}]"
        value = part
    return path


def _truncated(text: str, size: int, max_bytes: int) -> str:
    room = max_bytes
    while True:
        made = _encode({"truncated": True, "bytes": size, "head": text[:room]})
        over = _size(made) - max_bytes
        if over <= 0 or room <= 0:
            return made
        # Each character left out saves at least one byte, and up to six where it had been escaped.
        room -= max(over // 6, 1) if over < room else room // 2
