"""One coarse clock for thousands of time limits. Moving a limit further away is one attribute write and no timer: the
wheel looks at an item when its *earliest* limit so far would end, and moves it on when the limit has moved since.
"""

import asyncio
from math import ceil, inf
from typing import Protocol

from penstock.http.members import Members

_EARLY = 0.001  # seconds; uvloop counts milliseconds, so a timer may fire this much before its time


class Watched(Protocol):
    """Something with a time limit. It sets `deadline` itself and calls `Wheel.hasten` when that is before `due`."""

    deadline: float  # loop time; inf: no limit now
    due: float  # loop time when the wheel will look; inf: the wheel does not know it. Only the wheel writes it.

    def expired(self, now: float) -> None:
        """The limit has passed. Called once per limit; set `deadline` anew to be called again."""
        ...


class Wheel:
    """Time limits in steps of `tick` seconds: an item expires at its deadline or up to one tick later, never before."""

    __slots__ = ("_loop", "_slots", "_tick", "_timer", "_timer_step")

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = 0.25) -> None:
        self._loop = loop
        self._tick = tick
        self._slots: dict[int, Members[Watched]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_step = 0

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def hasten(self, item: Watched) -> None:
        """Look at `item` no later than its deadline. To be called whenever `item.deadline < item.due`."""
        if item.due != inf:
            self._leave(item)
        self._enter(item)

    def forget(self, item: Watched) -> None:
        item.deadline = inf
        if item.due != inf:
            self._leave(item)

    def close(self) -> None:
        """Forget everything."""
        for items in self._slots.values():
            for item in items:
                item.due = inf
        self._slots.clear()
        self._disarm()

    def _enter(self, item: Watched) -> None:
        step = ceil(item.deadline / self._tick)
        item.due = step * self._tick
        slot = self._slots.get(step)
        if slot is None:
            slot = self._slots[step] = Members()
            if self._timer is None or step < self._timer_step:
                self._arm(step)
        slot.add(item)

    def _leave(self, item: Watched) -> None:
        step = round(item.due / self._tick)
        item.due = inf
        slot = self._slots.get(step)
        if slot is not None:
            slot.discard(item)
            if not len(slot):
                del self._slots[step]

    def _arm(self, step: int) -> None:
        self._disarm()
        self._timer_step = step
        self._timer = self._loop.call_at(step * self._tick, self._turn)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        now = self._loop.time() + _EARLY
        try:
            for step in sorted(self._slots):
                if step * self._tick > now:
                    break
                items = self._slots.pop(step, Members())  # gone, when one that expired has forgotten the only one there
                for item in items:
                    item.due = inf
                for item in items:
                    if item.deadline <= now:
                        item.deadline = inf
                        item.expired(now)
                    elif item.deadline < item.due:
                        self._enter(item)
        finally:
            # Only now: what comes anew during the turn may be later than what has been waiting.
            self._disarm()
            if self._slots:
                self._arm(min(self._slots))
