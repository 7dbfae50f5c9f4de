"""Answers to requests with an `idempotency-key`, for a while: who lost an answer asks again and gets the same, and
nothing is done twice. In memory only, because an answer may hold a new key.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from penstock.console.refusals import Denied
from penstock.core.clock import Clock

KEPT: Final = 600.0  # seconds
MOST: Final = 1_000
MAX_KEY: Final = 128

Answer = tuple[int, bytes, bytes]  # status, body, lines of headers


class Repeats:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[bytes, float, Answer | None]] = OrderedDict()

    def begin(self, who: str, key: str, asked: bytes) -> Answer | None:
        """What was answered before; None when it is to be done now, and then `end` must follow. `asked` is a digest of
        the request. Raises `Denied`."""
        if not 0 < len(key) <= MAX_KEY or not key.isprintable():
            raise Denied(400, "invalid", f"idempotency-key must be a text of at most {MAX_KEY} characters")
        now = self._clock.now()
        while self._known and next(iter(self._known.values()))[1] < now - KEPT:
            self._known.popitem(last=False)
        known = self._known.get((who, key))
        if known is None:
            if len(self._known) >= MOST:
                raise Denied(429, "too_many_requests", "too many requests with an idempotency-key; wait", 60)
            self._known[who, key] = asked, now, None
            return None
        before, _, answer = known
        if before != asked:
            raise Denied(409, "key_used", "this idempotency-key was used for another request")
        if answer is None:
            raise Denied(409, "in_progress", "the first request with this idempotency-key is not answered yet", 1)
        return answer

    def end(self, who: str, key: str, answer: Answer | None) -> None:
        """None: it was not done, and may be asked for again."""
        if answer is None:
            self._known.pop((who, key), None)
        elif (known := self._known.get((who, key))) is not None:
            self._known[who, key] = known[0], known[1], answer
