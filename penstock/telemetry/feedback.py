"""Counts what is said of answers, and what sessions do about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from penstock.core.outcome import Outcome
from penstock.quality.feedback import Derived, Sessions, Signal, Verdict
from penstock.telemetry.catalogue import UNKNOWN
from penstock.telemetry.metrics import Registry

LOOK_EVERY: Final = 10.0  # seconds between looks for sessions that have not come back


class FeedbackMetrics:
    """`count` is for whoever takes feedback, `on_outcome` for every receipt. Derived signals are counted as neutral:
    they are hints, and no promise is broken by one.
    """

    def __init__(self, registry: Registry, wall: Callable[[], float]) -> None:
        """`wall` answers Unix seconds."""
        self._family, self._wall = registry.counter("penstock_feedback_total"), wall
        self._sessions = Sessions()
        self._looked_at = wall()

    def count(self, model: str, signal: Signal, verdict: Verdict) -> None:
        """`model` "" : nobody knows it yet."""
        self._family.labels(model or UNKNOWN, signal, verdict).inc()

    def on_outcome(self, outcome: Outcome) -> None:
        if outcome.session and (derived := self._sessions.on_outcome(outcome)) is not None:
            self._derived(derived)

    def look(self) -> None:
        """Now and then; most times it does nothing."""
        now = self._wall()
        if now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
            for derived in self._sessions.gone(now):
                self._derived(derived)

    def _derived(self, derived: Derived) -> None:
        self.count(derived.model, derived.signal, Verdict.NEUTRAL)
