"""What `/metrics` says of money and limits."""

from __future__ import annotations

from collections.abc import Callable
from math import isinf
from typing import TYPE_CHECKING

from penstock.app.alerts import Alerts
from penstock.core.clock import Clock
from penstock.gateway.issued_keys import IssuedKeys
from penstock.limits.charges import Over
from penstock.stores.bookkeeper import Bookkeeper
from penstock.telemetry.metrics import Counter, Registry

if TYPE_CHECKING:
    from penstock.stores.counters_fallback import FallbackCounters


class BooksMetrics:
    """Counted here, or read from whoever counts before each snapshot."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._overruns = registry.counter("penstock_limit_overshoot_total")
        self._reached = registry.counter("penstock_budget_thresholds_total")

    def over(self, over: Over) -> None:
        self._overruns.labels(over.charge.kind.name.lower()).inc()

    def reached(self, budget: str, percent: int) -> None:
        self._reached.labels(budget, str(percent)).inc()

    def read_counters(self, lost: Callable[[], int], fallback: FallbackCounters | None) -> None:
        self._read("penstock_counters_lost_total", lost)
        if fallback is not None:
            self._read("penstock_counters_alone_total", lambda: fallback.alone)
            self._registry.read_gauge("penstock_counters_unreachable", lambda: [((), int(not fallback.reachable))])

    def read_alerts(self, alerts: Alerts) -> None:
        self._read("penstock_budget_webhooks_failed_total", lambda: alerts.failed)

    def read_ledger(self, bookkeeper: Bookkeeper, clock: Clock, unsure: Callable[[], int]) -> None:
        self._read("penstock_ledger_written_rows_total", lambda: bookkeeper.written)
        self._read("penstock_ledger_lost_rows_total", lambda: bookkeeper.lost)
        self._read("penstock_ledger_set_aside_rows_total", lambda: bookkeeper.set_aside)
        self._read("penstock_ledger_failed_batches_total", lambda: bookkeeper.failures)
        self._read("penstock_ledger_crashed_rows_total", lambda: bookkeeper.crashed)
        self._read("penstock_ledger_unguarded_requests_total", lambda: bookkeeper.unguarded)
        gauge = self._registry.read_gauge
        gauge("penstock_ledger_waiting_rows", lambda: [((), bookkeeper.waiting)])
        gauge("penstock_ledger_behind_seconds", lambda: [((), bookkeeper.behind(clock.now()))])
        gauge("penstock_unverified_budgets", lambda: [((), unsure())])

    def read_keys(self, issued: IssuedKeys, clock: Clock, synced_at: Callable[[], float]) -> None:
        began = clock.now()

        def age() -> float:
            at = synced_at()
            return clock.now() - (began if isinf(at) else at)

        gauge = self._registry.read_gauge
        gauge("penstock_issued_keys", lambda: [((), len(issued))])
        gauge("penstock_unreadable_keys", lambda: [((), len(issued.unreadable))])
        gauge("penstock_issued_keys_age_seconds", lambda: [((), age())])

    def _read(self, name: str, value: Callable[[], int]) -> None:
        child: Counter = self._registry.counter(name).labels()

        def read() -> None:
            child.value = value()

        self._registry.before_snapshot(read)
