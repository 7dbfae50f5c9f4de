"""How many attempts a replica is given at once: found out from how long its first tokens take.

A gradient limiter: more while it is as quick as at its best, fewer when it is slower. Source of the form: Netflix's
Gradient2 and Envoy's adaptive concurrency filter. Two things differ. What is compared is observed / predicted time to
the first token, which has no unit, so long prompts are not congestion. And the best is not a long average, which under
lasting overload takes the overload for normal and drifts up: it rises only while little is in flight, when slowness
cannot be the fault of too much.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Final

from penstock.core.errors import FailureKind
from penstock.resilience.breaker import Breaker
from penstock.resilience.options import ConcurrencyRule
from penstock.resilience.outliers import slowness

FAST: Final = 0.1  # weight of a sample in the short average
SLOW: Final = 0.01  # in the best, upwards; downwards it follows at once
WARM_UP: Final = 10  # samples that are averaged before any of them counts
FEW: Final = 4  # in flight: so little is not the reason; where a gradient of a half leaves the limit
ENOUGH: Final = 20  # samples in a row with so few, before what they take is the best that there is
DROPPED: Final = 0.9  # what is left of the limit when the replica says that it is too much


class Concurrency:
    """One replica's limit. `on_*` are the only writers; `inflight` is what is open there, this attempt included."""

    __slots__ = ("_best", "_few", "_limit", "_samples", "_short", "rule")

    def __init__(self, rule: ConcurrencyRule) -> None:
        assert 1 <= rule.least <= rule.start <= rule.most
        self.rule = rule
        self._limit = float(rule.start)
        self._samples = 0
        self._short = 0.0  # ratio of observed to predicted, lately
        self._best = 0.0  # what it is while it has little to do
        self._few = 0  # samples in a row with few in flight

    @property
    def limit(self) -> int:
        return int(self._limit)

    def allows(self, inflight: int) -> bool:
        """One more beside those."""
        return inflight < int(self._limit)

    def on_first_token(self, predicted: float, took: float, inflight: int) -> None:
        """Seconds. `predicted` <= 0: nobody knew."""
        if predicted <= 0.0:
            return
        ratio = exp(slowness(took, predicted))
        self._samples += 1
        if self._samples <= WARM_UP:
            self._short += (ratio - self._short) / self._samples
            self._best = self._short
            return
        self._short += FAST * (ratio - self._short)
        if self._short < self._best:
            self._best = self._short
        elif inflight * 2 <= self._limit:
            self._best += SLOW * (self._short - self._best)
        self._few = self._few + 1 if inflight <= FEW else 0
        if self._few >= ENOUGH:
            self._few, self._best = 0, self._short
        gradient = min(1.0, max(0.5, self.rule.tolerance * self._best / self._short))
        wanted = self._limit * gradient + sqrt(self._limit)
        if wanted > self._limit and inflight * 2 < self._limit:
            return  # nobody has asked for more
        self._set(self._limit + self.rule.smoothing * (wanted - self._limit))

    def on_refused(self, inflight: int) -> None:
        """It said 429 or 503: what was in flight is more than it takes."""
        self._set(min(self._limit, max(1.0, float(inflight))) * DROPPED)

    def _set(self, limit: float) -> None:
        self._limit = min(float(self.rule.most), max(float(self.rule.least), limit))


class Limited:
    """A breaker with a limit beside it: the balancer's gate, where a replica's concurrency is found out."""

    __slots__ = ("breaker", "concurrency", "inflight")

    def __init__(self, breaker: Breaker, concurrency: Concurrency) -> None:
        self.breaker, self.concurrency = breaker, concurrency
        self.inflight = 0

    @property
    def closed(self) -> bool:
        """Nothing to ask: false when it is full."""
        return self.breaker.closed and self.concurrency.allows(self.inflight)

    def allows(self, now: float) -> bool:
        return self.concurrency.allows(self.inflight) and self.breaker.allows(now)

    def on_start(self, now: float) -> None:
        self.inflight += 1
        self.breaker.on_start(now)

    def on_first_token(self, predicted: float, took: float) -> None:
        self.concurrency.on_first_token(predicted, took, self.inflight)

    def on_end(self, ended: FailureKind | str, now: float) -> None:
        if ended in (FailureKind.RATE_LIMITED, FailureKind.OVERLOADED):
            self.concurrency.on_refused(self.inflight)
        self.inflight -= 1
        assert self.inflight >= 0, "more ends than starts"
        self.breaker.on_end(ended, now)
