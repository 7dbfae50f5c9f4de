"""Which replica holds how much of a prompt: what every index answers, and the approximate one.

A request's prefix hashes are chained: each stands for all of the prompt up to `tokens[i]`. So a replica holds a prefix
only if it holds every hash before it, and one walk along the chain, over bit sets of replicas, serves them all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from penstock.core.fleet import Replica

CAPACITY: Final = 500_000  # tokens that a replica is taken to cache, where its engine does not say


class Held(Protocol):
    """Replica -> how many tokens of a prompt it holds. A dict is one."""

    def get(self, replica: str, default: int, /) -> int: ...
    def keys(self) -> Iterable[str]:
        """Those that hold any."""
        ...

    def __getitem__(self, replica: str, /) -> int: ...


class Index(Protocol):
    """What is known of the replicas' prefix caches."""

    def matched(self, hashes: Sequence[int], tokens: Sequence[int], now: float) -> Held:
        """How many tokens of the prompt each replica holds, without a gap from its start.

        The i-th of `hashes` covers the first `tokens[i]` tokens; there may be more `tokens` than hashes.
        """
        ...

    def sent(self, hashes: Sequence[int], tokens: Sequence[int], prompt_tokens: int, to: Replica, now: float) -> None:
        """This prompt is on its way there, and likely to be in its cache for a while."""
        ...

    def forget(self, replica: str) -> None:
        """It is gone, or was started anew: it holds nothing."""
        ...


class Levels:
    """What a walk found: ever smaller sets of replicas that hold ever more. Names are made only of what is asked for,
    for a thousand replicas may hold the same system prompt."""

    __slots__ = ("_bit", "_covered", "_names", "_sets")

    def __init__(self, bit: dict[str, int], names: list[str]) -> None:
        self._bit, self._names = bit, names
        self._sets: list[int] = []  # each is part of the one before
        self._covered: list[int] = []  # tokens

    def get(self, replica: str, default: int, /) -> int:
        bit = self._bit.get(replica, 0)
        at = len(self._sets)
        while at:
            at -= 1
            if self._sets[at] & bit:
                return self._covered[at]
        return default

    def __getitem__(self, replica: str, /) -> int:
        covered = self.get(replica, 0)
        if not covered:
            raise KeyError(replica)
        return covered

    def keys(self) -> list[str]:
        return self.most(len(self._names))

    def items(self) -> list[tuple[str, int]]:
        return [(replica, self[replica]) for replica in self.keys()]

    def most(self, n: int) -> list[str]:
        """Of those that hold any, at most `n`: the ones that hold most."""
        found: list[str] = []
        seen, at = 0, len(self._sets)
        while at and len(found) < n:
            at -= 1
            left = self._sets[at] & ~seen
            seen |= left
            while left and len(found) < n:
                lowest = left & -left
                found.append(self._names[lowest.bit_length() - 1])
                left ^= lowest
        return found

    def add(self, replicas: int, covered: int) -> None:
        """They hold so much, which is more than what was said before."""
        if self._sets and self._sets[-1] == replicas:
            self._covered[-1] = covered
        else:
            self._sets.append(replicas)
            self._covered.append(covered)


class Owners:
    """Hash -> a bit set of replicas, and the walk along a chain of hashes."""

    __slots__ = ("_bit", "_names", "_owners")

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}
        self._bit: dict[str, int] = {}
        self._names: list[str] = []  # by the number of their bit; "" is free

    def __len__(self) -> int:
        return len(self._owners)

    def walk(self, hashes: Sequence[int], tokens: Sequence[int]) -> Levels:
        """`Index.matched`."""
        found, owners, alive = Levels(self._bit, self._names), self._owners, -1
        for place, h in enumerate(hashes):
            alive &= owners.get(h, 0)
            if not alive:
                break
            found.add(alive, tokens[place])
        return found

    def add(self, h: int, bit: int) -> None:
        self._owners[h] = self._owners.get(h, 0) | bit

    def drop(self, h: int, bit: int) -> None:
        left = self._owners[h] & ~bit
        if left:
            self._owners[h] = left
        else:
            del self._owners[h]

    def bit(self, replica: str) -> int:
        """The set of this replica alone; bits of those that were forgotten are used again."""
        bit = self._bit.get(replica)
        if bit is None:
            number = next((at for at, name in enumerate(self._names) if not name), len(self._names))
            self._names[number : number + 1] = [replica]
            bit = self._bit[replica] = 1 << number
        return bit

    def free(self, replica: str) -> None:
        """Nothing may have this bit any more."""
        self._names[self._bit.pop(replica).bit_length() - 1] = ""


class Cache:
    """What one replica is taken to hold: hash -> how many tokens it stands for, the longest unused first."""

    __slots__ = ("bit", "blocks", "tokens")

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.blocks: OrderedDict[int, int] = OrderedDict()
        self.tokens = 0  # the sum of `blocks`


class PrefixIndex:
    """The approximate index: a guess from what we sent, bounded for each replica by what its engine has room for.

    A prompt goes in from its tail to its head, so the least recently used end of a replica's list is a tail, and a head
    leaves only after all that hangs on it: what is left always counts.
    """

    __slots__ = ("_caches", "_owners")

    def __init__(self) -> None:
        self._owners = Owners()
        self._caches: dict[str, Cache] = {}

    def __len__(self) -> int:
        """Hashes that at least one replica holds."""
        return len(self._owners)

    def matched(self, hashes: Sequence[int], tokens: Sequence[int], now: float) -> Held:
        return self._owners.walk(hashes, tokens)

    def sent(self, hashes: Sequence[int], tokens: Sequence[int], prompt_tokens: int, to: Replica, now: float) -> None:
        """The last hash is charged with what is left of the prompt behind it, until a longer prompt goes on from it."""
        if not hashes:
            return
        owners = self._owners
        cache = self._caches.get(to.name)
        if cache is None:
            cache = self._caches[to.name] = Cache(owners.bit(to.name))
        blocks, held = cache.blocks, cache.tokens
        place = len(hashes) - 1
        end = max(prompt_tokens, tokens[place])
        while place >= 0:
            h = hashes[place]
            start = tokens[place - 1] if place else 0
            before = blocks.get(h, -1)
            if before < 0:
                owners.add(h, cache.bit)
                blocks[h] = end - start
                held += end - start
            else:
                blocks[h] = end - start
                blocks.move_to_end(h)
                held += end - start - before
            end = start
            place -= 1
        capacity = to.kv_tokens or CAPACITY
        while held > capacity:
            oldest, size = blocks.popitem(last=False)
            owners.drop(oldest, cache.bit)
            held -= size
        cache.tokens = held

    def forget(self, replica: str) -> None:
        cache = self._caches.pop(replica, None)
        if cache is not None:
            for h in cache.blocks:
                self._owners.drop(h, cache.bit)
            self._owners.free(replica)
