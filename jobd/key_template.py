"""A concurrency key that a handler gives its jobs: `user:{user_id}`, filled from each job's payload.

    {user_id}, {order.user_id}    a value of the payload, also deeper in it
    {payload.tenant_id}           the same, where the name is one of the two below
    {tenant_id}, {queue}          the job's own; no tenant is an empty text

It is read when the handler is declared, checked against the handler's signature, and filled at every
enqueue: a job that would get no key is refused, for it would run without the limit.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from jobd.errors import HandlerError, PayloadError
from jobd.fields import describe, path_text
from jobd.payload import decode_stored, encode_payload

OWN = ("tenant_id", "queue")
MAX_CHARACTERS = 500


class KeyTemplate:
    """One template. Made of its text; raises HandlerError, naming the kind, for what cannot be read."""

    def __init__(self, kind: str, text: Any) -> None:
        self.text = text
        self._kind = kind
        # Texts between fields, each with the path of the field behind it, or None at the end.
        self._parts: list[tuple[str, tuple[str, ...] | None]] = []
        if not isinstance(text, str) or not text:
            raise self._wrong("must be a text, like 'user:{user_id}'")
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self._wrong("must not contain NUL or half of a surrogate pair")
        if len(text) > MAX_CHARACTERS:
            raise self._wrong(f"must be at most {MAX_CHARACTERS} characters long")
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise self._wrong(f"cannot be read: {error}; a brace itself is written {{{{ or }}}}") from None
        for before, field, spec, conversion in pieces:
            if field is None:
                self._parts.append((before, None))
                continue
            if spec or conversion:
                raise self._wrong(f"formats {{{field}}}; a field is a name alone")
            path = tuple(field.split("."))
            if not all(part.isidentifier() for part in path) or path == ("payload",):
                raise self._wrong(
                    f"has a field {{{field}}}; a field is a name, like {{user_id}} or {{order.user_id}}"
                )
            self._parts.append((before, path))

    def __str__(self) -> str:
        return str(self.text)

    @property
    def keys(self) -> Collection[str]:
        """The keys of the payload that it needs."""
        return [path[0] for _, said in self._parts if (path := _of_payload(said))]

    def check(self, known: Collection[str]) -> None:
        """Raise HandlerError for a field that is none of these keys of a payload."""
        for key in self.keys:
            if key not in known:
                close = get_close_matches(key, [*known, *OWN], n=1)
                there = ", ".join([*sorted(known), *OWN])
                hint = f"did you mean {{{close[0]}}}?" if close else f"there are {there}"
                raise self._wrong(f"has a field {{{key}}} that the handler does not take; {hint}")

    def rendered(self, payload: Any, queue: str, tenant_id: str | None) -> str:
        """The key of a job. Raises PayloadError where the payload lacks a field."""
        pieces: list[str] = []
        for before, said in self._parts:
            pieces.append(before)
            if said is None:
                continue
            if path := _of_payload(said):
                pieces.append(self._value(payload, path))
            else:
                pieces.append(queue if said == ("queue",) else tenant_id or "")
        key = "".join(pieces)
        if not 0 < len(key) <= MAX_CHARACTERS:
            raise PayloadError(
                "$",
                f"makes a concurrency key of {len(key):,} characters of {self.text!r}",
                f"use at most {MAX_CHARACTERS}, or give concurrency_key with the enqueue",
            )
        return key

    def _value(self, payload: Any, path: tuple[str, ...]) -> str:
        value = payload
        for depth, part in enumerate(path):
            if not isinstance(value, Mapping):
                # A model or a dataclass inside of the payload, as it will be stored.
                value = decode_stored(encode_payload(value, max_bytes=2**30))
            if not isinstance(value, Mapping) or part not in value:
                raise self._lacking(path[: depth + 1], "is missing")
            value = value[part]
        kind = type(value)
        if kind is str:
            return str(value)
        if kind is not int and value is not None:
            # As it will be stored: true and false, ISO 8601, the value of an enum.
            text = encode_payload(value, max_bytes=2**30)
            value = decode_stored(text)
            if isinstance(value, str):
                return value
            if not isinstance(value, dict | list):
                return text
        if value is None or isinstance(value, dict | list):
            raise self._lacking(path, f"is {describe(value)}")
        return str(value)

    def _lacking(self, path: tuple[str, ...], what: str) -> PayloadError:
        remedy = (
            f"concurrency_key = {self.text!r} of handler {self._kind!r} needs a text, a number or a boolean "
            "there; or give concurrency_key with the enqueue"
        )
        return PayloadError(path_text(path), what, remedy)

    def _wrong(self, remedy: str) -> HandlerError:
        shown = self.text[:120] if isinstance(self.text, str) else self.text
        return HandlerError(f"handler {self._kind!r}: concurrency_key = {shown!r} {remedy}")


def _of_payload(path: tuple[str, ...] | None) -> tuple[str, ...]:
    """The path within the payload, empty for what is the job's own."""
    if path is None or (len(path) == 1 and path[0] in OWN):
        return ()
    return path[1:] if path[0] == "payload" else path
