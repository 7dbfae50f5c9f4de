"""All caches of a fleet as one: what more could not be found."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PooledCache:
    """What one cache with the capacity of all would find: an upper bound for every way of spreading prompts."""

    __slots__ = ("_block_size", "_cache", "_capacity", "_found", "_held", "_total")

    def __init__(self, capacity: int, block_size: int) -> None:
        """`capacity` in tokens; the least recently used go first."""
        self._capacity = capacity
        self._block_size = block_size
        self._cache: OrderedDict[int, int] = OrderedDict()  # hash -> tokens of its own
        self._held = self._found = self._total = 0

    @property
    def reuse(self) -> float:
        """The share of prompt tokens that were found, 0..1."""
        return self._found / self._total if self._total else 0.0

    def see(self, hashes: Sequence[int], covers: Sequence[int], prompt: int) -> None:
        """A prompt arrives: its hashes, how many tokens each covers from the start, and all its tokens."""
        self._total += prompt
        if not hashes:
            return
        cache = self._cache
        matching = True
        before = 0
        for place, h in enumerate(hashes):
            end = covers[place]
            size = end - before
            if end > prompt - 1 or size < self._block_size:
                break  # the last token has to be computed, and only full blocks are kept
            before = end
            if h in cache:
                self._found += size if matching else 0
                cache.move_to_end(h)
            else:
                matching = False
                cache[h] = size
                self._held += size
        while self._held > self._capacity:
            self._held -= cache.popitem(last=False)[1]
