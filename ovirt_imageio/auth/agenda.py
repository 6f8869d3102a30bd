"""What is due when: a heap, so that waiting for many things costs no more than waiting for the first one.

Pure: no clock (`now` is an argument), no lock, no thread.
"""

from __future__ import annotations

import heapq

__all__ = ["Agenda"]

# Entries that count no more are dropped when they are this many, and more than those that count.
SLACK = 64


class Agenda:
    """Names, each with the time when it is due.

    Threads: one at a time.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        # The earliest first. An entry counts only if it says what _due does: others were changed or removed.
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._due)

    def set(self, name: str, due: float) -> None:
        """Let a name be due at a time, instead of any other."""
        self._due[name] = due
        heapq.heappush(self._heap, (due, name))
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [(due, name) for name, due in self._due.items()]
            heapq.heapify(self._heap)

    def remove(self, name: str) -> None:
        """Forget a name; harmless if it is not there."""
        self._due.pop(name, None)

    def pop_due(self, now: float) -> list[str]:
        """Return the names that are due, the earliest first, and forget them."""
        names = []
        while self._heap and self._heap[0][0] <= now:
            due, name = heapq.heappop(self._heap)
            if self._due.get(name) == due:
                del self._due[name]
                names.append(name)
        return names
