"""Which traces are kept: decided when the request is over, so that what went wrong or took long is never missed.

Pure. The rest is drawn by trace id, so that several gateways, and engines behind them, keep the same ones.
"""

from __future__ import annotations

from typing import Final

from penstock.core.outcome import Outcome
from penstock.resilience.sketch import Sketch
from penstock.telemetry.options import Sampling
from penstock.wire.trace_context import drawn

ERROR: Final = "error"
SLOW: Final = "slow"
FLAGGED: Final = "flagged"
DEGRADED: Final = "degraded"
CALLER: Final = "caller"
RATIO: Final = "ratio"
NO: Final = "no"
CAPPED: Final = "capped"
KEPT: Final = (ERROR, SLOW, FLAGGED, DEGRADED, CALLER, RATIO)

ENOUGH: Final = 200  # requests of a model before one can be slow in comparison
MOST_MODELS: Final = 1_000
QUANTILE: Final = 0.99


class TailSampler:
    """`decide` each outcome once, in order: what is slow is learned from those before it."""

    __slots__ = ("_kept_in_second", "_options", "_second", "_took")

    def __init__(self, options: Sampling) -> None:
        self._options = options
        self._took: dict[tuple[str, bool], Sketch] = {}
        self._second = -1
        self._kept_in_second = 0.0

    def decide(self, outcome: Outcome, trace_id: str, flagged: bool = False) -> str:
        """One of `KEPT`, or `NO` or `CAPPED`. Changes what is known of the model's usual times."""
        options = self._options
        why = self._special(outcome, flagged)
        if why and self._has_room(outcome):
            return why
        if options.honour_caller and outcome.sampled:
            return CALLER
        if drawn(trace_id, options.ratio):
            return RATIO
        return CAPPED if why else NO

    def _special(self, outcome: Outcome, flagged: bool) -> str:
        slow = self._is_slow(outcome)
        if outcome.error is not None:
            return ERROR
        if flagged:
            return FLAGGED
        if outcome.degraded:
            return DEGRADED
        return SLOW if slow else ""

    def _is_slow(self, outcome: Outcome) -> bool:
        """A stream by its first token, another answer by its whole. Only whole answers count."""
        if outcome.error is not None:
            return False
        options, stream = self._options, outcome.stream
        first = outcome.first_token_after
        took = first if stream and first is not None else outcome.duration
        most = options.slow_ttft if stream else options.slow_duration
        if took <= 0.0 or not outcome.attempts:
            return False
        key = outcome.model, stream
        sketch = self._took.get(key)
        if sketch is None:
            if len(self._took) >= MOST_MODELS:
                return most is not None and took > most
            sketch = self._took[key] = Sketch(1e-4, 3_600.0)
        slow = (most is not None and took > most) or (sketch.n >= ENOUGH and took > sketch.quantile(QUANTILE))
        sketch.add(took)
        return slow

    def _has_room(self, outcome: Outcome) -> bool:
        """In the second of Unix time in which it ended."""
        second = int(outcome.received_at + outcome.duration)
        if second != self._second:
            self._second, self._kept_in_second = second, 0.0
        if self._kept_in_second >= self._options.most_per_second:
            return False
        self._kept_in_second += 1.0
        return True
