"""Where in an engine's stream of KV events a subscriber is, and what to do about what it missed. Pure.

A publisher numbers its batches from 0 and starts again when it is restarted. Batches are lost when nobody is connected
and when a subscriber is slow; some publishers keep the last ones and repeat them when asked.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

MAX_HELD: Final = 4_096  # batches that may come while a repeat is awaited


class Do(Enum):
    APPLY = "apply"
    SKIP = "skip"  # it was heard before
    HOLD = "hold"  # it came while a repeat is awaited: give it again after `repeated`
    REPEAT = "repeat"  # something is missing: ask for all from `next` on, and hold this one
    FORGET = "forget"  # something is missing and nobody repeats it: clear what is known, then apply
    RESTART = "restart"  # a publisher that was started anew: clear, then ask for all from 0, and hold this one


class Feed:
    """One publisher, as one subscriber hears it. `replays`: it repeats what it is asked for."""

    __slots__ = ("_heard", "_waiting", "last_ts", "next", "replays")

    def __init__(self, *, replays: bool) -> None:
        self.replays = replays
        self.next = 0  # the number of the batch that is to come
        self.last_ts = 0.0  # when the last one that was applied was published
        self._heard = -1  # the last number that came live, since the connection was made
        self._waiting = False

    def connected(self) -> bool:
        """There is a new connection, and everything is to be forgotten. True: ask for a repeat from 0."""
        self.next, self._heard, self.last_ts = 0, -1, 0.0
        self._waiting = self.replays
        return self._waiting

    def live(self, number: int, ts: float) -> Do:
        """A batch has come."""
        again = number <= self._heard or (number < self.next and ts > self.last_ts)
        self._heard = number
        if again:
            self.next, self.last_ts = 0, 0.0
            if self.replays:
                self._waiting = True
                return Do.RESTART
            self._applied(number, ts)
            return Do.FORGET
        if self._waiting:
            return Do.HOLD
        if number < self.next:
            return Do.SKIP
        if number > self.next and self.replays:
            self._waiting = True
            return Do.REPEAT
        lost = number > self.next and self.next > 0
        self._applied(number, ts)
        return Do.FORGET if lost else Do.APPLY

    def repeat(self, number: int, ts: float) -> Do:
        """A batch has come that was asked for."""
        if number < self.next:
            return Do.SKIP
        lost = number > self.next and self.next > 0  # older than what the publisher keeps
        self._applied(number, ts)
        return Do.FORGET if lost else Do.APPLY

    def repeated(self) -> None:
        """That is all of them, or no more will come. Give what was held to `live_again`, in its order."""
        self._waiting = False

    def live_again(self, number: int, ts: float) -> Do:
        """A batch that was held. What is missing now stays missing: it was asked for, and did not come."""
        return self.repeat(number, ts)

    def _applied(self, number: int, ts: float) -> None:
        self.next, self.last_ts = number + 1, ts
