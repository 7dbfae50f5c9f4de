"""Where a receipt goes when its request is over: into the metrics, onto the log, and perhaps into a trace.

Every request passes `on_outcome`, so it only puts the receipt down. What follows is done for many at once; a trace is
decided about then, and made later still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from penstock.core.outcome import Outcome
from penstock.core.refusals import reads_like_a_refusal
from penstock.telemetry.access_log import AccessLog
from penstock.telemetry.catalogue import NONE
from penstock.telemetry.content import Content, Reader, opening_in
from penstock.telemetry.export import Kept, SpanExporter
from penstock.telemetry.fold import RequestMetrics
from penstock.telemetry.metrics import Registry
from penstock.telemetry.options import DEFAULT, TelemetryOptions
from penstock.telemetry.sampling import KEPT, TailSampler
from penstock.telemetry.spans import Value
from penstock.telemetry.taxonomy import refusal_signal
from penstock.telemetry.unvouched import fit_to_keep
from penstock.wire.trace_context import traced_as

BATCH: Final = 64

_HASHES: Final = ("prompt_hash", "output_hash")


class Observer:
    """`metrics` and `log` hear of every outcome; `exporters` get the traces that are kept, and the `listener` what was
    decided about each. Without any of these nothing is decided about traces.
    """

    def __init__(self, registry: Registry, metrics: RequestMetrics, log: AccessLog | None) -> None:
        self.metrics, self.log = metrics, log
        self.listener: Callable[[Outcome, str], None] | None = None
        self._traces = registry.counter("penstock_traces_total")
        self._waiting: list[tuple[Outcome, Content | None, tuple[str, str] | None, bool]] = []
        self._exporters: Sequence[SpanExporter] = ()
        self._sampler = TailSampler(DEFAULT.sampling)
        self._reader = Reader(DEFAULT.capture)
        self._holds = self._hashes = False
        registry.before_snapshot(self.look)

    def use(self, options: TelemetryOptions, exporters: Sequence[SpanExporter], hash_key: bytes = b"") -> None:
        """From now on."""
        self.look()
        self._exporters = exporters
        self._sampler = TailSampler(options.sampling)
        self._reader = Reader(options.capture, hash_key)
        self._holds, self._hashes = options.capture.wanted, options.capture.hashes
        if self.log is not None:
            self.log.keys, self.log.service = options.log_keys, options.service

    def on_outcome(self, outcome: Outcome, content: Content | None = None) -> None:
        """Once for each request."""
        hashes, worded = None, False
        if content is not None:
            if outcome.error is None and outcome.finish_reason is not None and outcome.attempts:
                declared = bool(refusal_signal(outcome.finish_reason, outcome.error))
                worded = not declared and reads_like_a_refusal(opening_in(content))
                self.metrics.looked_at(outcome, "declared" if declared else "words" if worded else NONE)
            if self._hashes:
                hashes = self._reader.hashes(content)
            if not self._holds:
                content = None  # what was looked at is forgotten
        self.metrics.on_outcome(outcome)
        if self.log is not None:
            self.log.on_outcome(outcome, hashes)
        if self._exporters or self.listener is not None:
            self._waiting.append((outcome, content, hashes, worded))
            if len(self._waiting) >= BATCH:
                self.look()

    def look(self) -> None:
        """Decide about the traces of those that wait."""
        waiting, self._waiting = self._waiting, []
        decide, verdicts, listener = self._sampler.decide, dict[str, int](), self.listener
        for outcome, content, hashes, worded in waiting:
            trace_id = traced_as(outcome)
            why = decide(outcome, trace_id, worded or bool(refusal_signal(outcome.finish_reason, outcome.error)))
            verdicts[why] = verdicts.get(why, 0) + 1
            if listener is not None:
                listener(outcome, why)
            if why in KEPT:
                self.metrics.show(outcome, trace_id)
                more: dict[str, Value] = {}
                if hashes is not None:
                    more = {name: text for name, text in zip(_HASHES, hashes, strict=True) if text}
                kept = Kept(fit_to_keep(outcome), why, more, content, self._reader)
                for exporter in self._exporters:
                    exporter.offer(kept)
        for why, n in verdicts.items():
            self._traces.labels(why).inc(n)
