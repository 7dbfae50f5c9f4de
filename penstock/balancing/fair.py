"""Who of several tenants is next: the one that has been served least, in seconds of engine time.

Source: the virtual token counter (VTC, arXiv 2401.00588) with its lift; charged for uncached work only, for answers
while they are written, and with a difference within which locality decides, as in DLPM (arXiv 2501.14312). Counters
live as long as somebody waits, as in start-time fair queueing (Goyal et al. 1996): what was served while nobody had to
wait took nothing from anybody.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from math import inf
from typing import Final

from penstock.balancing.ticket import Ticket

KEPT: Final = 10_000  # tenants with a counter; beyond it one who has nothing waiting is forgotten


class Line:
    """One tenant: its tickets in the order in which they came, and its counter."""

    __slots__ = ("served", "tenant", "tickets", "weight", "work")

    def __init__(self, tenant: str, weight: float, served: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.served = served  # engine seconds / weight
        self.tickets: list[Ticket] = []
        self.work: float = 0.0  # engine seconds that they are expected to take


class Fair:
    """The tickets of one class that wait."""

    __slots__ = ("_weights", "backlog", "lines", "period", "waiting")

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self.lines: dict[str, Line] = {}
        self.backlog: dict[str, Line] = {}  # those with tickets
        self.waiting: int = 0  # tickets
        self.period: int = 0  # counts the times that there was nobody

    def least(self) -> float:
        """The smallest counter of those who wait; 0 when nobody does."""
        least = inf
        for line in self.backlog.values():
            if line.served < least:
                least = line.served
        return least if least < inf else 0.0

    def owed(self, ticket: Ticket, apart: float) -> Line | None:
        """The tenant that was served least, where it is owed more than this ticket's: the middle of its oldest prompt
        would come first, by so much that it counts. So neither a long prompt nor what is under way makes it two quanta.
        """
        backlog = self.backlog
        if not backlog or (len(backlog) == 1 and ticket.tenant in backlog):
            return None
        last = min(backlog.values(), key=_served)
        line = self.lines.get(ticket.tenant)
        if line is last:
            return None
        served = last.served if line is None else max(line.served, last.served)
        middle = served + 0.5 * ticket.prefill / self._weights.get(ticket.tenant, 1.0)
        first = last.served + 0.5 * last.tickets[0].prefill / last.weight
        return last if first + apart <= middle else None

    def join(self, ticket: Ticket) -> None:
        """`ticket.work` must not change while it waits, or it is taken out first."""
        line = self._line(ticket.tenant)
        if not line.tickets:
            line.served = max(line.served, self.least())  # the lift: nobody saves up by staying away
            self.backlog[line.tenant] = line
        if not line.tickets or line.tickets[-1].seq < ticket.seq:
            line.tickets.append(ticket)
        else:  # it was here before
            insort(line.tickets, ticket, key=_seq)
        line.work += ticket.work
        self.waiting += 1

    def part(self, ticket: Ticket) -> None:
        line = self.lines[ticket.tenant]
        at = bisect_left(line.tickets, ticket.seq, key=_seq)
        assert line.tickets[at] is ticket, "a ticket is taken out of where it waits"
        del line.tickets[at]
        line.work -= ticket.work
        self.waiting -= 1
        if not line.tickets:
            line.work = 0.0  # nothing of what rounding left
            del self.backlog[line.tenant]
            if not self.waiting:
                self.lines.clear()
                self.period += 1

    def charge(self, ticket: Ticket) -> None:
        """Its prompt, to its tenant. Free while nobody waits."""
        ticket.period = -1
        if self.waiting:
            self.give(ticket.tenant, ticket.prefill)
            ticket.period = self.period

    def give(self, tenant: str, seconds: float) -> None:
        """It is given so many engine seconds while somebody waits."""
        line = self._line(tenant)
        line.served += seconds / line.weight

    def correct(self, ticket: Ticket, actual: float) -> None:
        """Its prompt took `actual` engine seconds, and not what it was charged: settled while the same wait goes on."""
        if ticket.period == self.period:
            line = self.lines.get(ticket.tenant)
            if line is not None:
                line.served += (actual - ticket.prefill) / line.weight
        ticket.period = -1

    def ahead(self, tenant: str, work: float) -> float:
        """Engine seconds that are served before `tenant` has got through what it has waiting and `work` more: of every
        other tenant no more than its weight's share of that."""
        own = self.lines.get(tenant)
        mine = own.work if own is not None else 0.0
        turn = (mine + work) / self._weights.get(tenant, 1.0)
        total = mine
        for line in self.backlog.values():
            if line is not own:
                total += min(line.work, turn * line.weight)
        return total

    def total(self) -> float:
        """Engine seconds of work that wait."""
        total = 0.0
        for line in self.backlog.values():
            total += line.work
        return total

    def _line(self, tenant: str) -> Line:
        line = self.lines.get(tenant)
        if line is None:
            if len(self.lines) >= KEPT:
                for known in self.lines.values():
                    if not known.tickets:
                        del self.lines[known.tenant]
                        break
            line = self.lines[tenant] = Line(tenant, self._weights.get(tenant, 1.0), self.least())
        return line


def _seq(ticket: Ticket) -> int:
    return ticket.seq


def _served(line: Line) -> float:
    return line.served
