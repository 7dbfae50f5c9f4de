"""What the holders of shared counters hold: their reservations on gauges and budgets, each in a slot of the file.

A holder's are a chain, which only it makes longer. So what is held comes back at once when the holder's process has
ended, which its lock tells, and after `hold` when it has stopped without an end.
"""

from __future__ import annotations

from typing import Final

from penstock.limits.budget import IN_USE, RESERVED
from penstock.limits.charges import Granted, Kind
from penstock.stores.base import CountersUnavailable
from penstock.stores.counters_shared_slots import (
    CHAINS,
    HOLDERS,
    KIND,
    NEXT,
    RESERVATION,
    SLOT,
    STATE,
    UNUSED,
    Slots,
    span,
)

AT_ONCE: Final = 256  # reservations or counters looked at under one lock: some 0.1 ms

# The words of a reservation.
SERIAL: Final = STATE  # of its holder's, never twice; 0 when there is none
EXPIRES_AT: Final = STATE + 1  # microseconds
N_HELD: Final = STATE + 2
HELD: Final = STATE + 3  # (place of a gauge or budget, cost)
MOST_HELD: Final = (SLOT - HELD) // 2


class Reservations:
    """`hold` is in microseconds. A predecessor with the same number is buried here; raises `CountersUnavailable`."""

    def __init__(self, slots: Slots, hold: int) -> None:
        self._slots = slots
        self._words = slots.words
        self._hold = hold
        self._free: list[int] = []  # places of ours
        self._serial = 0
        self._bury(slots.chain)

    def free_place(self, held: list[int]) -> int:
        """For a reservation of (place, cost, place, cost ...); it stays free until `begin`. Under the lock, before
        anything is in the journal. Raises `CountersUnavailable`.
        """
        if len(held) > 2 * MOST_HELD:
            raise CountersUnavailable(f"a request on more than {MOST_HELD} budgets and limits of concurrency")
        if not self._free:
            self._free.append(self._slots.allocate(self._slots.chain, RESERVATION))
        return self._free[-1]

    def begin(self, held: list[int], expires_at: int) -> int:
        """At the place that was told last, which is in the journal. Its serial."""
        words, at = self._words, self._free.pop()
        self._serial = serial = self._serial + 1
        words[at + SERIAL] = serial
        words[at + EXPIRES_AT] = expires_at
        words[at + N_HELD] = len(held)
        to = at + HELD
        for word in held:
            words[to] = word
            to += 1
        return serial

    def holds(self, at: int, serial: int) -> bool:
        """It has not been let go."""
        return at != 0 and self._words[at + SERIAL] == serial

    def end(self, at: int) -> None:
        """It is in the journal, and `holds`."""
        self._words[at + SERIAL] = 0
        self._free.append(at)

    def renew(self, mine: list[tuple[Granted, int, int]]) -> None:
        """Each with its place and serial. Raises `CountersUnavailable`."""
        words = self._words
        for first in range(0, len(mine), AT_ONCE):
            now = self._slots.lock()
            try:
                for granted, at, serial in mine[first : first + AT_ONCE]:
                    if words[at + SERIAL] == serial:
                        granted.expires_at = words[at + EXPIRES_AT] = now + self._hold
            finally:
                self._slots.unlock()

    def look_after(self) -> None:
        """Let go of what the dead had, and of what the living have not kept. Raises `CountersUnavailable`."""
        for number in range(HOLDERS):
            chain = CHAINS + number
            if chain == self._slots.chain:
                self._free = self._expire(chain)
            elif self._words[chain]:
                self._look_at_other(number, chain)

    def check(self) -> None:
        """Under the lock: what is held is what the reservations say. Looks at everything."""
        words, held = self._words, dict[int, int]()
        for chain in range(CHAINS, CHAINS + HOLDERS):
            at = words[chain]
            while at:
                if words[at + SERIAL]:
                    for word in range(at + HELD, at + HELD + words[at + N_HELD], 2):
                        held[words[word]] = held.get(words[word], 0) + words[word + 1]
                at = words[at + NEXT]
        for at in range(self._slots.first, words[UNUSED], SLOT):
            if words[at + KIND] == 1 + Kind.GAUGE:
                assert words[at + STATE + IN_USE] == held.pop(at, 0), f"the gauge at {at}"
            elif words[at + KIND] == 1 + Kind.BUDGET:
                assert words[at + STATE + RESERVED] == held.pop(at, 0), f"the budget at {at}"
        assert not held, f"reservations on nothing: {held}"

    def _look_at_other(self, number: int, chain: int) -> None:
        claim = self._slots.claim(number)
        if claim < 0:
            self._expire(chain)
            return
        try:
            self._bury(chain)
        finally:
            self._slots.unclaim(claim)

    def _expire(self, chain: int) -> list[int]:
        """The places in this chain that hold no reservation any more."""
        words = self._words
        free: list[int] = []
        at = words[chain]
        while at:
            now = self._slots.lock()
            try:
                for _ in range(AT_ONCE):
                    if not at or words[at + KIND] != RESERVATION:  # of one that was buried in between
                        return free
                    if words[at + SERIAL] and words[at + EXPIRES_AT] <= now:
                        self._let_go(at)
                    if not words[at + SERIAL]:
                        free.append(at)
                    at = words[at + NEXT]
            except BaseException:
                self._slots.roll_back()
                raise
            finally:
                self._slots.unlock()
        return free

    def _bury(self, chain: int) -> None:
        """Let go of everything in this chain, whose holder is dead, and free its slots."""
        words, slots = self._words, self._slots
        while words[chain]:
            slots.lock()
            try:
                for _ in range(AT_ONCE):
                    at = words[chain]
                    if not at:
                        return
                    if words[at + SERIAL]:
                        self._let_go(at)
                    slots.free(at, chain)
            except BaseException:
                slots.roll_back()
                raise
            finally:
                slots.unlock()

    def _let_go(self, at: int) -> None:
        words, slots = self._words, self._slots
        held = [words[at + HELD + n] for n in range(words[at + N_HELD])]
        slots.save([span(at), *map(span, held[::2])])
        for n in range(0, len(held), 2):
            slots.counter(held[n]).release(held[n + 1])
        words[at + SERIAL] = 0
        slots.commit()
