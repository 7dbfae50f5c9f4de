"""How many requests of each class run, and whether one more leaves the other classes what is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.balancing.queue_options import ClassOptions

RANKS: Final = (0, 1, 2, 3)


class Floors:
    """By rank: 0 is the highest class. A floor is room for so many requests that others leave free."""

    __slots__ = ("_options", "floors", "running", "slots")

    def __init__(self, options: Sequence[ClassOptions]) -> None:
        self._options = options
        self.slots: int = 0
        """Requests that all replicas together run at once; 0: not known, and then there are no floors."""
        self.floors: list[int] = [0 for _ in options]
        self.running: list[int] = [0 for _ in options]

    def resize(self, slots: int) -> None:
        """Of floors that do not fit together the higher classes' hold."""
        self.slots = left = slots
        for rank, options in enumerate(self._options):
            floor = min(left, options.slots + int(options.share * slots))
            self.floors[rank] = floor
            left -= floor

    def allow(self, rank: int, *, beyond: bool = False) -> bool:
        """Whether one more of this class may start; `beyond`: even where the room is others' by their floors."""
        if not self.slots:
            return True
        left = self.slots - sum(self.running)
        if left <= 0:
            return False
        if beyond or self.running[rank] < self.floors[rank]:
            return True
        for other in RANKS:
            if other != rank and self.running[other] < self.floors[other]:
                left -= self.floors[other] - self.running[other]
        return left > 0

    def started(self, rank: int) -> None:
        self.running[rank] += 1

    def ended(self, rank: int) -> None:
        self.running[rank] -= 1
        assert self.running[rank] >= 0, "more ends than starts"
