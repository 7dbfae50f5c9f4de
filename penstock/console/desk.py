"""Where what the gateway's workers tell comes together, in the process that serves the console.

What ended is as late as the workers' batches (a quarter of a second), counts are as late as their snapshots (a second),
and the state of replicas as their last look. Counts are exact; single requests are a sample where there are many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from penstock.console.feed import Feed
from penstock.console.fleet import Fleet
from penstock.console.lines import line
from penstock.console.reports import Ended, FleetSeen, OpenSeen
from penstock.console.signals import STEPS, Signals
from penstock.core.clock import Clock
from penstock.core.outcome import Outcome
from penstock.pricing.bill import UNPRICED, Cost
from penstock.stores.outcomes import Outcomes
from penstock.telemetry.catalogue import CATALOGUE, Metric
from penstock.telemetry.metrics import Snapshot
from penstock.telemetry.spans import Served

RECENT: Final = 300.0  # seconds that are told of each replica
MOST_RECENT: Final = 20_000  # attempts


class InFlight(Protocol):
    """The requests that are open now, in all workers."""

    async def look(self, only: Mapping[str, str], most: int) -> Sequence[OpenSeen | None]:
        """By worker, as `console.open_requests`; None: that one did not say."""
        ...

    async def cancel(self, id: str) -> bool:
        """False: there is none, or it has been answered."""
        ...


class Desk:
    """`outcomes` None: single requests are shown as they end, and not kept."""

    def __init__(self, clock: Clock, outcomes: Outcomes | None = None, catalogue: Iterable[Metric] = CATALOGUE) -> None:
        self._clock = clock
        self.outcomes = outcomes
        self.fleet = Fleet(clock)
        self.signals = Signals(catalogue, None if outcomes is None else outcomes.offer_signals)
        self.feed = Feed(self.now)
        self.served: dict[str, Served] = {}  # by deployment
        self.bill: Callable[[Outcome], Cost] = _unpriced  # what an answer would cost now
        self.in_flight: InFlight | None = None
        self.n_left_out = 0  # requests that ended and were not sent, being nothing special
        self._recent: deque[tuple[float, str, bool, float | None, float]] = deque(maxlen=MOST_RECENT)

    async def open(self) -> None:
        """Know again what was known before a restart. Raises `StoreFailed`."""
        if self.outcomes is not None:
            now = self._clock.wall()
            for step, most in STEPS.items():
                self.signals.restore(step, await self.outcomes.signals(step, int(now - step * most)))

    # --- what the workers tell ---

    def ended(self, batch: Ended) -> None:
        self.n_left_out += batch.n_left_out
        if self.outcomes is not None:
            self.outcomes.offer(batch.requests)
        if self.feed.listeners:
            self.feed.hear([line(kept) for kept in batch.requests], batch.n_left_out + batch.n_dropped)
        for kept in batch.requests:
            one = kept.outcome
            weight = batch.weight if kept.why in ("no", "ratio", "capped") else 1.0
            for attempt in one.attempts:
                if attempt.ended != "cancelled":
                    first = attempt.first_token_after
                    took = None if first is None or not one.stream else first - attempt.started_after
                    at = one.received_at + attempt.ended_after
                    self._recent.append((at, attempt.replica, attempt.ended != "ok", took, weight))

    def seen(self, worker: str, view: FleetSeen) -> None:
        self.fleet.seen(worker, view)

    def gone(self, worker: str) -> None:
        self.fleet.gone(worker)

    def counted(self, snapshot: Snapshot) -> None:
        """What all workers together have counted, those that ended among them."""
        self.signals.tick(snapshot, self.fleet.in_flight, self._clock.wall())

    # --- what people ask ---

    def live(self) -> dict[str, Any]:
        ready, replicas = self.fleet.ready()
        requests, _, tokens = self.signals.rates()
        return {
            "in_flight": self.fleet.in_flight,
            "queued": self.fleet.queued,
            "requests_per_second": requests,
            "tokens_per_second": tokens,
            "replicas_ready": ready,
            "replicas": replicas,
            "workers": self.fleet.workers,
        }

    def now(self) -> dict[str, Any]:
        """The event of each second."""
        requests, errors, tokens = self.signals.rates()
        return {
            "at": self._clock.wall(),
            "in_flight": self.fleet.in_flight,
            "queued": self.fleet.queued,
            "requests_per_second": requests,
            "tokens_per_second": tokens,
            "errors_per_second": errors,
        }

    def fleet_told(self) -> dict[str, Any]:
        recent = self._by_replica()
        return self.fleet.told(recent.get)

    def _by_replica(self) -> dict[str, Mapping[str, Any]]:
        since = self._clock.wall() - RECENT
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        sums: dict[str, tuple[list[float], list[tuple[float, float]]]] = {}
        for _, replica, failed, took, weight in self._recent:
            counts, times = sums.setdefault(replica, ([0.0, 0.0], []))
            counts[0] += weight
            counts[1] += weight if failed else 0.0
            if took is not None:
                times.append((took, weight))
        return {
            name: {
                "requests": round(counts[0]),
                "errors": round(counts[1]),
                "ttft_p50": _quantile(times, 0.5),
                "ttft_p95": _quantile(times, 0.95),
            }
            for name, (counts, times) in sums.items()
        }


def _unpriced(outcome: Outcome) -> Cost:
    return UNPRICED


def _quantile(weighted: list[tuple[float, float]], q: float) -> float | None:
    """Of values with weights."""
    left = q * sum(weight for _, weight in weighted)
    for value, weight in sorted(weighted):
        left -= weight
        if left <= 0.0:
            return value
    return max((value for value, _ in weighted), default=None)
