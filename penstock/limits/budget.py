"""What is held and given back whole: leases at once (a gauge), and money in a calendar window (a budget)."""

from __future__ import annotations

from math import inf
from typing import Final

from penstock.limits.charges import MICRO, Charge
from penstock.limits.words import FULL, Words

SOON: Final = MICRO  # microseconds to wait for what others hold: nobody knows when they settle
GRACE: Final = 86_400  # seconds that a budget is remembered after its window: for late settlements, and odd clocks

# The words of a gauge, and of a budget.
IN_USE: Final = 0
SETTLED: Final = 0
RESERVED: Final = 1
FORGET_AT: Final = 2  # microseconds; 0 until it is seeded


class Gauge:
    """At most `limit` leases at once. The verbs are a `Bucket`'s."""

    __slots__ = ("_words",)

    def __init__(self, words: Words | None = None) -> None:
        self._words: Words = [0] if words is None else words

    def fits(self, charge: Charge, now: int) -> bool:
        return self._words[IN_USE] + charge.cost <= charge.limit or not charge.cost

    def wait(self, charge: Charge, now: int) -> float:
        if self.fits(charge, now):
            return 0
        return inf if charge.cost > charge.limit else SOON

    def take(self, charge: Charge, now: int) -> int:
        self._words[IN_USE] = in_use = self._words[IN_USE] + charge.cost
        return in_use

    def settle(self, charge: Charge, cost: int, since: int, now: int, reserved: bool) -> int:
        if reserved:
            self.release(charge.cost)
        return 0

    def release(self, cost: int) -> None:
        self._words[IN_USE] = in_use = self._words[IN_USE] - cost
        assert in_use >= 0, f"{-in_use} more given back than was taken"

    def used(self, charge: Charge, now: int) -> int:
        return self._words[IN_USE]

    def idle(self, now: int) -> bool:
        return not self._words[IN_USE]


class Budget:
    """`settled + reserved <= limit`. One calendar window's, which its name tells, so that it never starts anew."""

    __slots__ = ("_words",)

    def __init__(self, words: Words | None = None) -> None:
        self._words: Words = [0, 0, 0] if words is None else words

    def seed(self, settled: int, window: int, now: int) -> None:
        """At least so much was spent; of the calendar window `window` seconds are left."""
        words = self._words
        words[SETTLED] = max(words[SETTLED], settled)
        if not words[FORGET_AT]:
            words[FORGET_AT] = now + (window + GRACE) * MICRO

    def fits(self, charge: Charge, now: int) -> bool:
        words, cost = self._words, charge.cost
        return words[SETTLED] + words[RESERVED] + cost <= charge.limit or charge.soft or not cost

    def wait(self, charge: Charge, now: int) -> float:
        """Until the next window, unless what others hold may still come back. What no window can hold never fits."""
        if self.fits(charge, now):
            return 0
        if charge.cost > charge.limit:
            return inf
        return SOON if self._words[SETTLED] + charge.cost <= charge.limit else charge.window * MICRO

    def take(self, charge: Charge, now: int) -> int:
        words = self._words
        words[RESERVED] = reserved = words[RESERVED] + charge.cost
        return words[SETTLED] + reserved

    def settle(self, charge: Charge, cost: int, since: int, now: int, reserved: bool) -> int:
        words = self._words
        before = 0
        if reserved:
            before = charge.cost
            self.release(before)
        words[SETTLED] = settled = min(words[SETTLED] + cost, FULL)
        if cost <= before or charge.soft:
            return 0
        return max(0, min(cost - before, settled + words[RESERVED] - charge.limit))

    def release(self, cost: int) -> None:
        self._words[RESERVED] = reserved = self._words[RESERVED] - cost
        assert reserved >= 0, f"{-reserved} more given back than was reserved"

    def used(self, charge: Charge, now: int) -> int:
        return self._words[SETTLED] + self._words[RESERVED]

    def idle(self, now: int) -> bool:
        return self._words[FORGET_AT] <= now and not self._words[RESERVED]
