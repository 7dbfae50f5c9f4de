"""Counters, gauges and histograms of one process, and how those of several become one.

There are no locks: one event loop owns a registry. Prometheus's own client costs 5 x as much per observation and 50 x
per scrape (measured), and a 100 ms scrape on the event loop is a 100 ms stall of every stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import fsum
from typing import Final, Generic, TypeVar

import msgspec

from penstock.telemetry.catalogue import CATALOGUE, OTHER, Kind, Merge, Metric
from penstock.telemetry.instruments import Counter, Exemplar, Gauge, Histogram

__all__ = ["Counter", "Exemplar", "Gauge", "Histogram"]  # whoever has a registry needs them

OVERFLOW: Final = "penstock_metrics_overflow_total"

Labels = tuple[str, ...]


class Series(msgspec.Struct, frozen=True, array_like=True):
    """One row of a snapshot. `counts` is per bucket, not cumulative, and empty but for histograms, where `value` is the
    sum of what was observed.
    """

    labels: Labels
    value: float
    counts: tuple[int, ...] = ()
    exemplars: dict[int, Exemplar] = {}  # by the place of the bucket in `counts`


class Snapshot(msgspec.Struct, frozen=True):
    """All series at one instant, by metric name: plain data that a worker can send to its parent."""

    series: dict[str, tuple[Series, ...]]


C = TypeVar("C")  # Counter, Gauge or Histogram


class Family(Generic[C]):
    """All children of one metric, by label values. Bind a child once and keep it: that is what the hot path uses."""

    __slots__ = ("_children", "_make", "_overflowed", "metric")

    def __init__(self, metric: Metric, make: Callable[[], C], overflowed: Callable[[str], None]) -> None:
        self.metric = metric
        self._make, self._overflowed = make, overflowed
        self._children: dict[Labels, C] = {}

    def labels(self, *values: str) -> C:
        """The child for these label values, in the catalogue's order. When the family is full: the one for "other"."""
        child = self._children.get(values)
        return child if child is not None else self._add(values)

    def _add(self, values: Labels) -> C:
        if len(values) != len(self.metric.labels):
            raise TypeError(f"{self.metric.name} takes the labels {self.metric.labels}, not {values}")
        rest = (OTHER,) * len(values)
        if len(self._children) >= self.metric.max_children and values != rest:
            self._overflowed(self.metric.name)
            child = self._children.get(rest)
            if child is not None:
                return child
            values = rest  # the one child beyond the bound
        child = self._children[values] = self._make()
        return child

    def items(self) -> Iterable[tuple[Labels, C]]:
        return self._children.items()

    def clear(self) -> None:
        self._children.clear()


Reading = Callable[[], Iterable[tuple[Labels, float]]]


class Registry:
    """Every family of the catalogue, made at once; asking for a name that is not in it is a KeyError."""

    def __init__(self, catalogue: Iterable[Metric] = CATALOGUE) -> None:
        self.catalogue = {metric.name: metric for metric in catalogue}
        self._counters: dict[str, Family[Counter]] = {}
        self._gauges: dict[str, Family[Gauge]] = {}
        self._histograms: dict[str, Family[Histogram]] = {}
        self._readings: dict[str, Reading] = {}
        self._before: list[Callable[[], None]] = []
        for metric in self.catalogue.values():
            if metric.kind is Kind.COUNTER:
                self._counters[metric.name] = Family(metric, Counter, self._overflowed)
            elif metric.kind is Kind.GAUGE:
                self._gauges[metric.name] = Family(metric, Gauge, self._overflowed)
            else:
                self._histograms[metric.name] = Family(metric, _histogram_maker(metric.buckets), self._overflowed)

    def counter(self, name: str) -> Family[Counter]:
        return self._counters[name]

    def gauge(self, name: str) -> Family[Gauge]:
        return self._gauges[name]

    def histogram(self, name: str) -> Family[Histogram]:
        return self._histograms[name]

    def read_gauge(self, name: str, reading: Reading) -> None:
        """Fill this gauge from `reading` at every scrape; what it no longer names is gone (a removed replica)."""
        assert name in self._gauges, name
        self._readings[name] = reading

    def read_counter(self, name: str, reading: Reading) -> None:
        """Likewise, a counter of somebody else, which every worker sees."""
        assert self.catalogue[name].read and name in self._counters, name
        self._readings[name] = reading

    def before_snapshot(self, act: Callable[[], None]) -> None:
        """Call `act` before every snapshot: whoever counts in batches counts what waits."""
        self._before.append(act)

    def snapshot(self) -> Snapshot:
        """A copy of everything; costs about 0.3 us per histogram series. Calls the gauges' readings."""
        for act in self._before:
            act()
        for name, reading in self._readings.items():
            family: Family[Counter] | Family[Gauge] = self._gauges.get(name) or self._counters[name]
            family.clear()
            for labels, value in reading():
                family.labels(*labels).value = value
        series: dict[str, tuple[Series, ...]] = {}
        for name, metric in self.catalogue.items():
            if metric.kind is Kind.HISTOGRAM:
                series[name] = tuple(
                    Series(labels, child.sum, tuple(child.counts), dict(child.exemplars) if child.exemplars else {})
                    for labels, child in self._histograms[name].items()
                )
            else:
                family = self._counters[name] if metric.kind is Kind.COUNTER else self._gauges[name]
                series[name] = tuple(Series(labels, child.value) for labels, child in family.items())
        return Snapshot(series)

    def _overflowed(self, name: str) -> None:
        overflow = self._counters.get(OVERFLOW)
        if overflow is not None:  # a test's own small catalogue need not have it
            overflow.labels(name).inc()


def merge(snapshots: Sequence[Snapshot], catalogue: Iterable[Metric] = CATALOGUE) -> Snapshot:
    """One snapshot for several workers, exactly: the order of `snapshots` changes nothing, not even the last bit.

    Floats are therefore added all at once with `fsum`, whose result is correctly rounded. Series come out sorted.
    """
    merged: dict[str, tuple[Series, ...]] = {}
    for metric in catalogue:
        found: dict[Labels, list[Series]] = {}
        for snapshot in snapshots:
            for series in snapshot.series.get(metric.name, ()):
                found.setdefault(series.labels, []).append(series)
        merged[metric.name] = tuple(_merge_one(metric, same) for _, same in sorted(found.items()))
    return Snapshot(merged)


def lasting(snapshot: Snapshot, catalogue: Iterable[Metric] = CATALOGUE) -> Snapshot:
    """What of a worker that ended must still be counted, so that no counter ever falls: all that it counted itself."""
    names = {metric.name for metric in catalogue if not metric.read}
    return Snapshot({name: series for name, series in snapshot.series.items() if name in names})


def _merge_one(metric: Metric, same: list[Series]) -> Series:
    values = [series.value for series in same]
    if metric.merge is not Merge.SUM:
        return Series(same[0].labels, min(values) if metric.merge is Merge.MIN else max(values))
    counts = tuple(map(sum, zip(*(series.counts for series in same), strict=True)))
    exemplars: dict[int, Exemplar] = {}
    for series in same:
        for place, exemplar in series.exemplars.items():
            # the latest, since their time comes first in them
            if place not in exemplars or exemplars[place] < exemplar:
                exemplars[place] = exemplar
    return Series(same[0].labels, _add(values), counts, exemplars)


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """About that quantile (0..1) of what a histogram has seen: straight lines within buckets, and the last bound for
    what is beyond, as Prometheus has it (histogram_quantile). None when it has seen nothing.
    """
    n = sum(counts)
    if not n:
        return None
    rank, below, lower = q * n, 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * max(0.0, rank - below) / count
        below += count
        lower = bound
    return lower


def _add(values: list[float]) -> float:
    """Whole numbers stay whole (and exact beyond 2**53), the rest is rounded once."""
    return sum(values) if all(isinstance(value, int) for value in values) else fsum(values)


def _histogram_maker(bounds: Sequence[float]) -> Callable[[], Histogram]:
    assert list(bounds) == sorted(set(bounds)), "bucket bounds must ascend"
    return lambda: Histogram(bounds)
