"""Many jobs as one unit: a few in one statement, more of them by COPY, where the connection has it.

    up to CHUNK_JOBS     one call of jobd.enqueue_many
    more, with COPY      begin -- the first job by jobd.enqueue_many -- COPY, COPY, ... -- wake -- commit
    more, without        begin -- one call of jobd.enqueue_many each chunk -- commit

"Without" are also those of a tenant with a limit of waiting jobs, which each call counts.

What is in memory at any time is a portion of payloads, and the ids. A COPY ends after COPY_JOBS or
COPY_SECONDS: limits that others set on a statement are meant for shorter ones than a stream of millions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Final
from uuid import UUID

from jobd import sql
from jobd.doors import BorrowedDoor, Door, Unit
from jobd.entry import Entry
from jobd.errors import TenantFull
from jobd.ids import IdSequence, uuid7s
from jobd.job import NewJob
from jobd.portions import Portions

BLOCKS = sql.blocks("bulk")

CHUNK_JOBS: Final = 1_000
CHUNK_CHARACTERS: Final = 4 * 2**20
# A portion that has to be whole before it is sent, and a part of one that goes out while the next is made.
WHOLE_JOBS: Final = 5_000
PART_JOBS, PART_CHARACTERS = 500, 2**18
COPY_JOBS: Final = 50_000
COPY_SECONDS: Final = 1.0

# COPY's binary format: a signature, flags and the length of an extension; rows; a count of columns of -1.
SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"
ID_LENGTH: Final = b"\x00\x00\x00\x10"
# The length of a text.
_text_head = Struct(">i").pack
# The length of a jsonb and its version.
_json_head = Struct(">iB").pack


class Bulk:
    """Jobs that differ in nothing but their payloads and keys, on their way into the queue; used once."""

    def __init__(self, job: NewJob, payloads: Portions, keys: deque[str] | None = None) -> None:
        """`keys` gets one whenever `payloads` makes a text, in the same order; None, all have the job's."""
        self._job = job
        self._payloads = payloads
        self._keys = keys
        self._ids = bytearray()
        self._shed = 0

    async def enqueue(self, door: Door) -> IdSequence:
        """Put all of them into the queue, or none; the ids come in the payloads' order."""
        first = await self._payloads.next(CHUNK_JOBS, CHUNK_CHARACTERS)
        second = await self._payloads.next(CHUNK_JOBS, CHUNK_CHARACTERS)
        if not second:
            if first and self._job.tenant_id is not None and isinstance(door, BorrowedDoor):
                # Its refusal would abort the caller's transaction.
                async with door.all_or_nothing() as unit:
                    await self._insert(Entry(unit), first)
            elif first:
                await self._insert(Entry(door), first)  # One statement is a unit by itself.
            return IdSequence.packed(self._ids, shed=self._shed)
        async with door.all_or_nothing() as unit:
            head = None
            if unit.copies is not None:
                await self._insert(Entry(unit), first[:1])
                first = first[1:]
                head = await Copying(unit).row_head(
                    IdSequence.packed(self._ids)[0], own=3 if self._keyed else 2
                )
            if head is None:
                portion = first or second
                rest = second if first else []
                while portion:
                    await self._insert(Entry(unit), portion)
                    portion = rest or await self._payloads.next(CHUNK_JOBS, CHUNK_CHARACTERS)
                    rest = []
            else:
                await self._copy(Copying(unit), head, [first, second], streamed=unit.copies == "streamed")
                # No job more, but another look for workers who fell asleep meanwhile.
                await self._insert(Entry(unit), [])
        return IdSequence.packed(self._ids, shed=self._shed)

    async def _insert(self, entry: Entry, texts: list[str]) -> None:
        ids = uuid7s(len(texts))
        with without_own(len(self._ids) // 16):
            self._shed += await entry.enqueue_many(
                self._job,
                ids=IdSequence.packed(ids),
                payloads=texts,
                concurrency_keys=self._next_keys(len(texts)),
            )
        self._ids += ids

    @property
    def _keyed(self) -> bool:
        return self._keys is not None or self._job.concurrency_key is not None

    def _next_keys(self, count: int) -> list[str] | None:
        if self._keys is not None:
            return [self._keys.popleft() for _ in range(count)]
        return None if self._job.concurrency_key is None else [self._job.concurrency_key] * count

    async def _copy(self, copying: Copying, head: bytes, ready: list[list[str]], *, streamed: bool) -> None:
        # While a COPY runs, its connection can do nothing else, and whoever is awaited might want to.
        streamed = streamed and not self._payloads.waits
        jobs, characters = (PART_JOBS, PART_CHARACTERS) if streamed else (WHOLE_JOBS, CHUNK_CHARACTERS)
        while any(ready):
            rows = self._rows(head, ready, streamed=streamed)
            await (copying.copy_keyed(rows) if self._keyed else copying.copy(rows))
            ready = [await self._payloads.next(jobs, characters)]

    def _rows(self, head: bytes, ready: list[list[str]], *, streamed: bool) -> Iterator[bytes]:
        yield SIGNATURE
        for texts in ready:
            yield self._part(head, texts)
        left, end = COPY_JOBS, time.monotonic() + COPY_SECONDS
        while streamed and left > 0 and time.monotonic() < end:
            texts = self._payloads.take(PART_JOBS, PART_CHARACTERS)
            if not texts:
                break
            yield self._part(head, texts)
            left -= len(texts)
        yield TRAILER

    def _part(self, head: bytes, texts: list[str]) -> bytes:
        ids = uuid7s(len(texts))
        self._ids += ids
        keys = self._next_keys(len(texts))
        pieces: list[bytes] = []
        start = 0
        for place, text in enumerate(texts):
            payload = text.encode()
            pieces += (head, ids[start : start + 16], _json_head(len(payload) + 1, 1), payload)
            start += 16
            if keys is not None:
                key = keys[place].encode()
                pieces += (_text_head(len(key)), key)
        return b"".join(pieces)


@contextmanager
def without_own(number: int) -> Iterator[None]:
    """A block that counts the tenant's jobs; what it raises leaves out as many that wait in vain by then."""
    try:
        yield
    except TenantFull as full:
        waiting = max(full.waiting - number, 0)
        raise TenantFull(full.tenant_id, limit=full.limit, waiting=waiting, surplus=full.surplus) from full


class Copying:
    """The blocks of `sql/bulk.sql`, on one connection."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    async def copy(self, rows: Iterable[bytes]) -> None:
        """Put rows into the table: a whole stream of COPY's binary format, in any parts."""
        await self._unit.copy(BLOCKS["copy"], rows)

    async def copy_keyed(self, rows: Iterable[bytes]) -> None:
        """The same for rows that end with a concurrency key each."""
        await self._unit.copy(BLOCKS["copy_keyed"], rows)

    async def row_head(self, id: UUID, *, own: int) -> bytes | None:
        """How the row of a job like `id` begins, up to its own id, where `own` columns are each row's own.

        None where jobs like it are counted.
        """
        rows = await self._unit.fetch(BLOCKS["row_head"], str(id), own)
        return bytes.fromhex(rows[0]["head"]) + ID_LENGTH if rows else None
