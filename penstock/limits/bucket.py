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

from typing import Final

from penstock.limits.charges import MICRO

LOWS: Final = 8  # minima kept; older ones are merged, which may return less, never more


class Bucket:
    """`at` is the microsecond up to which it has drained. `lows` are (when, held) pairs, both rising: since any moment,
    the bucket has held at least what the first pair after that moment says.
    """

    __slots__ = ("at", "held", "lows")

    def __init__(self, at: int, held: int = 0, lows: list[tuple[int, int]] | None = None) -> None:
        self.at = at
        self.held = held  # millionths
        self.lows = [] if lows is None else lows

    def drained(self, limit: int, window: int, now: int) -> tuple[int, int]:
        """`at` and `held` as they are at `now`. Changes nothing."""
        ticks = (now - self.at) // window
        left = self.held - ticks * limit
        return (self.at + ticks * window, left) if left > 0 else (now, 0)

    def add(self, at: int, held: int, amount: int, now: int) -> None:
        """Put `amount` millionths on what `drained` said."""
        lows = self.lows
        while lows and lows[-1][1] >= held:
            lows.pop()
        lows.append((now, held))
        if len(lows) > LOWS:
            lows[1] = (lows[1][0], lows[0][1])
            del lows[0]
        self.at, self.held = at, held + amount

    def give_back(self, at: int, held: int, amount: int, since: int) -> None:
        """Take out at most `amount` millionths that were put in at `since`, from what `drained` said."""
        lows = self.lows
        later = len(lows)
        while later and lows[later - 1][0] > since:
            later -= 1
        if later < len(lows):
            amount = min(amount, lows[later][1])
        amount = min(amount, held)
        after = [(when, low - amount) for when, low in lows[later:]]
        floor = after[0][1] if after else held - amount
        while later and lows[later - 1][1] >= floor:
            later -= 1
        self.lows = lows[:later] + after
        self.at, self.held = at, held - amount


def wait(at: int, held: int, cost: int, limit: int, window: int, now: int) -> int:
    """Microseconds until `cost` units fit (`cost <= limit`, and now they do not)."""
    excess = held + (cost - limit) * MICRO
    return -(-excess // limit) * window - (now - at)
