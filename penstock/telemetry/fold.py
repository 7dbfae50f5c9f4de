"""Turns receipts into metrics, a batch at a time. For each: one dict look-up to a bundle of bound children, additions.

Callers may write any model name, so a name becomes a label only when it is known to be served: `serves` said so, or a
replica was tried for it. All else is counted as `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from penstock.core.errors import FailureKind
from penstock.core.money import NANOS_PER_DOLLAR
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import CANCELLED, OK, Attempt
from penstock.resilience.failures import NATURES
from penstock.telemetry.catalogue import NONE, OTHER, UNKNOWN
from penstock.telemetry.instruments import Counter, Histogram
from penstock.telemetry.metrics import Registry
from penstock.telemetry.taxonomy import FINISH_REASONS, REFUSALS, nature_of, refusal_signal

# Outcomes counted at once (50 us): one by one, between other work, each finds cold caches and costs twice as much.
BATCH: Final = 64

# Bundles of bound children kept; beyond it all are forgotten and bound again (about 3 us each).
MAX_BOUND: Final = 4_096


ADMITTED: Final = "admitted"

_Key = tuple[str, str, int, str | None, str, str | None, str, bool]


class _Bound:
    """The children that outcomes go to which are alike in all that is in a `_Key`."""

    __slots__ = (
        "cached",
        "completion",
        "cost",
        "duration",
        "length",
        "model",
        "once",
        "prompt",
        "prompt_length",
        "queue_wait",
        "reasoning",
        "requests",
        "retries",
        "tpot",
        "ttft",
        "unpriced",
    )

    def __init__(self, registry: Registry, model: str, outcome: Outcome) -> None:
        self.model = model
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
        self.prompt: Counter | None = None
        if outcome.usage_source is not UsageSource.NONE:
            source = str(outcome.usage_source)
            self.prompt = registry.counter("penstock_prompt_tokens_total").labels(model, source)
            self.completion = registry.counter("penstock_completion_tokens_total").labels(model, source)
            self.prompt_length = registry.histogram("penstock_prompt_length_tokens").labels(model)
            self.reasoning = registry.counter("penstock_reasoning_tokens_total").labels(model)
        self.queue_wait: Histogram | None = None
        if outcome.attempts:
            self.queue_wait = registry.histogram("penstock_queue_wait_seconds").labels(model, outcome.priority)
        self.length: Histogram | None = None
        if self.prompt is not None and outcome.error is None:
            self.length = registry.histogram("penstock_output_length_tokens").labels(model)
        self.once = _counted_once(registry, model, outcome)


def _counted_once(registry: Registry, model: str, outcome: Outcome) -> list[Counter]:
    """Those that go up by one for each."""
    found: list[Counter] = []
    error, finish_reason = outcome.error, outcome.finish_reason
    if error is not None:
        nature = nature_of(error)
        failures = registry.counter("penstock_failures_total")
        found.append(failures.labels(model, "request", error, nature.lasting, nature.blame))
    elif finish_reason is not None:
        reason = FINISH_REASONS.get(finish_reason, OTHER)
        found.append(registry.counter("penstock_finished_total").labels(model, reason))
    signal = refusal_signal(finish_reason, error)
    if signal:
        found.append(registry.counter("penstock_refusals_total").labels(model, signal))
    admissions = registry.counter("penstock_admissions_total")
    if outcome.attempts:
        found.append(admissions.labels(model, outcome.priority, ADMITTED))
    elif error is not None and error in REFUSALS:
        found.append(admissions.labels(model, outcome.priority, error))
    return found


class RequestMetrics:
    """The metrics of requests; `on_outcome` is called once for each. A snapshot of the registry has them all."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._served: set[str] = set()
        self._overhead = registry.histogram("penstock_gateway_overhead_seconds").labels()
        self._attempts = registry.counter("penstock_attempts_total")
        self._ok: dict[str, Counter] = {}  # of attempts, by replica: what nearly all of them are
        self._degraded = registry.counter("penstock_degraded_total")
        self._waiting: list[Outcome] = []  # not counted yet, fewer than BATCH
        self._bound: dict[_Key, _Bound] = {}
        self._max_served = registry.catalogue["penstock_requests_total"].max_children
        self.on_session: Callable[[Outcome], None] | None = None  # of those who said which session they belong to
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

    def looked_at(self, outcome: Outcome, signal: str) -> None:
        """Somebody looked at its first words: `signal` is what said that it refuses, or `NONE`."""
        self.serves((outcome.model,))
        model = outcome.model if outcome.model in self._served else UNKNOWN
        self._registry.counter("penstock_answers_looked_at_total").labels(model, signal).inc()

    def show(self, outcome: Outcome, trace_id: str) -> None:
        """The trace of that one is kept: where its latencies are counted, people find it."""
        if outcome.attempts:
            self.serves((outcome.model,))
        model = outcome.model if outcome.model in self._served else UNKNOWN
        histogram, at, first = (
            self._registry.histogram,
            outcome.received_at + outcome.duration,
            outcome.first_token_after,
        )
        request_duration = histogram("penstock_request_duration_seconds")
        request_duration.labels(model, outcome.endpoint).show(outcome.duration, trace_id, at)
        if first is not None and outcome.stream:
            histogram("penstock_time_to_first_token_seconds").labels(model).show(first, trace_id, at)
            tokens = outcome.usage.completion_tokens
            if tokens > 1 and outcome.error is None:
                each = (outcome.duration - first) / (tokens - 1)
                histogram("penstock_time_per_output_token_seconds").labels(model).show(each, trace_id, at)

    def _count_waiting(self) -> None:
        outcomes, self._waiting = self._waiting, []
        on_session = self.on_session
        for outcome in outcomes:
            self._count(outcome)
            if outcome.session and on_session is not None:
                on_session(outcome)

    def _count(self, outcome: Outcome) -> None:
        attempts = outcome.attempts
        key = (
            outcome.model,
            outcome.endpoint,
            outcome.status,
            outcome.error,
            outcome.usage_source,
            outcome.finish_reason,
            outcome.priority,
            bool(attempts),
        )
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bind(outcome, key)
        first_token_after, usage = outcome.first_token_after, outcome.usage
        bound.requests.inc()
        bound.duration.observe(outcome.duration)
        for counter in bound.once:
            counter.value += 1
        prompt, length = bound.prompt, bound.length
        if prompt is not None:
            prompt.value += usage.prompt_tokens
            bound.prompt_length.observe(usage.prompt_tokens)
            bound.completion.value += usage.completion_tokens
            bound.cached.value += usage.cached_tokens
            if usage.reasoning_tokens:
                bound.reasoning.value += usage.reasoning_tokens
            if length is not None:
                length.observe(usage.completion_tokens)
        if outcome.degraded:
            for what in outcome.degraded:
                self._degraded.labels(bound.model, what).inc()
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
        if bound.queue_wait is not None:
            bound.queue_wait.observe(outcome.queued_for)
        if len(attempts) == 1 and first.ended == OK:
            ok = self._ok.get(first.replica)
            if ok is None:
                if len(self._ok) >= MAX_BOUND:
                    self._ok.clear()
                ok = self._ok[first.replica] = self._attempts.labels(first.replica, OK)
            ok.value += 1
        else:
            bound.retries.inc(len(attempts) - 1)
            for attempt in attempts:
                self._on_attempt(attempt, bound.model)
                # hedges run side by side: the list is in order of neither start nor end
                if attempt.started_after < first.started_after:
                    first = attempt
                if attempt.ended_after > last.ended_after:
                    last = attempt
            if len(attempts) > 1:
                self._on_further(attempts, bound.model)
        overhead = first.started_after + outcome.duration - last.ended_after
        self._overhead.observe(overhead if overhead > 0 else 0.0)

    def _on_attempt(self, attempt: Attempt, model: str) -> None:
        ended = attempt.ended
        self._attempts.labels(attempt.replica, ended).inc()
        if ended != OK and ended != CANCELLED:
            nature = NATURES[FailureKind(ended)]
            failures = self._registry.counter("penstock_failures_total")
            failures.labels(model, "attempt", ended, nature.lasting, nature.blame).inc()

    def _on_further(self, attempts: tuple[Attempt, ...], model: str) -> None:
        """What those after the first were."""
        in_order = sorted(attempts, key=_started_after)
        before, busy_until = in_order[0], in_order[0].ended_after
        for attempt in in_order[1:]:
            if attempt.started_after < busy_until:
                self._registry.counter("penstock_hedges_total").labels(model).inc()
            elif deployment_of(attempt.replica) != deployment_of(before.replica):
                self._registry.counter("penstock_failovers_total").labels(model).inc()
            before, busy_until = attempt, max(busy_until, attempt.ended_after)

    def _bind(self, outcome: Outcome, key: _Key) -> _Bound:
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


def deployment_of(replica: str) -> str:
    """Replicas are called `deployment/0`."""
    return replica.rpartition("/")[0]


def _started_after(attempt: Attempt) -> float:
    return attempt.started_after
