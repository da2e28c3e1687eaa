"""What `explain` says of a job, in the forms that tests ask for."""

from __future__ import annotations

from uuid import UUID

from jobd.reader import Reader
from jobd.standing import Reason, Why


async def told(reader: Reader, id: UUID) -> list[Reason]:
    explanation = await reader.explain(id)
    assert explanation.id == id
    return list(explanation.reasons)


async def first(reader: Reader, id: UUID, why: Why) -> str:
    """The text of the reason, which has to be the first."""
    reasons = await told(reader, id)
    assert reasons[0].why == why, reasons
    return reasons[0].text


async def whys(reader: Reader, id: UUID) -> list[Why]:
    return [reason.why for reason in await told(reader, id)]
