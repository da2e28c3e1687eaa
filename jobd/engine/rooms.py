"""How many jobs a claim asks of each queue, when slots are fewer than what the queues could fill.

Every queue with room is looked at before a producer sleeps, in turns where slots are too few for all
at once, so that a backlog in one never hides a job in another. What is left over goes to the queues
that gave all they were asked for last time, by their weights.

Turns go by weight, too: a queue had `asked / weight` turns, and who had the fewest is next. Nobody is
owed more than one turn, so that a queue which was quiet for long does not take all when it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class Rooms:
    """Remembers which queues may hold more, and which gave all they had since the last sleep."""

    def __init__(self, queues: Sequence[str]) -> None:
        # What each queue weighs, 1 unless said.
        self.weights: Mapping[str, int] = {}
        self._queues = list(queues)
        self._turns = dict.fromkeys(queues, 0.0)
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
        able = sorted((queue for queue in self._queues if room(queue) > 0), key=self._turns.__getitem__)
        scarce = free < len(able)
        if scarce:
            able = [queue for queue in able if queue not in self._exhausted][:free] or able[:free]
        eager = [queue for queue in able if queue in self._hungry] or able
        rooms = {queue: 1 for queue in able if queue not in eager}
        parts = self._parts(free - len(rooms), {queue: room(queue) for queue in eager})
        parts = {queue: part for queue, part in parts.items() if part > 0}
        rooms |= parts
        # A look is a turn only where it costs somebody else's.
        self._count(rooms if scarce else parts)
        return rooms

    def _parts(self, left: int, room: Mapping[str, int]) -> dict[str, int]:
        """So many by weight, none more than its room; what does not come out even, to who is next."""
        parts: dict[str, int] = {}
        shares = dict.fromkeys(room, 0.0)
        while shares:
            weight = sum(map(self._weight, shares))
            shares = {queue: left * self._weight(queue) / weight for queue in shares}
            # Who has less room than its share leaves the rest to the others.
            full = {queue: room[queue] for queue in shares if room[queue] <= shares[queue]}
            if not full:
                break
            parts |= full
            left -= sum(full.values())
            shares = {queue: 0.0 for queue in shares if queue not in full}
        parts |= {queue: int(share) for queue, share in shares.items()}
        for queue in list(shares)[: left - sum(parts[queue] for queue in shares)]:
            parts[queue] += 1
        return parts

    def _count(self, rooms: Mapping[str, int]) -> None:
        for queue, asked in rooms.items():
            self._turns[queue] += asked / self._weight(queue)
        latest = max(self._turns.values(), default=0.0)
        # Counted from the latest, so that the numbers stay small.
        self._turns = {queue: max(turns - latest, -1.0) for queue, turns in self._turns.items()}

    def _weight(self, queue: str) -> int:
        return self.weights.get(queue, 1)

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
