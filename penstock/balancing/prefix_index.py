"""Which replica probably holds which prompt prefix. Bounded, least recently used out first.

A guess from what we sent, not a report of what the engine kept: it may only tip the balance, never decide it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PrefixIndex:
    """Prefix hash -> a bit set of replicas. `capacity` is in hashes; about 150 bytes each."""

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._owners: OrderedDict[int, int] = OrderedDict()  # the longest unused first
        self._bit: dict[str, int] = {}  # replica name -> its bit; forgotten names free theirs

    def __len__(self) -> int:
        return len(self._owners)

    def longest(self, hashes: Sequence[int]) -> dict[str, int]:
        """How many blocks of the prefix each replica holds, counted from the start without a gap; none: not named."""
        depths: dict[int, int] = {}  # set of replicas -> how deep they all are; ever fewer, ever deeper
        alive = -1
        for depth, h in enumerate(hashes, 1):
            alive &= self._owners.get(h, 0)
            if not alive:
                break
            depths[alive] = depth
        return {name: depth for owners, depth in depths.items() for name, bit in self._bit.items() if owners & bit}

    def record(self, hashes: Sequence[int], replica: str) -> None:
        bit = self._bit.get(replica) or self._new_bit(replica)
        owners = self._owners
        for h in hashes:
            owners[h] = owners.pop(h, 0) | bit  # taken out and put back: the most recently used is last
        while len(owners) > self._capacity:
            owners.popitem(last=False)

    def forget(self, replica: str) -> None:
        """The replica is gone or was restarted: it holds nothing."""
        bit = self._bit.pop(replica, 0)
        if bit:
            self._owners = OrderedDict((h, o & ~bit) for h, o in self._owners.items() if o & ~bit)

    def _new_bit(self, replica: str) -> int:
        taken = 0
        for bit in self._bit.values():
            taken |= bit
        free = ~taken & (taken + 1)  # the lowest zero
        self._bit[replica] = free
        return free
