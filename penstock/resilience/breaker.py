"""Circuit breaker: stop calling what keeps failing, then ask again, a little at a time. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from penstock.core.errors import FailureKind
from penstock.core.plan import CANCELLED, OK
from penstock.resilience.failures import CONSEQUENCES


class Phase(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerRule(msgspec.Struct, frozen=True, gc=False):
    failures: int = 5  # in a row, to open
    open_for: float = 10.0  # seconds
    probes: int = 1  # calls let through while half open


class Breaker(msgspec.Struct):
    """One replica's breaker. `allows` only reads; `on_*` are the only writers."""

    rule: BreakerRule
    failed_in_a_row: int = 0
    opened_at: float | None = None
    probing: int = 0
    closed: bool = True  # exactly when `opened_at` is None

    def phase(self, now: float) -> Phase:
        if self.opened_at is None:
            return Phase.CLOSED
        return Phase.OPEN if now < self.opened_at + self.rule.open_for else Phase.HALF_OPEN

    def allows(self, now: float) -> bool:
        if self.opened_at is None:
            return True
        return now >= self.opened_at + self.rule.open_for and self.probing < self.rule.probes

    def on_start(self, now: float) -> None:
        if self.opened_at is not None and now >= self.opened_at + self.rule.open_for:
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
        self.failed_in_a_row, self.opened_at, self.probing, self.closed = 0, None, 0, True

    def on_failure(self, now: float) -> None:
        self.failed_in_a_row += 1
        self.probing = 0
        if self.opened_at is not None or self.failed_in_a_row >= self.rule.failures:
            self.opened_at, self.closed = now, False

    def on_abandoned(self, now: float) -> None:
        """It ended in a way that says nothing about the replica: the caller left or was at fault, or a hedge won."""
        self.probing = max(0, self.probing - 1)
