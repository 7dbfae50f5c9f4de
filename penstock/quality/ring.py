"""What was counted per minute, for as long as it is asked for: two numbers per slot, added up from the beginning, so
that any span back from now is one subtraction.
"""

from __future__ import annotations

from array import array

import msgspec

from penstock.quality.slo import Seen


class Kept(msgspec.Struct, frozen=True):
    """A ring as plain data. Arrays of doubles in this machine's order of bytes: for this machine's next process."""

    width: float
    slot: int
    oldest: int
    bad: bytes
    events: bytes


class Ring:
    """The last `n` slots of `width` seconds. `now` is in Unix seconds and never counts as earlier than before."""

    def __init__(self, width: float, n: int, kept: Kept | None = None) -> None:
        self.width, self._n = width, n
        self._bad, self._events = array("d", bytes(8 * n)), array("d", bytes(8 * n))
        self._slot: int | None = None  # the newest
        self._oldest = 0  # slots from here on have been counted in
        if kept is not None and kept.width == width and len(kept.bad) == len(kept.events) == 8 * n:
            self._bad, self._events = array("d", kept.bad), array("d", kept.events)
            self._slot, self._oldest = kept.slot, kept.oldest

    def add(self, bad: float, events: float, now: float) -> None:
        place = self._advance(now) % self._n
        self._bad[place] += bad
        self._events[place] += events

    def back(self, span: float, now: float) -> Seen:
        """What was counted within the last `span` seconds, to a slot; less of it where it began later."""
        slot = self._advance(now)
        newest, before = slot % self._n, max(slot - max(1, round(span / self.width)), slot - self._n + 1)
        if before < self._oldest:
            return Seen(self._bad[newest], self._events[newest])  # nothing was before the beginning
        place = before % self._n
        return Seen(self._bad[newest] - self._bad[place], self._events[newest] - self._events[place])

    def keep(self) -> Kept | None:
        if self._slot is None:
            return None
        return Kept(self.width, self._slot, self._oldest, self._bad.tobytes(), self._events.tobytes())

    def _advance(self, now: float) -> int:
        """The newest slot, after those between have been given what was counted until then."""
        slot = int(now // self.width)
        if self._slot is None:
            self._slot = self._oldest = slot
        elif slot > self._slot:
            place = self._slot % self._n
            bad, events = self._bad[place], self._events[place]
            for passed in range(max(self._slot + 1, slot - self._n + 1), slot + 1):
                self._bad[passed % self._n], self._events[passed % self._n] = bad, events
            self._slot = slot
        return self._slot
