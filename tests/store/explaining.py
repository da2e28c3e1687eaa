"""What `explain` says of a job, in the forms that tests ask for.

Where it tells spans, which it does to the second, a test says `at` which moment it looks: then they are exact
however slow the machine is.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from jobd.reader import Reader
from jobd.reasons import reasons
from jobd.standing import Reason, Why


async def told(reader: Reader, id: UUID, *, at: datetime | None = None) -> list[Reason]:
    if at is not None:
        standing = await reader.standing(id, now=at)
        assert standing is not None
        return reasons(standing)
    explanation = await reader.explain(id)
    assert explanation.id == id
    return list(explanation.reasons)


async def first(reader: Reader, id: UUID, why: Why, *, at: datetime | None = None) -> str:
    """The text of the reason, which has to be the first."""
    found = await told(reader, id, at=at)
    assert found[0].why == why, found
    return found[0].text


async def whys(reader: Reader, id: UUID) -> list[Why]:
    return [reason.why for reason in await told(reader, id)]
