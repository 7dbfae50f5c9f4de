"""Counters, gauges and histograms by themselves: what every request touches, so that it can be compiled."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# `int | float` and not `float`, which compiled would make whole numbers inexact.

Exemplar = tuple[float, float, str]
"""A request that was counted in a bucket and whose trace is kept: Unix time, the value, the trace's id."""


class Counter:
    """Only goes up."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int | float = 0

    def inc(self, amount: int | float = 1) -> None:
        self.value += amount


class Gauge:
    """Goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int | float = 0

    def set(self, value: int | float) -> None:
        self.value = value


class Histogram:
    """Counts per bucket. `bounds` are inclusive upper bounds; `counts` has one more, for what is above them all.
    `exemplars` are the last ones, by bucket.
    """

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = list(bounds)  # bisect is a third faster on a list
        self.counts = [0] * (len(bounds) + 1)
        self.sum: int | float = 0
        self.exemplars: dict[int, Exemplar] | None = None

    def observe(self, value: int | float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def show(self, value: float, trace_id: str, at: float) -> None:
        """That value, which has been or will be observed, has a trace that people can look at."""
        if self.exemplars is None:
            self.exemplars = {}
        self.exemplars[bisect_left(self.bounds, value)] = (at, value, trace_id)
