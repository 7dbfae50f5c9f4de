"""Counters of one process. No verb ever suspends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.core.clock import Clock
from penstock.limits.book import Book
from penstock.limits.charges import MICRO, Charge, Granted, Over, Verdict
from penstock.stores.base import Counters

HOLD = 60.0  # seconds


class MemoryCounters:
    """One holder's view of a `Book`. Several may share one: each keeps only its own reservations alive."""

    __slots__ = ("_book", "_clock", "_hold", "_mine", "_on_over")

    def __init__(
        self,
        clock: Clock,
        *,
        hold: float = HOLD,
        on_over: Callable[[Over], None] | None = None,
        book: Book | None = None,
    ) -> None:
        self._clock = clock
        self._hold = int(hold * MICRO)
        self._on_over = on_over
        self._book = Book() if book is None else book
        self._mine: dict[str, Granted] = {}

    def reserve_now(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        verdict = self._book.reserve(id, charges, int(self._clock.now() * MICRO), self._hold)
        if type(verdict) is Granted:
            self._mine[id] = verdict
        return verdict

    async def reserve(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        return self.reserve_now(id, charges)

    def settle(self, granted: Granted, costs: Sequence[int]) -> None:
        self._mine.pop(granted.id, None)
        self._tell(self._book.settle(granted, costs, self._now()))

    def spend(self, id: str, charges: Sequence[Charge]) -> None:
        self._tell(self._book.spend(id, charges, self._now()))

    async def seed(self, counter: str, settled: int, window: int) -> None:
        self._book.seed(counter, settled, window, self._now())

    async def used(self, charges: tuple[Charge, ...]) -> tuple[int, ...]:
        now = self._now()
        return tuple(self._book.used(charge, now) for charge in charges)

    async def tend(self) -> None:
        now = self._now()
        self._book.renew(self._mine, now, self._hold)
        self._book.expire(now)
        self._book.forget(now)

    async def close(self) -> None:
        self._mine.clear()

    def _now(self) -> int:
        return int(self._clock.now() * MICRO)

    def _tell(self, overs: tuple[Over, ...]) -> None:
        if self._on_over is not None:
            for over in overs:
                self._on_over(over)


_: type[Counters] = MemoryCounters
