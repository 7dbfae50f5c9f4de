"""Percentiles and how sure they are.

A percentile is interpolated linearly between neighbours (Hyndman and Fan's type 7, numpy's default). Its interval is
that between two order statistics, whose ranks follow from the binomial distribution whatever the shape of the data
(Hahn and Meeker, Statistical Intervals, 1991, 5.2): no assumption, no resampling. It holds for requests that do not
depend on each other; those of one burst do, so read it as the least uncertainty there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma, log, log1p, sqrt
from typing import Final

import msgspec

LEVEL: Final = 0.95
PERCENTS: Final = (50.0, 90.0, 95.0, 99.0, 99.9)


class Percentile(msgspec.Struct, frozen=True):
    """`low` and `high` bound it with `LEVEL` confidence; None where there are too few values to say."""

    percent: float
    value: float
    low: float | None
    high: float | None


class Distribution(msgspec.Struct, frozen=True):
    n: int
    mean: float
    smallest: float
    largest: float
    percentiles: tuple[Percentile, ...]

    def at(self, percent: float) -> Percentile:
        return next(p for p in self.percentiles if p.percent == percent)


def distribution(values: Sequence[float]) -> Distribution | None:
    """None of nothing."""
    if not values:
        return None
    rising = sorted(values)
    n = len(rising)
    found = []
    for percent in PERCENTS:
        low, high = ranks(n, percent / 100)
        found.append(
            Percentile(
                percent,
                quantile(rising, percent / 100),
                rising[low - 1] if low is not None else None,
                rising[high - 1] if high is not None else None,
            )
        )
    return Distribution(n, sum(rising) / n, rising[0], rising[-1], tuple(found))


def quantile(rising: Sequence[float], p: float) -> float:
    """Of sorted values, at least one."""
    at = p * (len(rising) - 1)
    below = int(at)
    above = min(below + 1, len(rising) - 1)
    return rising[below] + (at - below) * (rising[above] - rising[below])


def ranks(n: int, p: float, level: float = LEVEL) -> tuple[int | None, int | None]:
    """Ranks (from 1) of the order statistics that hold the p-quantile between them; each side errs with at most
    (1 - level) / 2. None where even the smallest or the largest value does not bound it so surely.

    With B binomial(n, p): the r-th smallest is at most the quantile with probability P(B >= r), at least it with
    P(B < r).
    """
    miss = (1 - level) / 2
    mean, spread = n * p, sqrt(n * p * (1 - p))
    first, last = max(0, int(mean - 9 * spread - 9)), min(n, int(mean + 9 * spread + 9))
    low, high, below = None, None, 0.0  # P(B < r)
    for r in range(first, last + 1):
        if r >= 1 and below <= miss:
            low = r
        if high is None and r >= 1 and below >= 1 - miss:
            high = r
        below += exp(lgamma(n + 1) - lgamma(r + 1) - lgamma(n - r + 1) + r * log(p) + (n - r) * log1p(-p))
    return low, high
