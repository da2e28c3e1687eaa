"""Many jobs with a unique key each, as one unit.

    gather all payloads -- sort by key -- begin -- one call of jobd.enqueue_many each thousand -- commit

Never by COPY, which knows no conflicts. Two calls at the same time take their keys in the same order, so
that one waits for the other and never both; for that all payloads have to be there before the first is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from jobd.bulk import CHUNK_CHARACTERS, CHUNK_JOBS, without_own
from jobd.doors import Door
from jobd.entry import Entry
from jobd.ids import IdSequence, uuid7s
from jobd.job import NewJob
from jobd.portions import Portions


class Keyed:
    """Jobs that differ in their payloads and keys, on their way into the queue; used once."""

    def __init__(
        self,
        job: NewJob,
        payloads: Portions,
        keys: Sequence[str | None],
        limit_keys: Sequence[str] | None = None,
    ) -> None:
        """`keys` and `limit_keys`, the concurrency keys, grow by one with each payload that is taken."""
        self._job = job
        self._payloads = payloads
        self._keys = keys
        self._limit_keys = limit_keys
        self._created = 0

    @property
    def created(self) -> int:
        """How many jobs are new, those that were shed among them."""
        return self._created

    async def enqueue(self, door: Door) -> IdSequence:
        """Put all of them into the queue, or none; the ids that stand for them come in the payloads' order.

        Raises TenantFull, and UniqueKeyTaken where a conflict is to be rejected.
        """
        texts: list[str] = []
        while portion := await self._payloads.next(CHUNK_JOBS, CHUNK_CHARACTERS):
            texts += portion
        if not texts:
            return IdSequence()
        ids = IdSequence.packed(uuid7s(len(texts)))
        found, shed = list(ids), 0
        # By code points, which is the order of the bytes in which the database takes them; none last.
        order = sorted(
            range(len(texts)), key=lambda place: (self._keys[place] is None, self._keys[place] or "")
        )
        async with door.all_or_nothing() as unit:
            for places in _chunks(order, texts):
                with without_own(self._created):
                    answers = await Entry(unit).enqueue_keyed(
                        self._job,
                        ids=[ids[place] for place in places],
                        payloads=[texts[place] for place in places],
                        unique_keys=[self._keys[place] for place in places],
                        concurrency_keys=None
                        if self._limit_keys is None
                        else [self._limit_keys[place] for place in places],
                    )
                for place, answer in zip(places, answers, strict=True):
                    self._created += answer.created
                    shed += answer.shed
                    found[place] = answer.id
        return IdSequence(found, shed=shed)


def _chunks(order: Sequence[int], texts: Sequence[str]) -> Iterator[Sequence[int]]:
    ends = [0]
    characters = 0
    for number, place in enumerate(order):
        characters += len(texts[place])
        if number + 1 - ends[-1] == CHUNK_JOBS or characters >= CHUNK_CHARACTERS:
            ends.append(number + 1)
            characters = 0
    if ends[-1] < len(order):
        ends.append(len(order))
    for start, end in pairwise(ends):
        yield order[start:end]
