"""How many jobs a claim asks of each queue, when slots are fewer than what the queues could fill.

Every queue with room is looked at before a producer sleeps, in turns where slots are too few for all
at once, so that a backlog in one never hides a job in another. What is left over goes to the queues
that gave all they were asked for last time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class Rooms:
    """Remembers which queues may hold more, and which gave all they had since the last sleep."""

    def __init__(self, queues: Sequence[str]) -> None:
        self._queues = list(queues)
        self._hungry = set(queues)
        self._exhausted: set[str] = set()
        self._seen: set[str] = set()

    @property
    def hungry(self) -> bool:
        """Whether any queue may hold more than it was asked for."""
        return bool(self._hungry)

    def share(self, free: int, room: Callable[[str], int]) -> dict[str, int]:
        """Rooms by queue, `free` in all at most; `room` is a queue's own limit."""
        self._queues.append(self._queues.pop(0))
        able = [queue for queue in self._queues if room(queue) > 0]
        if free < len(able):
            able = [queue for queue in able if queue not in self._exhausted][:free] or able[:free]
        rooms = dict.fromkeys(able, 1)
        left = free - len(able)
        # Those with little room first, so that the others get what these cannot take.
        eager = sorted([queue for queue in able if queue in self._hungry] or able, key=room)
        for place, queue in enumerate(eager):
            more = min(left // (len(eager) - place), room(queue) - 1)
            rooms[queue] += more
            left -= more
        return rooms

    def learn(self, asked: Mapping[str, int], found: Mapping[str, int]) -> None:
        """After a claim: `asked` is how many show that a queue may hold more."""
        self._seen |= asked.keys()
        for queue, enough in asked.items():
            if found.get(queue, 0) >= enough:
                self._hungry.add(queue)
                self._exhausted.discard(queue)
            else:
                self._hungry.discard(queue)
                self._exhausted.add(queue)

    def unseen(self, room: Callable[[str], int]) -> bool:
        """Whether a queue with room may hold jobs that no claim since the last sleep has asked for."""
        return any(queue not in self._seen and room(queue) > 0 for queue in self._queues)

    def promising(self, room: Callable[[str], int]) -> bool:
        """Whether a queue with room gave all it was asked for the last time, or was not asked since."""
        return any(queue not in self._exhausted and room(queue) > 0 for queue in self._queues)

    def forget(self) -> None:
        """Anything may have come meanwhile."""
        self._exhausted.clear()
        self._seen.clear()
