"""What waiting tickets would have each replica compute, by tenant."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.balancing.ticket import Ticket


class Wanted:
    """Seconds of prefill at the replica that was best for each ticket when it was last looked at."""

    __slots__ = ("_by_replica",)

    def __init__(self) -> None:
        self._by_replica: dict[str, dict[str, tuple[int, float]]] = {}  # replica: tenant: (tickets, seconds)

    def add(self, ticket: Ticket) -> None:
        replica = ticket.replica
        assert replica is not None, "who waits has been looked at"
        tenants = self._by_replica.get(replica.name)
        if tenants is None:
            tenants = self._by_replica[replica.name] = {}
        n, seconds = tenants.get(ticket.tenant, (0, 0.0))
        tenants[ticket.tenant] = (n + 1, seconds + ticket.prefill)

    def remove(self, ticket: Ticket) -> None:
        """Before it is considered for another replica."""
        replica = ticket.replica
        assert replica is not None, "who waits has been looked at"
        tenants = self._by_replica[replica.name]
        n, seconds = tenants[ticket.tenant]
        if n > 1:
            tenants[ticket.tenant] = (n - 1, seconds - ticket.prefill)
            return
        del tenants[ticket.tenant]
        if not tenants:
            del self._by_replica[replica.name]

    def by_others(self, replica: str, tenant: str) -> float:
        """Seconds that tenants other than this one wait to have computed there."""
        total = 0.0
        tenants = self._by_replica.get(replica)
        if tenants is not None:
            for name, wanted in tenants.items():
                if name != tenant:
                    total += wanted[1]
        return total

    def check(self, waiting: Iterable[Ticket]) -> None:
        """That it holds these, and nothing else."""
        counts: dict[tuple[str, str], int] = {}
        for ticket in waiting:
            assert ticket.replica is not None
            key = ticket.replica.name, ticket.tenant
            counts[key] = counts.get(key, 0) + 1
        held = {
            (replica, tenant): n for replica, tenants in self._by_replica.items() for tenant, (n, _) in tenants.items()
        }
        assert held == counts
