"""Ids of jobs: UUIDv7, made by the client, and a compact sequence of many of them.

Ids are made before the INSERT, so that an enqueue whose answer was lost can be repeated with the
same id. Within a process they strictly increase, which is what first in, first out rests on; across
clocks nothing is promised. The SQL twin, `jobd.uuid7()`, is in the migration.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Final, overload
from uuid import UUID, SafeUUID

_WIDTH: Final = 16
_POOL: Final = 4_096
_VERSION_AND_VARIANT: Final = 0x7000_8000_0000_0000_0000
_LOW: Final = 0x3FFF_FFFF_FFFF_FFFF

# UUID(int=...) spends twice as long on checking its arguments as on the rest; a bulk enqueue makes one
# per job. Its two slots are what pickle and copy rely on, too.
_set_int = UUID.__dict__["int"].__set__
_set_is_safe = UUID.__dict__["is_safe"].__set__


class _Generator:
    """RFC 9562, section 6.2, method 2: a random start per millisecond, then random steps.

    The 74 bits after the time stamp are one counter. It starts random below its top bit, so that
    2^73 / 2^32 ids fit into one millisecond before it could overflow, and grows by 1 to 2^32, so
    that a neighbouring id cannot be guessed. A clock that steps back is ignored until it has caught
    up: the last time stamp stays and the counter goes on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._counter = 0
        self._pool = b""
        self._used = 0

    def next(self) -> int:
        with self._lock:
            if not self._millisecond_began():
                # One system call for a thousand steps: an id costs less than the call would.
                if self._used == len(self._pool):
                    self._pool = os.urandom(_POOL)
                    self._used = 0
                end = self._used + 4
                self._counter += 1 + int.from_bytes(self._pool[self._used : end], "big")
                self._used = end
                if self._counter >> 74:
                    self._millisecond += 1
                    self._counter &= (1 << 73) - 1
            counter = self._counter
            return self._millisecond << 80 | (counter >> 62) << 64 | counter & _LOW | _VERSION_AND_VARIANT

    def many(self, count: int) -> bytes:
        """The same as `count` calls of next, 16 bytes each, at a twentieth of the cost."""
        if count == 0:
            return b""
        steps = array("I", os.urandom(4 * count))
        with self._lock:
            self._millisecond_began()
            high, low = self._counter >> 62, self._counter & _LOW
            last = low + sum(steps)
            # Once in a million times the counter's lower part is too full, or one of the steps is 0.
            if fits := last <= _LOW and 0 not in steps:
                self._counter = high << 62 | last
                first_half = self._millisecond << 16 | 0x7000 | high
        if not fits:
            return b"".join([self.next().to_bytes(_WIDTH, "big") for _ in range(count)])
        halves = array("Q", bytes(_WIDTH * count))
        halves[0::2] = array("Q", [first_half]) * count
        halves[1::2] = array("Q", islice(accumulate(steps, initial=low | 1 << 63), 1, None))
        if sys.byteorder == "little":
            halves.byteswap()
        return halves.tobytes()

    def _millisecond_began(self) -> bool:
        """Start the counter over where the clock has gone on; the lock is held."""
        now = time.time_ns() // 1_000_000
        if now <= self._millisecond:
            return False
        self._millisecond = now
        self._counter = int.from_bytes(os.urandom(10), "big") >> 7
        return True


_generator = _Generator()


def _start_over() -> None:
    # A forked child owns a copy of the random pool, and perhaps of a lock that a thread of its parent
    # held: with either, it would repeat its parent's ids, or wait for ever.
    global _generator
    _generator = _Generator()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)


def uuid7() -> UUID:
    """A new id: strictly greater than every id this process made before, from any thread.

    Time-ordered as RFC 9562 defines version 7, also while the clock steps back. A forked child draws
    from its own randomness.
    """
    return _uuid(_generator.next())


def uuid7s(count: int) -> bytes:
    """`count` ids as `uuid7` would make them one after the other, packed: 16 bytes each."""
    return _generator.many(count)


def _uuid(number: int) -> UUID:
    made = object.__new__(UUID)
    _set_int(made, number)
    _set_is_safe(made, SafeUUID.unknown)
    return made


class IdSequence(Sequence[UUID]):
    """Ids in an order, 16 bytes each, which do not change; a slice is an IdSequence again.

    Equal to any sequence of the same UUIDs. `shed`: of how many the jobs are dead, unrun, since their tenant
    had no room for them; 0 in a slice.
    """

    __slots__ = ("_bytes", "shed")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, ids: Iterable[UUID] = (), *, shed: int = 0) -> None:
        self._bytes: bytes | bytearray = b"".join([id.bytes for id in ids])
        self.shed = shed

    @classmethod
    def packed(cls, packed: bytes | bytearray, *, shed: int = 0) -> IdSequence:
        """Over ids that are packed already; the buffer is not copied, and the caller's no more."""
        made = cls(shed=shed)
        made._bytes = packed
        return made

    def texts(self) -> list[str]:
        """Each id as 32 hexadecimal digits, which PostgreSQL takes for a uuid."""
        digits = self._bytes.hex()
        return [digits[start : start + 32] for start in range(0, len(digits), 32)]

    @overload
    def __getitem__(self, index: int) -> UUID: ...
    @overload
    def __getitem__(self, index: slice) -> IdSequence: ...
    def __getitem__(self, index: int | slice) -> UUID | IdSequence:
        # range does the arithmetic of negative numbers, steps and bounds.
        if isinstance(index, slice):
            wanted = range(len(self))[index]
            if wanted.step == 1:
                return IdSequence.packed(self._bytes[wanted.start * _WIDTH : wanted.stop * _WIDTH])
            return IdSequence(self._at(position) for position in wanted)
        try:
            return self._at(range(len(self))[index])
        except IndexError:
            raise IndexError(f"no id at {index}: there are {len(self)}") from None

    def _at(self, position: int) -> UUID:
        start = position * _WIDTH
        return _uuid(int.from_bytes(self._bytes[start : start + _WIDTH], "big"))

    def __len__(self) -> int:
        return len(self._bytes) // _WIDTH

    def __iter__(self) -> Iterator[UUID]:
        return map(self._at, range(len(self)))

    def __contains__(self, id: object) -> bool:
        return self._find(id) >= 0

    def _find(self, id: object) -> int:
        if not isinstance(id, UUID):
            return -1
        wanted = id.bytes
        start = self._bytes.find(wanted)
        # A hit that straddles two ids is chance; look on from its next byte.
        while start >= 0 and start % _WIDTH:
            start = self._bytes.find(wanted, start + 1)
        return start

    def __eq__(self, other: object) -> bool:
        if isinstance(other, IdSequence):
            return self._bytes == other._bytes
        if isinstance(other, (list, tuple)):
            return len(other) == len(self) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __repr__(self) -> str:
        if len(self) <= 2:
            return f"IdSequence({', '.join(map(str, self))})"
        return f"IdSequence({self[0]} ... {self[-1]}, {len(self):,} ids)"
