"""Counters that the processes of one host share, in a mapped file. No verb ever suspends.

The arithmetic is that of `limits.book`, on words of the file in place of lists. Each verb changes all that it changes,
or nothing, wherever its process dies. See docs/decisions/0018.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from penstock.core.clock import Clock
from penstock.limits.book import Counter, refusal
from penstock.limits.budget import Budget
from penstock.limits.charges import MICRO, Charge, Granted, Kind, Over, Unseeded, Verdict
from penstock.stores.base import Counters, CountersUnavailable
from penstock.stores.counters_memory import HOLD
from penstock.stores.counters_shared_reservations import AT_ONCE, Reservations
from penstock.stores.counters_shared_slots import (
    CURSOR,
    KIND,
    MOST_SAVED,
    MOST_SLOTS,
    NAME,
    RESERVATION,
    SLOT,
    UNUSED,
    Slots,
    span,
)

KNOWN: Final = 20_000  # counters whose places are remembered
MOST_CHARGES: Final = MOST_SAVED - 1  # and the reservation
MOST_PENDING: Final = 100_000  # settlements that wait for the lock; beyond that the oldest are lost, and counted
LOOK_AT: Final = 1024  # counters, or waiting settlements, in one `tend`
SOME: Final = 16  # waiting settlements in one reservation

_RATE: Final = Kind.RATE
_BUDGET: Final = Kind.BUDGET


class _Place:
    """Where a counter is, as long as its name is there."""

    __slots__ = ("at", "counter", "name", "name_at", "span")

    def __init__(self, at: int, name: int, counter: Counter) -> None:
        self.at = at
        self.name_at = at + NAME
        self.name = name
        self.span = span(at)
        self.counter = counter


_Pending = tuple[str, Sequence[Charge], Sequence[int], int, int, int]


class SharedCounters:
    """One holder, which is a process: give each its own, made after any fork. For one thread.

    `lost` counts settlements for which there was no place or that waited too long; the ledger still has them.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        hold: float = HOLD,
        on_over: Callable[[Over], None] | None = None,
        most: int = MOST_SLOTS,
    ) -> None:
        """`clock` counts alike in all the processes, as the monotonic one of a host does. Raises as `Slots` does."""
        self.lost = 0
        self._hold = int(hold * MICRO)
        self._on_over = on_over
        self._known: dict[str, _Place] = {}
        self._mine: dict[str, tuple[Granted, int, int]] = {}  # by id: its place and serial as well
        self._pending: deque[_Pending] = deque()
        self._slots = Slots(path, clock, most)
        self._words = self._slots.words
        self._reservations = Reservations(self._slots, self._hold)

    @property
    def pending(self) -> int:
        """Settlements that wait for the lock."""
        return len(self._pending)

    @property
    def slots(self) -> tuple[int, int]:
        """Slots in use, and all there are."""
        return self._slots.in_use, self._slots.most

    def reserve_now(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        assert id not in self._mine, f"reservation {id} is still open"
        if len(charges) > MOST_CHARGES:
            raise CountersUnavailable(f"a request on more than {MOST_CHARGES} limits")
        if self._pending:
            self._catch_up(SOME)
        words, slots, known, reservations = self._words, self._slots, self._known, self._reservations
        now = slots.lock()
        try:
            places: list[_Place] = []
            change: list[slice] = []
            held: list[int] = []
            for charge in charges:
                place = known.get(charge.counter)
                if place is None or words[place.name_at] != place.name:
                    place = self._find(charge)
                    if place is None:
                        return self._unseeded(charges)
                places.append(place)
                change.append(place.span)
                if charge.kind is not _RATE and charge.cost:
                    held.append(place.at)
                    held.append(charge.cost)
            for n, charge in enumerate(charges):
                if not places[n].counter.fits(charge, now):
                    return refusal(charges, [place.counter for place in places], now)
            at = reservations.free_place(held) if held else 0
            if at:
                change.append(span(at))
            slots.save(change)
            used = tuple([places[n].counter.take(charge, now) for n, charge in enumerate(charges)])
            granted = Granted(id, charges, used, now, now + self._hold)
            if at:
                self._mine[id] = granted, at, reservations.begin(held, granted.expires_at)
            return granted
        except BaseException:
            slots.roll_back()
            raise
        finally:
            slots.unlock()

    async def reserve(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        return self.reserve_now(id, charges)

    def settle(self, granted: Granted, costs: Sequence[int]) -> None:
        if granted.settled:
            return
        granted.settled = True
        _, at, serial = self._mine.pop(granted.id, (granted, 0, 0))
        self._count(granted.id, granted.charges, costs, granted.since, at, serial)

    def spend(self, id: str, charges: Sequence[Charge]) -> None:
        free = [Charge(c.counter, c.kind, c.limit, 0, c.window, c.soft) for c in charges]
        self._count(id, free, [charge.cost for charge in charges], 0, 0, 0)

    async def seed(self, counter: str, settled: int, window: int) -> None:
        now = self._slots.lock()
        try:
            at = self._slots.find(counter) or self._slots.begin(counter, 1 + _BUDGET)
            assert self._words[at + KIND] == 1 + _BUDGET, counter
            self._slots.save([span(at)])
            Budget(self._slots.state(at)).seed(settled, window, now)
        except BaseException:
            self._slots.roll_back()
            raise
        finally:
            self._slots.unlock()

    async def used(self, charges: tuple[Charge, ...]) -> tuple[int, ...]:
        now = self._slots.lock()
        try:
            found = [(self._slots.find(charge.counter), charge) for charge in charges]
            return tuple([self._slots.counter(at).used(charge, now) if at else 0 for at, charge in found])
        finally:
            self._slots.unlock()

    async def tend(self) -> None:
        self._catch_up(LOOK_AT)
        self._reservations.renew(list(self._mine.values()))
        self._reservations.look_after()
        self._forget()

    def check(self) -> None:
        """What is held is what the reservations say, and all slots are where they belong. Looks at everything: slow."""
        self._slots.lock()
        try:
            self._slots.check()
            self._reservations.check()
        finally:
            self._slots.unlock()

    async def close(self) -> None:
        """Others let go of what this holder has reserved, as soon as they look."""
        try:
            self._catch_up(len(self._pending))
        except CountersUnavailable:
            self.lost += len(self._pending)
        self._known.clear()
        self._mine.clear()
        self._slots.close()

    def _count(
        self, id: str, charges: Sequence[Charge], costs: Sequence[int], since: int, at: int, serial: int
    ) -> None:
        assert len(charges) == len(costs) <= MOST_CHARGES, f"{id}: {len(costs)} costs for {len(charges)} charges"
        try:
            overs = self._settle(id, charges, costs, since, at, serial)
        except CountersUnavailable:
            self._pending.append((id, charges, costs, since, at, serial))
            if len(self._pending) > MOST_PENDING:
                self._pending.popleft()
                self.lost += 1
        else:
            self._tell(overs)

    def _settle(
        self, id: str, charges: Sequence[Charge], costs: Sequence[int], since: int, at: int, serial: int
    ) -> list[Over]:
        words, slots, known, reservations = self._words, self._slots, self._known, self._reservations
        now = slots.lock()
        try:
            places: list[_Place | None] = []
            change: list[slice] = []
            for charge in charges:
                place = known.get(charge.counter)
                if place is None or words[place.name_at] != place.name:
                    place = self._find_or_lose(charge)
                places.append(place)
                if place is not None:
                    change.append(place.span)
            reserved = reservations.holds(at, serial)
            if reserved:
                change.append(span(at))
            slots.save(change)
            overs = []
            for n, charge in enumerate(charges):
                place = places[n]
                if place is not None:
                    by = place.counter.settle(charge, costs[n], since, now, reserved)
                    if by:
                        overs.append(Over(id, charge, by))
            if reserved:
                reservations.end(at)
            return overs
        except BaseException:
            slots.roll_back()
            raise
        finally:
            slots.unlock()

    def _find(self, charge: Charge) -> _Place | None:
        """None: a budget that nobody has seeded. Raises `CountersUnavailable`."""
        slots = self._slots
        at = slots.find(charge.counter)
        if not at:
            if charge.kind is _BUDGET:
                return None
            at = slots.begin(charge.counter, 1 + charge.kind)
        place = _Place(at, self._words[at + NAME], slots.counter(at))
        known = self._known
        known[charge.counter] = place
        if len(known) > KNOWN:
            del known[next(iter(known))]
        return place

    def _find_or_lose(self, charge: Charge) -> _Place | None:
        """None too when there is no slot for what was used."""
        try:
            return self._find(charge)
        except CountersUnavailable:
            self.lost += 1
            return None

    def _unseeded(self, charges: tuple[Charge, ...]) -> Unseeded:
        missing = [c.counter for c in charges if c.kind is _BUDGET and not self._slots.find(c.counter)]
        return Unseeded(tuple(missing))

    def _tell(self, overs: list[Over]) -> None:
        if self._on_over is not None:
            for over in overs:
                self._on_over(over)

    def _catch_up(self, most: int) -> None:
        """What could not be settled when it should have been. Raises `CountersUnavailable`."""
        for _ in range(min(most, len(self._pending))):
            waiting = self._pending.popleft()
            try:
                overs = self._settle(*waiting)
            except CountersUnavailable:
                self._pending.appendleft(waiting)
                raise
            self._tell(overs)

    def _forget(self) -> None:
        """Look at some of the counters, in turn with all other processes, and drop those that nobody uses."""
        words, slots = self._words, self._slots
        for _ in range(LOOK_AT // AT_ONCE):
            now = self._slots.lock()
            try:
                for _ in range(AT_ONCE):
                    at = words[CURSOR]
                    if at >= words[UNUSED]:
                        words[CURSOR] = slots.first
                        return
                    if 0 < words[at + KIND] < RESERVATION and slots.counter(at).idle(now):
                        slots.free_counter(at)
                    words[CURSOR] = at + SLOT
            except BaseException:
                slots.roll_back()
                raise
            finally:
                slots.unlock()


_: type[Counters] = SharedCounters
