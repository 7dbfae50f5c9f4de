"""What was sent a moment ago, beside an index that learns from the engines' own events, which come later.

Without it the requests of a burst that share a prompt would scatter: none of them is in any cache yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from penstock.balancing.prefix_index import Held, Index, Owners
from penstock.core.fleet import Replica

PREDICTED_FOR: Final = 2.0  # seconds; by then the engine has told what it cached
MOST: Final = 20_000  # prompts; the oldest are forgotten early


class Prediction:
    """One prompt on its way, and until when it is believed to be in the cache. Clock.now() seconds."""

    __slots__ = ("hashes", "replica", "until")

    def __init__(self, hashes: Sequence[int], replica: str, until: float) -> None:
        self.hashes, self.replica, self.until = hashes, replica, until


class Predicted:
    """An index that believes `base`, and for two seconds also that what was sent has been cached."""

    __slots__ = ("_base", "_owners", "_recent", "_until")

    def __init__(self, base: Index) -> None:
        self._base = base
        self._owners = Owners()
        self._recent: deque[Prediction] = deque()  # the oldest first
        self._until: dict[str, dict[int, float]] = {}  # by replica: hash -> when its last prediction ends

    def __len__(self) -> int:
        """Hashes that are predicted; may count some that have just expired."""
        return len(self._owners)

    def matched(self, hashes: Sequence[int], tokens: Sequence[int], now: float) -> Held:
        self._expire(now)
        known = self._base.matched(hashes, tokens, now)
        if not self._recent:
            return known
        sent = self._owners.walk(hashes, tokens)
        found = dict(known)
        for name, covered in sent.items():
            found[name] = max(found.get(name, 0), covered)
        return found

    def sent(self, hashes: Sequence[int], tokens: Sequence[int], prompt_tokens: int, to: Replica, now: float) -> None:
        self._expire(now)
        self._base.sent(hashes, tokens, prompt_tokens, to, now)
        if not hashes:
            return
        name, until = to.name, now + PREDICTED_FOR
        held = self._until.setdefault(name, {})
        bit = self._owners.bit(name)
        for h in hashes:
            if h not in held:
                self._owners.add(h, bit)
            held[h] = until
        self._recent.append(Prediction(hashes, name, until))
        if len(self._recent) > MOST:
            self._drop(self._recent.popleft())

    def forget(self, replica: str) -> None:
        self._base.forget(replica)
        held = self._until.pop(replica, None)
        if held is not None:
            bit = self._owners.bit(replica)
            for h in held:
                self._owners.drop(h, bit)
            self._owners.free(replica)
            self._recent = deque(one for one in self._recent if one.replica != replica)

    def _expire(self, now: float) -> None:
        recent = self._recent
        while recent and recent[0].until <= now:
            self._drop(recent.popleft())

    def _drop(self, one: Prediction) -> None:
        held = self._until[one.replica]
        bit = self._owners.bit(one.replica)
        for h in one.hashes:
            if held.get(h, one.until + 1.0) <= one.until:  # nothing newer says so too
                del held[h]
                self._owners.drop(h, bit)
