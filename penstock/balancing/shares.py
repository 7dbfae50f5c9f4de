"""Who is served while answers are written: each replica's time, as it passes, in equal shares to those that run there.

What prompts take is charged when they are sent, so that much of the time that follows is nobody's.
"""

from __future__ import annotations

from math import inf
from typing import Final

from penstock.balancing.ticket import Ticket

GRAIN: Final = 0.02  # seconds; more often nothing is charged


class Running:
    """What runs at one replica."""

    __slots__ = ("answers", "n", "owed")

    def __init__(self) -> None:
        self.answers: dict[tuple[int, str], int] = {}  # that are being written, by class and tenant
        self.n = 0  # of them
        self.owed = 0.0  # seconds that are charged to prompts, and have not passed yet

    def add(self, key: tuple[int, str], n: int) -> None:
        self.n += n
        left = self.answers.get(key, 0) + n
        if left:
            self.answers[key] = left
        else:
            del self.answers[key]


class Shares:
    """`passed` says who got how much since `begin`, or since it was last asked; until `rest`."""

    __slots__ = ("_at", "_new", "_running")

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}  # by replica
        self._new: list[tuple[Running, tuple[int, str], int]] = []  # what has changed since it was last asked
        self._at = inf  # when that was; inf: nobody waits

    def begin(self, now: float) -> None:
        """Somebody waits, from now on."""
        self._at = now
        for running in self._running.values():
            running.owed = 0.0

    def rest(self) -> None:
        """Nobody waits any more."""
        self._at = inf
        self._apply()

    def sent(self, ticket: Ticket) -> None:
        """Its prompt is charged."""
        self._at_replica(ticket).owed += ticket.prefill

    def unsent(self, ticket: Ticket) -> None:
        """Its prompt will not be computed there after all."""
        running = self._at_replica(ticket)
        running.owed = max(0.0, running.owed - ticket.prefill)

    def began(self, ticket: Ticket) -> None:
        self._change(ticket, 1)

    def ended(self, ticket: Ticket) -> None:
        self._change(ticket, -1)

    def passed(self, now: float) -> list[tuple[int, str, float]]:
        """(class, tenant, engine seconds), each perhaps several times; nothing while it is too early to ask again."""
        seconds = now - self._at
        given: list[tuple[int, str, float]] = []
        if seconds < GRAIN:
            self._apply()
            return given
        self._at = now
        for running in self._running.values():
            written = seconds - running.owed
            if written <= 0.0:
                running.owed = -written
                continue
            running.owed = 0.0
            for (rank, tenant), n in running.answers.items():
                given.append((rank, tenant, written * n / running.n))
        self._apply()
        return given

    def _change(self, ticket: Ticket, n: int) -> None:
        running, key = self._at_replica(ticket), (ticket.rank, ticket.tenant)
        if self._at < inf:
            self._new.append((running, key, n))
        else:
            running.add(key, n)

    def _apply(self) -> None:
        for running, key, n in self._new:
            running.add(key, n)
        self._new.clear()

    def _at_replica(self, ticket: Ticket) -> Running:
        replica = ticket.replica
        assert replica is not None, "who is sent is sent somewhere"
        running = self._running.get(replica.name)
        if running is None:
            running = self._running[replica.name] = Running()
        return running

    def check(self, streaming: int) -> None:
        """That so many are being written."""
        assert streaming == sum([running.n for running in self._running.values()]) + sum([n for _, _, n in self._new])
        for running in self._running.values():
            assert running.n == sum(running.answers.values())
