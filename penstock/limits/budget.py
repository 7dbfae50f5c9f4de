"""What is held and given back whole: leases at once (a gauge), and money in a calendar window (a budget)."""

from __future__ import annotations

from math import inf
from typing import Final

from penstock.limits.charges import MICRO, Charge

SOON: Final = MICRO  # microseconds to wait for what others hold: nobody knows when they settle
GRACE: Final = 86_400  # seconds that a budget is remembered after its window: for late settlements, and odd clocks


class Gauge:
    """At most `limit` leases at once. The verbs are a `Bucket`'s."""

    __slots__ = ("in_use",)

    def __init__(self) -> None:
        self.in_use = 0

    def fits(self, charge: Charge, now: int) -> bool:
        return self.in_use + charge.cost <= charge.limit or not charge.cost

    def wait(self, charge: Charge, now: int) -> float:
        if self.fits(charge, now):
            return 0
        return inf if charge.cost > charge.limit else SOON

    def take(self, charge: Charge, now: int) -> int:
        self.in_use += charge.cost
        return self.in_use

    def settle(self, charge: Charge, cost: int, since: int, now: int, reserved: bool) -> int:
        if reserved:
            self.release(charge)
        return 0

    def release(self, charge: Charge) -> None:
        self.in_use -= charge.cost
        assert self.in_use >= 0, f"{charge.counter}: more was given back than was taken"

    def used(self, charge: Charge, now: int) -> int:
        return self.in_use

    def idle(self, now: int) -> bool:
        return not self.in_use


class Budget:
    """`settled + reserved <= limit`. One calendar window's, which its name tells, so that it never starts anew."""

    __slots__ = ("forget_at", "reserved", "settled")

    def __init__(self, settled: int, window: int, now: int) -> None:
        self.settled = settled
        self.reserved = 0
        self.forget_at = now + (window + GRACE) * MICRO

    def fits(self, charge: Charge, now: int) -> bool:
        return self.settled + self.reserved + charge.cost <= charge.limit or charge.soft or not charge.cost

    def wait(self, charge: Charge, now: int) -> float:
        """Until the next window, unless what others hold may still come back. What no window can hold never fits."""
        if self.fits(charge, now):
            return 0
        if charge.cost > charge.limit:
            return inf
        return SOON if self.settled + charge.cost <= charge.limit else charge.window * MICRO

    def take(self, charge: Charge, now: int) -> int:
        self.reserved += charge.cost
        return self.settled + self.reserved

    def settle(self, charge: Charge, cost: int, since: int, now: int, reserved: bool) -> int:
        before = charge.cost if reserved else 0
        self.reserved -= before
        self.settled += cost
        assert self.reserved >= 0, f"{charge.counter}: more was given back than was reserved"
        if cost <= before or charge.soft:
            return 0
        return max(0, min(cost - before, self.settled + self.reserved - charge.limit))

    def release(self, charge: Charge) -> None:
        self.settle(charge, 0, 0, 0, True)

    def used(self, charge: Charge, now: int) -> int:
        return self.settled + self.reserved

    def idle(self, now: int) -> bool:
        return self.forget_at <= now and not self.reserved
