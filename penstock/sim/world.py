"""A discrete-event world: a clock, and what happens when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol


class Sleeper(Protocol):
    """Whoever wants to be woken, unless `done` by then."""

    @property
    def done(self) -> bool: ...

    def woke(self) -> None: ...


class Alarms:
    """Those set for the same span ahead, which are due in the order in which they were set."""

    __slots__ = ("queue", "set")

    def __init__(self) -> None:
        self.queue: deque[tuple[float, Sleeper]] = deque()
        self.set = False  # there is an event for the first of them


class World:
    __slots__ = ("_alarms", "_heap", "_order", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._alarms: dict[float, Alarms] = {}

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Let `do` happen at `when` (seconds); at the same instant, first said first done."""
        self._order += 1
        heappush(self._heap, (when, self._order, do))

    def wake(self, when: float, sleeper: Sleeper) -> None:
        """As `at`, for the many who will be done before: timeouts. Costs no event for those."""
        span = round(when - self.now, 6)
        alarms = self._alarms.get(span)
        if alarms is None:
            alarms = self._alarms[span] = Alarms()
        queue = alarms.queue
        while queue and queue[0][1].done:  # those that are done are not kept until they would have been woken
            queue.popleft()
        if queue and queue[-1][0] > when:  # by a rounding
            self.at(when, lambda: _wake(sleeper))
            return
        queue.append((when, sleeper))
        if not alarms.set:
            alarms.set = True
            self.at(when, lambda: self._ring(span))

    def run(self, until: float = float("inf")) -> int:
        """Let everything up to `until` happen. Returns the number of events."""
        heap = self._heap
        events = 0
        while heap and heap[0][0] <= until:
            self.now, _, do = heappop(heap)
            do()
            events += 1
        return events

    def _ring(self, span: float) -> None:
        alarms = self._alarms[span]
        queue = alarms.queue
        while queue:
            when, sleeper = queue[0]
            if not sleeper.done:
                if when > self.now:
                    self.at(when, lambda: self._ring(span))
                    return
                sleeper.woke()
            queue.popleft()
        del self._alarms[span]


def _wake(sleeper: Sleeper) -> None:
    if not sleeper.done:
        sleeper.woke()
