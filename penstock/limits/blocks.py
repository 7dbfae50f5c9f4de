"""Leasing a part of a shared limit, so that most requests need nobody else.

A holder (a worker, a machine) reserves a block of units on the shared counter, spends from it on its own, and asks for
more in good time. The shared counter counts a block when it is leased, so nothing is ever spent that was not counted.
But a rate drains on the counter while the units wait here: for a rate, what is used in one window may exceed the limit
by the blocks that are held, which is what `overshoot` states. For a budget it cannot.
"""

from __future__ import annotations

from typing import Final

SHARE: Final = 8  # all holders together hold at most a SHARE-th of a limit


def block(limit: int, free: int, holders: int) -> int:
    """How many units to lease: less as the limit nears, so that the last of it is not stranded with an idle holder."""
    return max(1, min(limit // (SHARE * holders), free // (2 * holders)))


def overshoot(limit: int, holders: int) -> int:
    """By how many units a leased rate may be exceeded in one window."""
    return holders * max(1, limit // (SHARE * holders))


class Block:
    """What one holder has of one limit. Whoever leases says so with `add`, and what comes back with `drop`."""

    __slots__ = ("_low", "left")

    def __init__(self) -> None:
        self.left = 0
        self._low = 0

    @property
    def wants(self) -> bool:
        """Three quarters are gone: time to lease again."""
        return self.left <= self._low

    def take(self, units: int) -> bool:
        if units > self.left:
            return False
        self.left -= units
        return True

    def settle(self, reserved: int, used: int) -> int:
        """What a request took and what it used. Units that were used beyond the block: charge them to the counter."""
        self.left += reserved - used
        beyond = max(0, -self.left)
        self.left += beyond
        return beyond

    def add(self, units: int) -> None:
        self.left += units
        self._low = self.left // 4

    def drop(self) -> int:
        """Everything that is left, to be given back to the shared counter."""
        left, self.left, self._low = self.left, 0, 0
        return left
