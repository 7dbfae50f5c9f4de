"""Quantiles of what was seen lately, in bounded memory: a histogram with logarithmic bins, halved now and then."""

from __future__ import annotations

from math import exp, log
from typing import Final

STEP: Final = log(1.05)  # bins are 5 % wide, and so a quantile is right to 2.5 %


class Sketch:
    """Positive numbers; those outside of `least`..`most` count as these. About the last `recent` of them matter."""

    __slots__ = ("_bins", "_known", "_least", "_recent", "_stale", "n")

    def __init__(self, least: float, most: float, recent: int = 2_000) -> None:
        assert 0 < least < most and recent > 0
        self._least = log(least)
        self._bins = [0.0] * (int((log(most) - self._least) / STEP) + 1)
        self._recent = recent
        self.n = 0.0  # samples that still count
        self._stale = 0  # samples since `_known` was computed
        self._known: dict[float, float] = {}

    def add(self, x: float) -> None:
        """`x` > 0."""
        place = int((log(x) - self._least) / STEP)
        self._bins[min(len(self._bins) - 1, max(0, place))] += 1.0
        self.n += 1.0
        self._stale += 1
        if self.n >= self._recent:
            self._bins = [n / 2 for n in self._bins]
            self.n /= 2

    def quantile(self, q: float) -> float:
        """`q` in 0..1; `n` must not be 0. Asked often and changing slowly: computed anew after a hundredth of `n`."""
        assert self.n > 0
        if self._stale * 100 >= self.n:
            self._known.clear()
            self._stale = 0
        known = self._known.get(q)
        if known is None:
            known = self._known[q] = self._compute(q)
        return known

    def _compute(self, q: float) -> float:
        left = q * self.n
        place = 0
        for place, n in enumerate(self._bins):  # noqa: B007 - the last one, where rounding leaves a rest
            left -= n
            if left <= 0.0 and n:
                break
        return exp(self._least + (place + 0.5) * STEP)
