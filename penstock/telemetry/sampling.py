"""Which traces are kept: decided when the request is over, so that what went wrong or took long is never missed.

Pure. The rest is drawn by trace id, so that several gateways, and engines behind them, keep the same ones.
"""

from __future__ import annotations

from math import inf
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
UNSURE: Final = 1.05  # the sketch's bins are that wide: times that are all alike are not slow
LOOK_EVERY: Final = 128  # requests between looks at what is usual
MOST_MODELS: Final = 1_000
QUANTILE: Final = 0.99


class _Usual:
    """How long answers of one model take."""

    __slots__ = ("looked_after", "slow_beyond", "took")

    def __init__(self) -> None:
        self.took = Sketch(1e-4, 3_600.0)
        self.slow_beyond = inf
        self.looked_after = 0


class TailSampler:
    """`decide` each outcome once, in order: what is slow is learned from those before it."""

    __slots__ = ("_kept_in_second", "_options", "_second", "_usual")

    def __init__(self, options: Sampling) -> None:
        self._options = options
        self._usual: dict[tuple[str, bool], _Usual] = {}
        self._second = -1
        self._kept_in_second = 0

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
        usual = self._usual.get(key)
        if usual is None:
            if len(self._usual) >= MOST_MODELS:
                return most is not None and took > most
            usual = self._usual[key] = _Usual()
        slow = took > usual.slow_beyond or (most is not None and took > most)
        usual.took.add(took)
        usual.looked_after += 1
        if usual.looked_after >= LOOK_EVERY:
            usual.looked_after = 0
            if usual.took.n >= ENOUGH:
                usual.slow_beyond = usual.took.quantile(QUANTILE) * UNSURE
        return slow

    def _has_room(self, outcome: Outcome) -> bool:
        """In the second of Unix time in which it ended."""
        second = int(outcome.received_at + outcome.duration)
        if second != self._second:
            self._second, self._kept_in_second = second, 0
        if self._kept_in_second >= self._options.most_per_second:
            return False
        self._kept_in_second += 1
        return True
