"""How long a stream may be silent before something is wrong with it: much longer than its like ever are."""

from __future__ import annotations

from math import inf
from typing import Final

from penstock.resilience.sketch import Sketch

TIMES: Final = 20.0  # the 99th percentile of the time between two tokens
AT_LEAST: Final = 2.0  # seconds: a preempted sequence computes its prompt anew
ENOUGH: Final = 100  # answers


class Stalls:
    """Of one deployment."""

    __slots__ = ("_gaps",)

    def __init__(self) -> None:
        self._gaps = Sketch(0.000_1, 10.0)

    def learn(self, first_token_at: float, ended_at: float, tokens: int) -> None:
        """A whole answer. The mean time between its tokens is one sample: asking a clock for each is too dear."""
        if tokens > 1 and ended_at > first_token_at:
            self._gaps.add((ended_at - first_token_at) / (tokens - 1))

    def after(self) -> float:
        """Seconds of silence; inf while too little is known."""
        return inf if self._gaps.n < ENOUGH else max(AT_LEAST, TIMES * self._gaps.quantile(0.99))
