"""How fast waiting work is sent, for predictions: learned, from what one replica does by definition."""

from __future__ import annotations

from math import exp
from typing import Final

BELIEVED: Final = 5.0  # seconds for which a replica's one engine second per second counts, beside what was seen
REMEMBERED: Final = 30.0  # seconds after which what was seen counts for 1/e


class Pace:
    """Engine seconds of work that are sent in a second, while somebody waits."""

    __slots__ = ("_at", "_seen", "_sent")

    def __init__(self) -> None:
        self._sent = 0.0  # engine seconds, fading
        self._seen = 0.0  # seconds in which that was, fading
        self._at = 0.0

    def begin(self, now: float) -> None:
        """Somebody waits, from now on."""
        self._at = now

    def sent(self, work: float, now: float) -> None:
        """While somebody waited."""
        passed = max(0.0, now - self._at)
        fading = exp(-passed / REMEMBERED)
        self._sent = self._sent * fading + work
        self._seen = self._seen * fading + passed
        self._at = now

    def seconds(self, work: float, replicas: int, now: float, waiting: bool) -> float:
        """Until so much has been sent to so many replicas. `waiting`: somebody does, so that nothing sent is slow."""
        if work <= 0.0:
            return 0.0
        seen = self._seen + (max(0.0, now - self._at) if waiting else 0.0)
        return work * (seen + BELIEVED) / (self._sent + BELIEVED * replicas)
