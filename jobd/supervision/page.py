"""The numbers of a crew on one page: totals over the children that are and those that were.

The other half of what `jobd.api.probes` asks, its `MetricsPage`; `Crew` is the `Condition`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector

from jobd.metrics import encode
from jobd.supervision.child import Child, Unanswered
from jobd.supervision.tether import plain
from jobd.supervision.totals import Told, Totals, counter, gauge

ASK_SECONDS: Final = 3.0
"""Below the limit of a probe: who answers in time is heard, whatever the others do."""


class Page:
    """What the children told, and what the supervisor counts itself."""

    def __init__(self, children: Callable[[], Sequence[Child]], *, wanted: int) -> None:
        """`children` are those of now, of which there should be `wanted`."""
        self.replaced = 0
        """Processes that ended untold and were replaced."""
        self._children = children
        self._wanted = wanted
        self._totals = Totals()
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)

    def last(self, child: Child, told: Told) -> None:
        """A child has told its numbers for the last time."""
        self._totals.tell(child, told)

    def ended(self, child: Child) -> None:
        """A child has ended, and is none of the children any more."""
        self._totals.end(child)

    async def asked(self) -> Collection[Child | None]:
        """Ask the children for their numbers; return those that answered.

        One of them counts the queues, which takes the database's time: the first that works. Another one
        does if that one ends meanwhile.
        """
        due = time.monotonic() + ASK_SECONDS
        children = [child for child in self._children() if child.started]
        answers = await asyncio.gather(
            *[self._ask(child, due=due, depths=child is children[0]) for child in children]
        )
        answered = [child for child, answer in zip(children, answers, strict=True) if answer]
        if answered and answered[0] is not children[0]:
            await self._ask(answered[0], due=due, depths=True)
        return answered

    async def _ask(self, child: Child, *, due: float, depths: bool) -> bool:
        try:
            told = await child.ask("metrics", seconds=due - time.monotonic(), depths=depths)
        except Unanswered:
            return False
        if told is None:
            return False
        # Its last word, or its end, may have come in one breath with this answer, which is then the older.
        if not child.said_last and any(other is child for other in self._children()):
            self._totals.tell(child, told)
        return True

    def render(
        self, depths: Collection[Child | None] | None, gauges: Mapping[str, float], *, accept: str = ""
    ) -> tuple[bytes, str]:
        """The totals, as `jobd.metrics.Metrics.render` shows those of one process, of those who answered."""
        working = sum(child.started for child in self._children())
        own = [
            *plain(self._own.collect()),
            gauge(
                "jobd_processes",
                "Processes of this daemon: how many there should be, and how many work.",
                [({"state": "wanted"}, self._wanted), ({"state": "working"}, working)],
            ),
            counter(
                "jobd_processes_replaced", "Processes that ended untold and were replaced.", self.replaced
            ),
        ]
        self._totals.tell(None, own)
        return encode(self._totals.families([None, *(depths or ())]), accept=accept)
