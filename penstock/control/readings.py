"""Reads sums of metrics out of a snapshot: the same sums that `quality.promql` writes for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from penstock.quality.sli import Part, Sum, Term
from penstock.telemetry.catalogue import Metric
from penstock.telemetry.metrics import Series, Snapshot

Group: TypeAlias = tuple[str, ...]


class Reader:
    """Knows the labels and bounds of every metric."""

    def __init__(self, catalogue: Iterable[Metric]) -> None:
        self._metrics = {metric.name: metric for metric in catalogue}

    def lacks(self, terms: Sum) -> str | None:
        """Why these cannot be read: a histogram whose buckets have another bound. None: they can."""
        for term in terms:
            if term.part is Part.BELOW and term.bound not in self._metrics[term.metric].buckets:
                return f"{term.metric} has no bucket that ends at {term.bound:g}"
        return None

    def added(self, terms: Sum, by: tuple[str, ...], snapshot: Snapshot) -> dict[Group, float]:
        """The sum for each group that has any of it; () is the only group without `by`."""
        found: dict[Group, float] = {}
        for term in terms:
            for group, value in self._values(term, by, snapshot):
                found[group] = found.get(group, 0.0) + (-value if term.minus else value)
        return found

    def labelled(self, metric: str, snapshot: Snapshot) -> Iterator[tuple[tuple[tuple[str, str], ...], float]]:
        """Every series of a counter or a gauge, with its labels by name."""
        labels = self._metrics[metric].labels
        for series in snapshot.series.get(metric, ()):
            yield tuple(zip(labels, series.labels, strict=True)), series.value

    def _values(self, term: Term, by: tuple[str, ...], snapshot: Snapshot) -> Iterator[tuple[Group, float]]:
        metric = self._metrics[term.metric]
        places = [metric.labels.index(label) for label in by]
        matches = [(metric.labels.index(match.label), match) for match in term.where]
        upto = metric.buckets.index(term.bound) + 1 if term.part is Part.BELOW else None
        for series in snapshot.series.get(term.metric, ()):
            labels = series.labels
            if all(match.fits(labels[place]) for place, match in matches):
                yield tuple([labels[place] for place in places]), _value(term.part, series, upto)


def _value(part: Part, series: Series, upto: int | None) -> float:
    return series.value if part is Part.VALUE else sum(series.counts[:upto])
