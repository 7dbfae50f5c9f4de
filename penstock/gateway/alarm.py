"""A request's one alarm clock: as exact as a loop timer, at a tenth of its price.

Nearly every alarm is put off or forgotten long before it rings, and a loop timer costs 2 us to make and cancel. So far
away times are only looked at now and then, all together, and just the last moments wait on a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final

from penstock.core.clock import Clock

LOOK_EVERY: Final = 0.25  # seconds
_NOTICE: Final = 2 * LOOK_EVERY  # before its time an alarm gets a timer of its own


def waker(clock: Clock) -> Callable[[float, Callable[[], None]], object]:
    """What calls a function at a time (Clock.now() seconds), by a timer of the loop that runs then."""

    def wake(at: float, ring: Callable[[], None]) -> object:
        return asyncio.get_running_loop().call_later(max(0.0, at - clock.now()), ring)

    return wake


class Alarm:
    """One request's. Set it, let it ring, set it again; `Alarms.clear` when the request ends."""

    __slots__ = ("at", "ring", "timer")

    def __init__(self) -> None:
        self.at = inf  # loop time
        self.ring: Callable[[], None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def mute(self) -> None:
        """Do not ring unless set again."""
        self.at = inf

    def rings(self) -> None:
        self.timer = None
        ring, self.at = self.ring, inf
        if ring is not None:
            ring()


class Alarms:
    """All alarms of a worker. Bounded by the requests in flight."""

    __slots__ = ("_live", "_look", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # kept, because asking for the running one costs a system call
        self._live: dict[Alarm, None] = {}  # for a set of thousands Python takes four times the memory
        self._look: asyncio.TimerHandle | None = None

    def set(self, alarm: Alarm, delay: float, ring: Callable[[], None]) -> None:
        """Call `ring` once, in `delay` seconds; an earlier setting is forgotten."""
        if alarm.timer is not None:
            alarm.timer.cancel()
            alarm.timer = None
        alarm.ring = ring
        alarm.at = self.loop.time() + delay
        if delay <= _NOTICE:
            alarm.timer = self.loop.call_later(max(0.0, delay), alarm.rings)
        else:
            self._live[alarm] = None
            if self._look is None:
                self._look = self.loop.call_later(LOOK_EVERY, self._look_around)

    def clear(self, alarm: Alarm) -> None:
        alarm.ring = None
        alarm.at = inf
        if alarm.timer is not None:
            alarm.timer.cancel()
            alarm.timer = None
        self._live.pop(alarm, None)

    def _look_around(self) -> None:
        self._look = None
        now = self.loop.time()
        soon = now + _NOTICE
        for alarm in [alarm for alarm in self._live if alarm.at <= soon]:
            self._live.pop(alarm, None)
            alarm.timer = self.loop.call_later(max(0.0, alarm.at - now), alarm.rings)
        if self._live:
            self._look = self.loop.call_later(LOOK_EVERY, self._look_around)
