"""Which names become label values of metrics: from a bounded set, whatever jobs are called."""

from __future__ import annotations

import threading
from typing import Final

OTHER: Final = "other"
MAX_QUEUES: Final = 100
MAX_KINDS: Final = 200
MAX_PAIRS: Final = 400


class Labels:
    """Decides which queue and kind names become label values: the first ones, up to the caps.

    At most MAX_PAIRS pairs are told apart, and one `other` for each queue beside them. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: set[str] = {OTHER}
        self._kinds: set[str] = {OTHER}
        self._pairs: set[tuple[str, str]] = set()

    def admit(self, queue: str, kind: str) -> tuple[str, str]:
        """Return the label values that stand for this pair, the same ones for ever."""
        with self._lock:
            if (queue, kind) in self._pairs:
                return queue, kind
            if queue not in self._queues and len(self._queues) > MAX_QUEUES:
                queue = OTHER
            if len(self._pairs) >= MAX_PAIRS or (kind not in self._kinds and len(self._kinds) > MAX_KINDS):
                kind = OTHER
            self._queues.add(queue)
            self._kinds.add(kind)
            if kind != OTHER:
                self._pairs.add((queue, kind))
            return queue, kind
