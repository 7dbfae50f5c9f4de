"""Golden signals now and over time, from the numbers that workers count anyway: no database of metrics is needed.

Counters only ever grow, so what happened in a step of time is what they have grown by. Steps of five lengths are kept,
as bytes, for as long as charts reach back; a step that is over can be stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final

import msgspec

from penstock.core.money import NANOS_PER_DOLLAR
from penstock.telemetry.catalogue import (
    CATALOGUE,
    E2E_BUCKETS,
    NONE,
    OVERHEAD_BUCKETS,
    QUEUE_BUCKETS,
    TPOT_BUCKETS,
    TTFT_BUCKETS,
    Metric,
)
from penstock.telemetry.metrics import Labels, Series, Snapshot, quantile
from penstock.telemetry.taxonomy import LIMITS, nature_of

WINDOWS: Final[Mapping[int, int]] = {900: 10, 3_600: 60, 21_600: 240, 86_400: 900, 604_800: 7_200}
"""By window, in seconds: how long the steps are that its chart is made of."""
STEPS: Final[Mapping[int, int]] = {step: 2 * window // step for window, step in WINDOWS.items()}
"""Seconds of a step, and how many are kept: those of its window, and of the window before it."""
MOST_MODELS: Final = 50  # of one step; what others did is counted as "other"
MOST_SERIES: Final = 20_000  # of the counters that are compared

_BOUNDS: Final = {"ttft": TTFT_BUCKETS, "tpot": TPOT_BUCKETS, "e2e": E2E_BUCKETS, "queue": QUEUE_BUCKETS}
_HISTOGRAMS: Final = {
    "penstock_time_to_first_token_seconds": "ttft",
    "penstock_time_per_output_token_seconds": "tpot",
    "penstock_request_duration_seconds": "e2e",
    "penstock_queue_wait_seconds": "queue",
}
_COUNTERS: Final = {
    "penstock_prompt_tokens_total": "prompt_tokens",
    "penstock_completion_tokens_total": "completion_tokens",
    "penstock_cached_prompt_tokens_total": "cached_tokens",
    "penstock_unpriced_requests_total": "unpriced",
    "penstock_retries_total": "retries",
    "penstock_hedges_total": "hedges",
    "penstock_failovers_total": "failovers",
    "penstock_refusals_total": "refusals",
}
_OTHERS: Final = frozenset(
    {
        "penstock_requests_total",
        "penstock_cost_dollars_total",
        "penstock_finished_total",
        "penstock_gateway_overhead_seconds",
    }
)
_OVERHEAD: Final = "penstock_gateway_overhead_seconds"
LEFT: Final = "client_left"

Bins = dict[float, int]  # observations by the upper bound of their bucket
Counted = dict[tuple[str, Labels], Series]


class Tally(msgspec.Struct, array_like=True):
    """What happened with one model in one step. `errors` are failures that are not their caller's fault."""

    requests: int = 0
    errors: int = 0
    limited: int = 0
    cancelled: int = 0
    refusals: int = 0
    capped: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_nanos: int = 0
    unpriced: int = 0
    retries: int = 0
    hedges: int = 0
    failovers: int = 0
    ttft: Bins = {}
    tpot: Bins = {}
    e2e: Bins = {}
    queue: Bins = {}
    failures: dict[str, int] = {}

    def add(self, other: Tally) -> None:
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in (*_BOUNDS, "failures"):
            into = getattr(self, name)
            for key, n in getattr(other, name).items():
                into[key] = into.get(key, 0) + n


_SUMS: Final = tuple(name for name in Tally.__struct_fields__ if name not in (*_BOUNDS, "failures"))


class Step(msgspec.Struct, array_like=True):
    models: dict[str, Tally] = {}
    overhead: Bins = {}
    in_flight: int = 0  # the most at once, of those that were seen

    def add(self, other: Step) -> None:
        for name, tally in other.models.items():
            self.tally(name).add(tally)
        for bound, n in other.overhead.items():
            self.overhead[bound] = self.overhead.get(bound, 0) + n
        self.in_flight = max(self.in_flight, other.in_flight)

    def of(self, model: str) -> Tally:
        """Of one model, or ("") of all."""
        if model:
            return self.models.get(model) or Tally()
        whole = Tally()
        for tally in self.models.values():
            whole.add(tally)
        return whole

    def tally(self, model: str) -> Tally:
        """To be added to."""
        if model not in self.models:
            if len(self.models) >= MOST_MODELS:
                model = "other"
            self.models.setdefault(model, Tally())
        return self.models[model]


_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Step)


class Signals:
    """`tick` it every second or so with what all workers together have counted. `on_step` gets what is to be stored."""

    def __init__(
        self, catalogue: Iterable[Metric] = CATALOGUE, on_step: Callable[[int, int, bytes], None] | None = None
    ) -> None:
        self._bounds = {metric.name: metric.buckets for metric in catalogue}
        self._on_step = on_step
        self._before: Counted | None = None
        self._last_at = 0.0
        self._open = {step: (0, Step()) for step in STEPS}  # by its length: when it began
        self._kept: dict[int, deque[tuple[int, bytes]]] = {n: deque(maxlen=most) for n, most in STEPS.items()}
        self._rates: deque[tuple[float, int, int, int]] = deque(maxlen=8)  # seconds, requests, errors, tokens

    def restore(self, step: int, kept: Iterable[tuple[int, bytes]]) -> None:
        """What was stored before a restart, in order. What cannot be read is left out."""
        for at, body in kept:
            try:
                _decoder.decode(body)
            except msgspec.DecodeError:
                continue
            self._kept[step].append((at, body))

    def tick(self, snapshot: Snapshot, in_flight: int, wall: float) -> None:
        """`wall` is Unix seconds. What had been counted before the first tick happened at no known time, and is left
        out, unless there was nothing."""
        first = self._before is None
        happened = Step() if self._before is None else grown(self._before, snapshot, self._bounds)
        self._before = counted(snapshot)
        happened.in_flight = in_flight
        for length, (began, step) in self._open.items():
            now_begins = int(wall // length * length)
            if now_begins != began:
                if began and (step.models or step.in_flight):
                    self._close(length, began, step)
                step = Step()
                self._open[length] = now_begins, step
            step.add(happened)
        if not first and wall > self._last_at:
            total = happened.of("")
            self._rates.append((wall - self._last_at, total.requests, total.errors, total.completion_tokens))
        self._last_at = wall

    def rates(self) -> tuple[float, float, float]:
        """Requests, errors and output tokens per second, over the last few ticks."""
        seconds = sum(one[0] for one in self._rates)
        if not seconds:
            return 0.0, 0.0, 0.0
        requests, errors, tokens = (sum(one[n] for one in self._rates) / seconds for n in (1, 2, 3))
        return requests, errors, tokens

    def overview(self, window: int, model: str, now: float) -> dict[str, Any]:
        """Of the last `window` seconds, which is one of `WINDOWS`, up to `now`; of one model, or ("") of all."""
        span = WINDOWS[window]
        until = (int(now) // span + 1) * span
        since = until - window
        steps = self._steps(span, since - window)
        points = [Step() for _ in range(window // span)]
        earlier, whole, n_earlier = Step(), Step(), 0
        for at, step in steps:
            if at < since:
                earlier.add(step)
                n_earlier += 1
            elif at < until:
                points[(at - since) // span].add(step)
        for point in points:
            whole.add(point)
        return {
            "now": now,
            "window": window,
            "step": span,
            "total": _told(whole, model),
            "before": _told(earlier, model) if n_earlier else None,
            "series": _series(points, model, since, span),
            "models": _models(whole, window),
            "failures": _failures(whole.of(model)),
        }

    def _steps(self, length: int, since: int) -> list[tuple[int, Step]]:
        found = [(at, _decoder.decode(body)) for at, body in self._kept[length] if at >= since]
        began, step = self._open[length]
        return [*found, (began, step)] if began else found

    def _close(self, length: int, at: int, step: Step) -> None:
        body = _encode(step)
        self._kept[length].append((at, body))
        if self._on_step is not None and length > 10:
            self._on_step(length, at, body)


def counted(snapshot: Snapshot) -> Counted:
    """What is compared of it."""
    found: Counted = {}
    for name in (*_HISTOGRAMS, *_COUNTERS, *_OTHERS):
        for series in snapshot.series.get(name, ()):
            if len(found) < MOST_SERIES:
                found[name, series.labels] = series
    return found


def grown(before: Counted, snapshot: Snapshot, bounds: Mapping[str, Sequence[float]]) -> Step:
    """What has happened between two looks. `bounds` are those of buckets, by histogram."""
    step = Step()

    def each(name: str) -> Iterable[tuple[Series, float]]:
        for series in snapshot.series.get(name, ()):
            was = before.get((name, series.labels))
            n = series.value - (0 if was is None else was.value)
            if n > 0:
                yield series, n

    for name, field in _COUNTERS.items():
        for series, n in each(name):
            tally = step.tally(series.labels[0])
            setattr(tally, field, getattr(tally, field) + round(n))
    for series, n in each("penstock_cost_dollars_total"):
        step.tally(series.labels[0]).cost_nanos += round(n * NANOS_PER_DOLLAR)
    for series, n in each("penstock_finished_total"):
        if "length" in series.labels:
            step.tally(series.labels[0]).capped += round(n)
    for series, n in each("penstock_requests_total"):
        _count(step.tally(series.labels[0]), series.labels[3], round(n))
    for name, field in _HISTOGRAMS.items():
        for series in snapshot.series.get(name, ()):
            bins = _bins(bounds[name], series, before.get((name, series.labels)))
            if bins:
                _merge(getattr(step.tally(series.labels[0]), field), bins)
    for series in snapshot.series.get(_OVERHEAD, ()):
        _merge(step.overhead, _bins(bounds[_OVERHEAD], series, before.get((_OVERHEAD, series.labels))))
    return step


def _bins(bounds: Sequence[float], series: Series, was: Series | None) -> Bins:
    bounds = (*bounds, inf)
    counts = series.counts
    if len(counts) != len(bounds):
        return {}
    if was is None or len(was.counts) != len(counts):
        return {bound: n for bound, n in zip(bounds, counts, strict=True) if n}
    if counts == was.counts:
        return {}
    each = zip(bounds, counts, was.counts, strict=True)
    return {bound: n - before for bound, n, before in each if n > before}


def _merge(into: Bins, bins: Bins) -> None:
    for bound, n in bins.items():
        into[bound] = into.get(bound, 0) + n


def _count(tally: Tally, error: str, n: int) -> None:
    tally.requests += n
    if error == NONE:
        return
    tally.failures[error] = tally.failures.get(error, 0) + n
    if error in LIMITS:
        tally.limited += n
    elif error == LEFT:
        tally.cancelled += n
    elif nature_of(error).blame != "caller":
        tally.errors += n


def percentile(bins: Bins, bounds: Sequence[float], q: float) -> float | None:
    if not bins:
        return None
    every = sorted({*bounds, *(bound for bound in bins if bound != inf)})
    return quantile(every, [*(bins.get(bound, 0) for bound in every), bins.get(inf, 0)], q)


def _quantiles(bins: Bins, bounds: Sequence[float]) -> dict[str, float | None]:
    return {f"p{n}": percentile(bins, bounds, n / 100) for n in (50, 95, 99)}


def _told(step: Step, model: str) -> dict[str, Any]:
    tally = step.of(model)
    found: dict[str, Any] = {name: getattr(tally, name) for name in _SUMS}
    for name, bounds in _BOUNDS.items():
        found[name] = _quantiles(getattr(tally, name), bounds)
    found["overhead"] = _quantiles({} if model else step.overhead, OVERHEAD_BUCKETS)
    found["cache_hits"] = None
    return found


def _series(points: Sequence[Step], model: str, since: int, span: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"at": [since + n * span for n in range(len(points))]}
    tallies = [point.of(model) for point in points]
    for name in ("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nanos"):
        found[name] = [getattr(tally, name) for tally in tallies]
    for name, percents in (("ttft", (50, 95, 99)), ("e2e", (50, 95, 99)), ("tpot", (50, 95)), ("queue", (95,))):
        for n in percents:
            found[f"{name}_p{n}"] = [percentile(getattr(tally, name), _BOUNDS[name], n / 100) for tally in tallies]
    found["in_flight"] = [point.in_flight for point in points]
    return found


def _models(step: Step, window: int) -> list[dict[str, Any]]:
    return [
        {
            "model": name,
            "requests": tally.requests,
            "errors": tally.errors,
            "ttft_p50": percentile(tally.ttft, TTFT_BUCKETS, 0.5),
            "ttft_p95": percentile(tally.ttft, TTFT_BUCKETS, 0.95),
            "tokens_per_second": tally.completion_tokens / window,
            "cost_nanos": tally.cost_nanos,
        }
        for name, tally in sorted(step.models.items(), key=lambda one: (-one[1].requests, one[0]))
        if tally.requests
    ]


def _failures(tally: Tally) -> list[dict[str, Any]]:
    found = []
    for code, n in sorted(tally.failures.items(), key=lambda one: (-one[1], one[0])):
        nature = nature_of(code)
        found.append({"code": code, "lasting": nature.lasting, "blame": nature.blame, "count": n})
    return found
