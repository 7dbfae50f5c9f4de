"""Turns receipts into metrics, a batch at a time. For each: one dict look-up to a bundle of bound children, additions.

Callers may write any model name, so a name becomes a label only when it is known to be served: `serves` said so, or a
replica was tried for it. All else is counted as `unknown`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from penstock.core.money import NANOS_PER_DOLLAR
from penstock.core.outcome import Outcome, UsageSource
from penstock.telemetry.catalogue import NONE, UNKNOWN
from penstock.telemetry.metrics import Counter, Registry

# Outcomes counted at once (50 us): one by one, between other work, each finds cold caches and costs twice as much.
BATCH: Final = 64

# Bundles of bound children kept; beyond it all are forgotten and bound again (about 3 us each).
MAX_BOUND: Final = 4_096


class _Bound:
    """The children that outcomes alike in model, endpoint, status, error and token source go to."""

    __slots__ = (
        "cached",
        "completion",
        "cost",
        "duration",
        "prompt",
        "requests",
        "retries",
        "tpot",
        "ttft",
        "unpriced",
    )

    def __init__(self, registry: Registry, model: str, outcome: Outcome) -> None:
        status_class = f"{outcome.status // 100}xx"
        self.requests = registry.counter("penstock_requests_total").labels(
            model, outcome.endpoint, status_class, outcome.error or NONE
        )
        self.duration = registry.histogram("penstock_request_duration_seconds").labels(model, outcome.endpoint)
        self.ttft = registry.histogram("penstock_time_to_first_token_seconds").labels(model)
        self.tpot = registry.histogram("penstock_time_per_output_token_seconds").labels(model)
        self.retries = registry.counter("penstock_retries_total").labels(model)
        self.cached = registry.counter("penstock_cached_prompt_tokens_total").labels(model)
        self.cost = registry.counter("penstock_cost_dollars_total").labels(model)
        self.unpriced = registry.counter("penstock_unpriced_requests_total").labels(model)
        if outcome.usage_source is not UsageSource.NONE:
            source = str(outcome.usage_source)
            self.prompt: Counter | None = registry.counter("penstock_prompt_tokens_total").labels(model, source)
            self.completion = registry.counter("penstock_completion_tokens_total").labels(model, source)
        else:
            self.prompt = None


class RequestMetrics:
    """The metrics of requests; `on_outcome` is called once for each. A snapshot of the registry has them all."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._served: set[str] = set()
        self._overhead = registry.histogram("penstock_gateway_overhead_seconds").labels()
        self._attempts = registry.counter("penstock_attempts_total")
        self._waiting: list[Outcome] = []  # not counted yet, fewer than BATCH
        self._bound: dict[tuple[str, str, int, str | None, str, bool], _Bound] = {}
        self._max_served = registry.catalogue["penstock_requests_total"].max_children
        registry.before_snapshot(self._count_waiting)

    def serves(self, models: Iterable[str]) -> None:
        """These names may be labels from now on. Call it with every new plane; they are not forgotten, because an
        outcome of the last plane may still come.
        """
        for model in models:
            if len(self._served) < self._max_served:
                self._served.add(model)

    def on_outcome(self, outcome: Outcome) -> None:
        self._waiting.append(outcome)
        if len(self._waiting) >= BATCH:
            self._count_waiting()

    def _count_waiting(self) -> None:
        outcomes, self._waiting = self._waiting, []
        for outcome in outcomes:
            self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        attempts = outcome.attempts
        key = (outcome.model, outcome.endpoint, outcome.status, outcome.error, outcome.usage_source, bool(attempts))
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bind(outcome, key)
        first_token_after, usage = outcome.first_token_after, outcome.usage
        bound.requests.inc()
        bound.duration.observe(outcome.duration)
        if bound.prompt is not None:
            bound.prompt.value += usage.prompt_tokens
            bound.completion.value += usage.completion_tokens
            bound.cached.value += usage.cached_tokens
        cost_nanos = outcome.cost_nanos
        if cost_nanos is None:
            bound.unpriced.inc()
        elif cost_nanos:
            bound.cost.value += cost_nanos / NANOS_PER_DOLLAR
        if first_token_after is not None and outcome.stream:
            bound.ttft.observe(first_token_after)
            if usage.completion_tokens > 1 and outcome.error is None:
                bound.tpot.observe((outcome.duration - first_token_after) / (usage.completion_tokens - 1))
        if attempts:
            self._on_attempts(outcome, bound)

    def _on_attempts(self, outcome: Outcome, bound: _Bound) -> None:
        attempts = outcome.attempts
        first = last = attempts[0]
        self._attempts.labels(first.replica, first.ended).inc()
        if len(attempts) > 1:
            bound.retries.inc(len(attempts) - 1)
            for attempt in attempts[1:]:
                self._attempts.labels(attempt.replica, attempt.ended).inc()
                # hedges run side by side: the list is in order of neither start nor end
                if attempt.started_after < first.started_after:
                    first = attempt
                if attempt.ended_after > last.ended_after:
                    last = attempt
        overhead = first.started_after + outcome.duration - last.ended_after
        self._overhead.observe(overhead if overhead > 0 else 0.0)

    def _bind(self, outcome: Outcome, key: tuple[str, str, int, str | None, str, bool]) -> _Bound:
        if outcome.attempts:
            self.serves((outcome.model,))
        known = outcome.model in self._served
        if not known:
            key = (UNKNOWN, *key[1:])  # or callers who make up names would fill the table
            bound = self._bound.get(key)
            if bound is not None:
                return bound
        if len(self._bound) >= MAX_BOUND:
            self._bound.clear()
        bound = self._bound[key] = _Bound(self._registry, outcome.model if known else UNKNOWN, outcome)
        return bound
