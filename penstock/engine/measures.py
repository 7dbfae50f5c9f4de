"""What a replica counts about itself, and how it tells it: Prometheus text, format 0.0.4.

The engine's thread writes, the event loop reads; every value is one number, so a reader can be late but never sees
half of one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# Seconds. From the time per token of a small model on a fast machine, to waiting in a long queue.
TTFT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TPOT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
E2E_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Histogram:
    """Counts of seconds, by upper bounds that are included."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def record(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Measures:
    """Totals since the start. Times are in seconds: to the first token, per token after it, and of whole requests."""

    def __init__(self) -> None:
        self.ttft = Histogram(TTFT_BUCKETS)
        self.tpot = Histogram(TPOT_BUCKETS)
        self.e2e = Histogram(E2E_BUCKETS)
        self.steps = 0
        self.step_seconds = 0.0
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0}
        self.refused = 0
        """Requests that found the queue full."""


class Exposition:
    """Builds the text of one scrape. `name` is without the prefix that all metrics of a replica share."""

    def __init__(self, prefix: str, model: str) -> None:
        self._prefix = prefix
        escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._model = f'model_name="{escaped}"'
        self._lines: list[str] = []

    def gauge(self, name: str, help: str, value: float) -> None:
        self._single(name, "gauge", help, value)

    def counter(self, name: str, help: str, value: float) -> None:
        self._single(name, "counter", help, value)

    def counters(self, name: str, help: str, label: str, values: dict[str, int]) -> None:
        full = self._describe(name, "counter", help)
        self._lines += [f'{full}{{{self._model},{label}="{key}"}} {value}' for key, value in values.items()]

    def histogram(self, name: str, help: str, histogram: Histogram) -> None:
        full = self._describe(name, "histogram", help)
        total = 0
        for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
            total += count
            self._lines.append(f'{full}_bucket{{{self._model},le="{bound}"}} {total}')
        self._lines.append(f"{full}_sum{{{self._model}}} {histogram.sum}")
        self._lines.append(f"{full}_count{{{self._model}}} {total}")

    def text(self) -> bytes:
        return "\n".join([*self._lines, ""]).encode()

    def _single(self, name: str, kind: str, help: str, value: float) -> None:
        full = self._describe(name, kind, help)
        self._lines.append(f"{full}{{{self._model}}} {value}")

    def _describe(self, name: str, kind: str, help: str) -> str:
        full = f"{self._prefix}_{name}"
        self._lines += [f"# HELP {full} {help}", f"# TYPE {full} {kind}"]
        return full
