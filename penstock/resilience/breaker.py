"""Circuit breaker: stop calling what keeps failing, then ask again, a little at a time. Pure.

Only an answer that was whole is a success: a stream that breaks in its middle is a failure, also of a probe. Each
probe that fails doubles the time until the next one.
"""

from __future__ import annotations

from enum import StrEnum

from penstock.core.errors import FailureKind
from penstock.core.plan import CANCELLED, OK
from penstock.resilience.failures import CONSEQUENCES
from penstock.resilience.options import BreakerRule

__all__ = ["Breaker", "BreakerRule", "Phase"]


class Phase(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """One replica's breaker. `allows` only reads; `on_*` are the only writers."""

    __slots__ = ("closed", "failed_in_a_row", "failed_probes", "opened_at", "probing", "rule")

    def __init__(self, rule: BreakerRule) -> None:
        self.rule = rule
        self.failed_in_a_row = 0
        self.opened_at: float | None = None
        self.probing = 0
        self.failed_probes = 0  # in a row
        self.closed = True  # exactly when `opened_at` is None

    def opens_until(self) -> float:
        """When the next probe may go, while it is not closed. Clock.now() seconds."""
        assert self.opened_at is not None, "it is closed"
        rule = self.rule
        if not self.failed_probes:
            return self.opened_at + rule.open_for
        # of so many doublings each one is longer than any `longest`
        doubled = rule.open_for * 2.0 ** min(self.failed_probes, 64)
        return self.opened_at + max(rule.open_for, min(rule.longest, doubled))

    def phase(self, now: float) -> Phase:
        if self.opened_at is None:
            return Phase.CLOSED
        return Phase.OPEN if now < self.opens_until() else Phase.HALF_OPEN

    def allows(self, now: float) -> bool:
        if self.opened_at is None:
            return True
        return self.probing < self.rule.probes and now >= self.opens_until()

    def on_start(self, now: float) -> None:
        if self.opened_at is not None and now >= self.opens_until():
            self.probing += 1

    def on_end(self, ended: FailureKind | str, now: float) -> None:
        """An attempt is over: "ok", "cancelled", or why it failed."""
        if ended == OK:
            if self.failed_in_a_row or not self.closed:
                self.on_success(now)
        elif ended == CANCELLED or not CONSEQUENCES[FailureKind(ended)].trips:
            self.on_abandoned(now)
        else:
            self.on_failure(now)

    def on_success(self, now: float) -> None:
        """A whole answer came. One that began before the breaker opened closes it too: the replica is alive."""
        self.failed_in_a_row, self.opened_at, self.probing, self.failed_probes, self.closed = 0, None, 0, 0, True

    def on_failure(self, now: float) -> None:
        """While it is open these are of attempts that began before: they say what is known, and prolong nothing."""
        self.failed_in_a_row += 1
        if self.opened_at is None:
            if self.failed_in_a_row >= self.rule.failures:
                self.opened_at, self.closed = now, False
        elif self.probing:
            self.opened_at, self.probing = now, 0
            self.failed_probes += 1
        elif now >= self.opens_until():
            self.opened_at = now

    def on_abandoned(self, now: float) -> None:
        """It ended in a way that says nothing about the replica: the caller left or was at fault, or a hedge won."""
        self.probing = max(0, self.probing - 1)
