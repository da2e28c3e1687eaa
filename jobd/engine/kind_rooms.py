"""How many more jobs of each kind a process may claim: by its limits, none of what it has no handler for."""

from __future__ import annotations

import time
from collections.abc import Callable

from jobd.engine.slots import Slots
from jobd.registry import Registry

UNKNOWN_KIND_REST = 60.0


class KindRooms:
    """Lives on the work loop."""

    def __init__(
        self, registry: Registry, slots: Slots, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._slots = slots
        self._clock = clock
        self._rested: dict[str, float] = {}

    def rest(self, kind: str) -> None:
        """Leave a kind that has no handler here out of the claims for a minute."""
        self._rested[kind] = self._clock() + UNKNOWN_KIND_REST

    def resting(self) -> list[str]:
        """The kinds that are left out."""
        now = self._clock()
        self._rested = {kind: until for kind, until in self._rested.items() if until > now}
        return list(self._rested)

    def limited(self) -> dict[str, int]:
        """Of each kind that has a limit, how many more."""
        return {
            handler.kind: room
            for handler in self._registry
            if (room := self._slots.kind_room(handler)) is not None
        }
