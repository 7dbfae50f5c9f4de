"""Tickets that were sent and have no first token yet: those that may still be stopped for a higher class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.balancing.ticket import Ticket

MOST_PREEMPTED: Final = 2  # times that one ticket is


class Unstarted:
    __slots__ = ("_by_replica",)

    def __init__(self) -> None:
        self._by_replica: dict[str, list[Ticket]] = {}

    def __iter__(self) -> Iterator[Ticket]:
        for tickets in self._by_replica.values():
            yield from tickets

    def add(self, ticket: Ticket) -> None:
        replica = ticket.replica
        assert replica is not None, "who is sent is sent somewhere"
        tickets = self._by_replica.get(replica.name)
        if tickets is None:
            tickets = self._by_replica[replica.name] = []
        tickets.append(ticket)

    def remove(self, ticket: Ticket) -> None:
        replica = ticket.replica
        assert replica is not None, "who was sent was sent somewhere"
        tickets = self._by_replica[replica.name]
        tickets.remove(ticket)
        if not tickets:
            del self._by_replica[replica.name]

    def victim(self, ticket: Ticket, anywhere: bool) -> Ticket | None:
        """Whom to stop for it, at its replica or anywhere: the lowest, and of those the latest, who has got least."""
        best: Ticket | None = None
        replica = ticket.replica
        assert replica is not None, "who waits has been looked at"
        for tickets in self._by_replica.values() if anywhere else (self._by_replica.get(replica.name, []),):
            for other in tickets:
                if other.rank <= ticket.rank or other.preempted >= MOST_PREEMPTED:
                    continue
                if best is None or (other.rank, other.seq) > (best.rank, best.seq):
                    best = other
        return best
