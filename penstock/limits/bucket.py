"""A rate: a leaky bucket as a meter, which is GCRA (ITU-T I.371 shows the two to be the same) in whole numbers.

The bucket holds what was used, in millionths of a unit, and runs dry at `limit` units per `window`. So it counts
exactly: 7 a minute are 7, never 8, after any number of roundings that do not happen. A *tick* is the time in which
`limit` millionths drain: `window` microseconds.

The surprising part is giving back. A reservation of 100 that used 40 returns 60, but only as far as they are still in
the bucket: what has drained since is gone, and returning it would pay twice for the same time (a key could open
streams for an hour, cancel them together, and burst). What can be returned is the least that the bucket has held since
the reservation was made; `lows` remembers those minima.
"""

from __future__ import annotations

from math import inf
from typing import Final

from msgspec import structs

from penstock.limits.charges import MICRO, Charge

LOWS: Final = 16  # minima kept; then each two are made one, which may return less, never more

NEVER: Final = 2**52  # microseconds: a century and a half


class Bucket:
    """One counter of a rate. `now` is in microseconds and never runs backwards."""

    __slots__ = ("at", "charge", "held", "lows")

    def __init__(self, charge: Charge, now: int) -> None:
        self.at = now  # drained up to here
        self.held = 0  # millionths of a unit
        self.charge = charge  # the last one: its limit and window are how it drains while nobody asks
        self.lows: list[tuple[int, int]] = []  # (when, held), both rising: held at least so much since before `when`

    def fits(self, charge: Charge, now: int) -> bool:
        if now - self.at >= charge.window:
            self._drain(charge, now)
        cost = charge.cost
        return self.held + cost * MICRO <= charge.limit * MICRO or not cost

    def wait(self, charge: Charge, now: int) -> float:
        """Microseconds until it fits, 0 when it does, inf when it never will."""
        if self.fits(charge, now):
            return 0
        if charge.cost > charge.limit:
            return inf
        excess = self.held + (charge.cost - charge.limit) * MICRO
        wait = -(-excess // charge.limit) * charge.window - (now - self.at)
        return wait if wait < NEVER else inf

    def take(self, charge: Charge, now: int) -> int:
        """After `fits`: what it holds with the cost in it, in units rounded up."""
        held = self.held
        if charge.cost:
            self.charge = charge
            lows = self.lows
            while lows and lows[-1][1] >= held:
                lows.pop()
            lows.append((now, held))
            if len(lows) == LOWS:
                self.lows = [(lows[i + 1][0], lows[i][1]) for i in range(0, LOWS, 2)]
            self.held = held = held + charge.cost * MICRO
        return -(-held // MICRO)

    def settle(self, charge: Charge, cost: int, since: int, now: int, reserved: bool) -> int:
        """The charge that was taken at `since` was really `cost`. By how many it is now further beyond its limit.

        `reserved` makes no difference: what dead holders took of a rate stays in, and runs dry by itself.
        """
        more = cost - charge.cost
        if not more:
            return 0
        if now - self.at >= charge.window:
            self._drain(charge, now)
        if more < 0:
            self._give_back(-more, since)
            return 0
        used = self.take(structs.replace(charge, cost=more), now)
        return min(more, max(0, used - charge.limit))

    def release(self, charge: Charge) -> None:
        """Its holder is dead."""

    def used(self, charge: Charge, now: int) -> int:
        self._drain(charge, now)
        return -(-self.held // MICRO)

    def idle(self, now: int) -> bool:
        """Nothing is lost when it is forgotten."""
        charge = self.charge
        return not self.held or (charge.limit > 0 and (now - self.at) // charge.window * charge.limit >= self.held)

    def _drain(self, charge: Charge, now: int) -> None:
        """Nobody can see whether this was done: draining twice is draining once."""
        ticks = (now - self.at) // charge.window
        left = self.held - ticks * charge.limit
        if left > 0:
            self.at += ticks * charge.window
            self.held = left
        else:
            self.at, self.held = now, 0

    def _give_back(self, units: int, since: int) -> None:
        """Of what was added at `since`, at most so many, and no more than has been in it ever since.

        A minimum at `since` itself does not count: it is of before, or of when what is returned was in already.
        """
        lows = self.lows
        later = len(lows)
        while later and lows[later - 1][0] > since:
            later -= 1
        amount = min(units * MICRO, self.held)
        if later < len(lows):
            amount = min(amount, lows[later][1])
        self.held -= amount
        after = [(when, low - amount) for when, low in lows[later:]]
        least = after[0][1] if after else self.held
        while later and lows[later - 1][1] >= least:
            later -= 1
        self.lows = lows[:later] + after
