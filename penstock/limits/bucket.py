"""A rate: a leaky bucket as a meter, which is GCRA (ITU-T I.371 shows the two to be the same) in whole numbers.

The bucket holds what was used, in millionths of a unit, and runs dry at `limit` units per `window`. So it counts
exactly: 7 a minute are 7, never 8, after any number of roundings that do not happen. A *tick* is the time in which
`limit` millionths drain: `window` microseconds.

The surprising part is giving back. A reservation of 100 that used 40 returns 60, but only as far as they are still in
the bucket: what has drained since is gone, and returning it would pay twice for the same time (a key could open
streams for an hour, cancel them together, and burst). What can be returned is the least that the bucket has held since
the reservation was made; the *lows* are those minima.
"""

from __future__ import annotations

from math import inf
from typing import Final

from penstock.limits.charges import MICRO, Charge
from penstock.limits.words import FULL, Words

# Minima kept. When there are too many, some become one with their neighbour, which may return less, never more. With
# 500 requests in flight that settle in any order, and answers that vary like a log-normal, 97 to 99 % of the limit can
# be used; 28 % if there were 16 and each two became one.
LOWS: Final = 48
NEAREST: Final = LOWS // 4  # made one at a time

NEVER: Final = 2**52  # microseconds: a century and a half

# The words of a bucket.
AT: Final = 0  # drained up to here, microseconds
HELD: Final = 1  # millionths of a unit
LIMIT: Final = 2  # of the last charge, and its window: how it drains while nobody asks
WINDOW: Final = 3
LENGTH: Final = 4  # of what follows
FIRST: Final = 5  # the lows: (when, held), both rising: held at least so much since before `when`
SIZE: Final = FIRST + 2 * LOWS


class Bucket:
    """One counter of a rate, whose window never changes. `now` is in microseconds and never runs backwards.

    Asking changes nothing: what has drained is written down only when something is added or given back.
    """

    __slots__ = ("_words",)

    def __init__(self, words: Words | None = None) -> None:
        self._words: Words = [0] * SIZE if words is None else words

    def fits(self, charge: Charge, now: int) -> bool:
        cost, limit = charge.cost, charge.limit
        if not cost:
            return True
        words = self._words
        held = words[HELD] - (now - words[AT]) // charge.window * limit
        if held < 0:
            held = 0
        return held <= (limit - cost) * MICRO

    def wait(self, charge: Charge, now: int) -> float:
        """Microseconds until it fits, 0 when it does, inf when it never will."""
        if self.fits(charge, now):
            return 0
        if charge.cost > charge.limit:
            return inf
        at, held = self._drained(charge.limit, charge.window, now)
        excess = held + (charge.cost - charge.limit) * MICRO
        wait = -(-excess // charge.limit) * charge.window - (now - at)
        return wait if wait < NEVER else inf

    def take(self, charge: Charge, now: int) -> int:
        """After `fits`: what it holds with the cost in it, in units rounded up."""
        cost = charge.cost
        return self._add(cost, charge.limit, charge.window, now) if cost else self.used(charge, now)

    def settle(self, charge: Charge, cost: int, since: int, now: int, reserved: bool) -> int:
        """The charge that was taken at `since` was really `cost`. By how many it is now further beyond its limit.

        `reserved` makes no difference: what dead holders took of a rate stays in, and runs dry by itself.
        """
        more = cost - charge.cost
        if not more:
            return 0
        limit, window = charge.limit, charge.window
        if more < 0:
            self._give_back(-more, limit, window, since, now)
            return 0
        return min(more, max(0, self._add(more, limit, window, now) - limit))

    def release(self, cost: int) -> None:
        """Its holder is dead."""

    def used(self, charge: Charge, now: int) -> int:
        return -(-self.held(charge, now) // MICRO)

    def held(self, charge: Charge, now: int) -> int:
        """In millionths of a unit."""
        return self._drained(charge.limit, charge.window, now)[1]

    def idle(self, now: int) -> bool:
        """Nothing is lost when it is forgotten."""
        words = self._words
        held, limit = words[HELD], words[LIMIT]
        return not held or (limit > 0 and (now - words[AT]) // words[WINDOW] * limit >= held)

    def _drained(self, limit: int, window: int, now: int) -> tuple[int, int]:
        """Up to when, and what it holds then. Nobody can see whether it was written down."""
        words = self._words
        at = words[AT]
        ticks = (now - at) // window
        left = words[HELD] - ticks * limit
        return (at + ticks * window, left) if left > 0 else (now, 0)

    def _add(self, units: int, limit: int, window: int, now: int) -> int:
        """What it then holds, in units rounded up."""
        at, held = self._drained(limit, window, now)
        words = self._words
        end = FIRST + words[LENGTH]
        if end == FIRST:
            words[WINDOW] = window
        while end > FIRST and words[end - 1] >= held:
            end -= 2
        words[end] = now
        words[end + 1] = held
        end += 2
        if end == SIZE:
            end = self._merge()
        words[LENGTH] = end - FIRST
        words[LIMIT] = limit
        words[AT] = at
        held += units * MICRO
        words[HELD] = held if held < FULL else FULL
        return -(-held // MICRO)

    def _merge(self) -> int:
        """Of those that are nearest to the one before, as a ratio: the lower, and the later time. Where they end now.

        What was reserved between two of them fits into what is held at the first, as long as they are not far apart.
        """
        words = self._words
        ratios: list[float] = []
        before = words[FIRST + 1] + 1
        for at in range(FIRST + 3, SIZE, 2):
            low = words[at] + 1
            ratios.append(low / before)
            before = low
        near = sorted(ratios)[NEAREST - 1]
        at = end = FIRST + 2
        for ratio in ratios:
            if ratio <= near:
                words[end - 2] = words[at]
            else:
                if end < at:
                    words[end] = words[at]
                    words[end + 1] = words[at + 1]
                end += 2
            at += 2
        return end

    def _give_back(self, units: int, limit: int, window: int, since: int, now: int) -> None:
        """Of what was added at `since`, at most so many, and no more than has been in it ever since.

        A minimum at `since` itself does not count: it is of before, or of when what is returned was in already.
        """
        words = self._words
        at, held = self._drained(limit, window, now)
        later = end = FIRST + words[LENGTH]
        while later > FIRST and words[later - 2] > since:
            later -= 2
        amount = min(units * MICRO, held)
        least = held
        if later < end:
            least = words[later + 1]
            amount = min(amount, least)
        if not amount:
            return
        least -= amount
        words[AT] = at
        words[HELD] = held - amount
        to = later
        while to > FIRST and words[to - 1] >= least:
            to -= 2
        for low in range(later, end, 2):
            if to < low:
                words[to] = words[low]
            words[to + 1] = words[low + 1] - amount
            to += 2
        words[LENGTH] = to - FIRST
