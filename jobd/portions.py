"""The payloads of a bulk enqueue as JSON texts, taken in portions: there may be any number of them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

from jobd.errors import PayloadError


class Portions:
    """Payloads out of any iterable, also an asynchronous one; encoded and checked as they are taken.

    `encode` raises a PayloadError for a bad payload; here it is told which of them that is.
    """

    def __init__(self, payloads: Iterable[Any] | AsyncIterable[Any], encode: Callable[[Any], str]) -> None:
        self._encode = encode
        self._taken = 0
        self._iterator: Iterator[Any] | None = None
        self._waiting: AsyncIterator[Any] | None = None
        if isinstance(payloads, (str, bytes, Mapping)):
            raise _no_list(payloads)
        if isinstance(payloads, Iterable):
            self._iterator = iter(payloads)
        elif isinstance(payloads, AsyncIterable):
            self._waiting = aiter(payloads)
        else:
            raise _no_list(payloads)

    @property
    def waits(self) -> bool:
        """Whether the next payload has to be awaited."""
        return self._waiting is not None

    async def next(self, jobs: int, characters: int) -> list[str]:
        """At most so many payloads, until they have so many characters; none at the end."""
        if self._waiting is None:
            return self.take(jobs, characters)
        texts: list[str] = []
        async for payload in self._waiting:
            text = self._encoded(payload, len(texts))
            texts.append(text)
            characters -= len(text)
            if len(texts) == jobs or characters <= 0:
                break
        else:
            self._ended()
        self._taken += len(texts)
        return texts

    def take(self, jobs: int, characters: int) -> list[str]:
        """The same without waiting."""
        assert self._iterator is not None
        texts: list[str] = []
        for payload in self._iterator:
            text = self._encoded(payload, len(texts))
            texts.append(text)
            characters -= len(text)
            if len(texts) == jobs or characters <= 0:
                break
        else:
            self._ended()
        self._taken += len(texts)
        return texts

    def _encoded(self, payload: Any, offset: int) -> str:
        try:
            return self._encode(payload)
        except PayloadError as error:
            path = f"$[{self._taken + offset}]{error.path[1:]}"
            raise PayloadError(path, error.problem, error.remedy) from error

    def _ended(self) -> None:
        # Whoever has said once that there is no more is not asked again.
        self._iterator, self._waiting = iter(()), None


def _no_list(payloads: object) -> PayloadError:
    return PayloadError("$", f"is one {type(payloads).__name__}", "give a list of payloads, or use enqueue")
