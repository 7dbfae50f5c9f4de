"""A discrete-event world: a clock, and what happens when."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Let `do` happen at `when` (seconds); at the same instant, first said first done."""
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, do))

    def run(self, until: float = float("inf")) -> int:
        """Let everything up to `until` happen. Returns the number of events."""
        events = 0
        while self._heap and self._heap[0][0] <= until:
            self.now, _, do = heapq.heappop(self._heap)
            do()
            events += 1
        return events
