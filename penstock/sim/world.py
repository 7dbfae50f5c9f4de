"""A discrete-event world: a clock, and what happens when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import cast


class Happening:
    """Something that happens at a time, perhaps many times: cheaper than a function for each."""

    __slots__ = ()

    def happen(self, number: int) -> None:
        """Its time has come; `number` is what `World.due` said, for those who were put off in the meantime."""
        raise NotImplementedError


class Sleeper(Happening):
    """Whoever wants to be woken, unless `done` by then."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def woke(self) -> None:
        raise NotImplementedError


class Alarms(Happening):
    """Those set for the same span ahead, which are due in the order in which they were set."""

    __slots__ = ("_world", "queue", "set")

    def __init__(self, world: World) -> None:
        self._world = world
        self.queue: deque[tuple[float, Sleeper]] = deque()
        self.set = False  # there is an event for the first of them

    def happen(self, number: int) -> None:
        world, queue = self._world, self.queue
        while queue:
            when, sleeper = queue[0]
            if not sleeper.done:
                if when > world.now:
                    world.due(when, self)
                    return
                sleeper.woke()
            queue.popleft()
        self.set = False


class World:
    __slots__ = ("_alarms", "_heap", "_order", "_soon", "now")

    def __init__(self) -> None:
        self.now: float = 0.0
        self._heap: list[tuple[float, int, object]] = []
        self._soon: deque[Happening] = deque()
        self._order: int = 0
        self._alarms: dict[float, Alarms] = {}

    def time(self) -> float:
        """`now`, for those who take a clock."""
        return self.now

    def at(self, when: float, do: Callable[[], object]) -> None:
        """Let `do` happen at `when` (seconds); at the same instant, first said first done."""
        self._order += 1
        heappush(self._heap, (when, self._order, do))

    def due(self, when: float, what: Happening) -> int:
        """As `at`. Returns what `what` will be told then."""
        self._order = order = self._order + 1
        heappush(self._heap, (when, order, what))
        return order

    def soon(self, what: Happening) -> None:
        """Let it happen (with number 0) as soon as what happens now has: as a callback of an event loop."""
        self._soon.append(what)

    def wake(self, span: float, sleeper: Sleeper) -> None:
        """In `span` seconds, one of few: for timeouts, of which most are done before. Those cost no event."""
        alarms = self._alarms.get(span)
        if alarms is None:
            alarms = self._alarms[span] = Alarms(self)
        queue = alarms.queue
        while queue and queue[0][1].done:  # those that are done are not kept until they would have been woken
            queue.popleft()
        when = self.now + span
        queue.append((when, sleeper))
        if not alarms.set:
            alarms.set = True
            self.due(when, alarms)

    def next_at(self) -> float:
        """When something happens next; inf: never."""
        return self._heap[0][0] if self._heap else inf

    def run(self, until: float = inf) -> int:
        """Let everything up to `until` happen. Returns the number of events."""
        heap, soon = self._heap, self._soon
        events = 0
        while heap and heap[0][0] <= until:
            now, order, what = heappop(heap)
            self.now = now
            if isinstance(what, Happening):
                what.happen(order)
            else:
                cast(Callable[[], object], what)()
            while soon:
                soon.popleft().happen(0)
            events += 1
        return events
