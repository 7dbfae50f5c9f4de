"""Which replica a session's last prompt went to. A credit of cached tokens, never a pin. Bounded, idle ones expire."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

IDLE: Final = 3_600.0  # seconds without a request, after which a session is forgotten
MOST: Final = 100_000  # sessions; those longest idle are forgotten


class Session:
    __slots__ = ("replica", "tokens", "used_at")

    def __init__(self, replica: str, tokens: int, used_at: float) -> None:
        self.replica, self.tokens, self.used_at = replica, tokens, used_at


class Sessions:
    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[str, Session] = OrderedDict()  # the longest idle first

    def __len__(self) -> int:
        return len(self._known)

    def find(self, name: str, now: float) -> Session | None:
        known = self._known
        session = known.get(name)
        return session if session is not None and session.used_at + IDLE > now else None

    def bind(self, name: str, replica: str, tokens: int, now: float) -> None:
        """Its turns, `tokens` long until now, have been computed there."""
        known = self._known
        known[name] = Session(replica, tokens, now)
        known.move_to_end(name)
        while known:
            oldest = next(iter(known))
            if len(known) <= MOST and known[oldest].used_at + IDLE > now:
                return
            del known[oldest]

    def forget(self, replica: str) -> None:
        for name in [name for name, session in self._known.items() if session.replica == replica]:
            del self._known[name]
