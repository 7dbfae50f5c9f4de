"""A gateway's `/metrics` page, read back into the numbers that it was made from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from typing import Final

from penstock.telemetry.catalogue import CATALOGUE, Kind
from penstock.telemetry.metrics import Labels, Series, Snapshot

_LINE: Final = re.compile(r'^([a-z_]+)(?:\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*)\})? ([^ \n]+)', re.MULTILINE)
_LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_KINDS: Final = {metric.name: metric.kind for metric in CATALOGUE}


class Page:
    """`snapshot` has the series, `bounds` those of the buckets by histogram. Raises ValueError for another's page."""

    def __init__(self, text: str) -> None:
        values: dict[str, dict[Labels, float]] = {}
        buckets: dict[str, dict[Labels, list[tuple[float, int]]]] = {}
        for name, labels, value in _LINE.findall(text):
            pairs = [(label, _unescaped(given)) for label, given in _LABEL.findall(labels)]
            base = name.removesuffix("_bucket")
            if name != base and _KINDS.get(base) is Kind.HISTOGRAM:
                own = tuple(given for label, given in pairs if label != "le")
                bound = float(dict(pairs)["le"])
                buckets.setdefault(base, {}).setdefault(own, []).append((bound, int(float(value))))
            elif name in _KINDS:
                values.setdefault(name, {})[tuple(given for _, given in pairs)] = float(value)
        if not values:
            raise ValueError("it shows no numbers of Penstock's")
        self.bounds: dict[str, Sequence[float]] = {metric.name: metric.buckets for metric in CATALOGUE}
        series = {name: tuple(Series(labels, n) for labels, n in found.items()) for name, found in values.items()}
        for name, found in buckets.items():
            rows = []
            for labels, cumulative in found.items():
                ordered = sorted(cumulative)
                self.bounds[name] = [bound for bound, _ in ordered if bound != inf]
                before, counts = 0, []
                for _, n in ordered:
                    counts.append(n - before)
                    before = n
                rows.append(Series(labels, 0.0, tuple(counts)))
            series[name] = tuple(rows)
        self.snapshot = Snapshot(series)

    def gauge(self, name: str) -> dict[Labels, float]:
        return {one.labels: one.value for one in self.snapshot.series.get(name, ())}


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(_meant, text) if "\\" in text else text


def _meant(escaped: re.Match[str]) -> str:
    return "\n" if escaped[1] == "n" else escaped[1]
