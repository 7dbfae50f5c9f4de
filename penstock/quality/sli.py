"""What service levels are measured by: sums of our own metrics, as data.

The same data is read from our numbers by `control.readings` and written as PromQL by `quality.promql`, so what Penstock
finds out by itself and what Prometheus finds out are the same by construction.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

import msgspec


class Match(msgspec.Struct, frozen=True):
    """The label has one of these values; `but_not`: none of them."""

    label: str
    values: tuple[str, ...]
    but_not: bool = False

    def fits(self, value: str) -> bool:
        return (value in self.values) is not self.but_not


class Part(StrEnum):
    """What of a metric is meant."""

    VALUE = "value"  # of a counter or a gauge
    COUNT = "count"  # of a histogram: all that it has seen
    BELOW = "below"  # of a histogram: what was at most `bound`, which must be one of its bounds


class Term(msgspec.Struct, frozen=True):
    """One summand: all series of the metric that fit, added up."""

    metric: str
    where: tuple[Match, ...] = ()
    part: Part = Part.VALUE
    bound: float = 0.0
    minus: bool = False


Sum: TypeAlias = tuple[Term, ...]
"""Whatever is taken away is part of what stands before it."""


class Sli(msgspec.Struct, frozen=True):
    """A service level indicator: bad events of all events. Both only grow."""

    bad: Sum
    events: Sum


class Indicator(StrEnum):
    """What can be promised. The latencies need a threshold, which becomes a bucket's bound."""

    AVAILABILITY = "availability"
    ERRORS = "errors"
    TTFT = "ttft"
    TPOT = "tpot"
    E2E = "e2e"
    QUEUE = "queue"
    REFUSALS = "refusals"
    CAPPED = "capped"
    FEEDBACK = "feedback"


HISTOGRAMS: Final = {
    Indicator.TTFT: "penstock_time_to_first_token_seconds",
    Indicator.TPOT: "penstock_time_per_output_token_seconds",
    Indicator.E2E: "penstock_request_duration_seconds",
    Indicator.QUEUE: "penstock_queue_wait_seconds",
}

_REQUESTS: Final = Term("penstock_requests_total")
_FAILED: Final = Match("of", ("request",))
_FINISHED: Final = Term("penstock_finished_total")
_OPINIONS: Final = ("good", "bad")

IN_WORDS: Final = Sli(
    (Term("penstock_answers_looked_at_total", (Match("signal", ("words",)),)),),
    (Term("penstock_answers_looked_at_total"),),
)
"""Answers that read like refusals, of those that were looked at."""

_COUNTED: Final = {
    # what a caller could have avoided is no event at all, and neither is who left or has used up a limit
    Indicator.AVAILABILITY: Sli(
        (Term("penstock_failures_total", (_FAILED, Match("blame", ("system", "provider")))),),
        (_REQUESTS, Term("penstock_failures_total", (_FAILED, Match("blame", ("caller",))), minus=True)),
    ),
    Indicator.ERRORS: Sli((Term("penstock_requests_total", (Match("error", ("none",), but_not=True),)),), (_REQUESTS,)),
    # some providers answer with a refusal, and others refuse to answer
    Indicator.REFUSALS: Sli(
        (Term("penstock_refusals_total"),),
        (_FINISHED, Term("penstock_refusals_total", (Match("signal", ("content_policy_violation",)),))),
    ),
    Indicator.CAPPED: Sli((Term("penstock_finished_total", (Match("reason", ("length",)),)),), (_FINISHED,)),
    Indicator.FEEDBACK: Sli(
        (Term("penstock_feedback_total", (Match("verdict", ("bad",)),)),),
        (Term("penstock_feedback_total", (Match("verdict", _OPINIONS),)),),
    ),
}


def sli_of(indicator: Indicator, threshold: float | None = None, models: tuple[str, ...] = ()) -> Sli:
    """`threshold` in seconds, for latencies; `models`: of these only, () for all."""
    metric = HISTOGRAMS.get(indicator)
    if metric is None:
        assert threshold is None, f"{indicator} has no threshold"
        found = _COUNTED[indicator]
    else:
        assert threshold is not None, f"{indicator} needs a threshold"
        count = Term(metric, part=Part.COUNT)
        found = Sli((count, Term(metric, part=Part.BELOW, bound=threshold, minus=True)), (count,))
    return Sli(_of(models, found.bad), _of(models, found.events)) if models else found


def _of(models: tuple[str, ...], terms: Sum) -> Sum:
    match = Match("model", models)
    return tuple(msgspec.structs.replace(term, where=(*term.where, match)) for term in terms)


def bounds_of(sums: Sum) -> dict[str, set[float]]:
    """The bounds that histograms must have for these, by their names."""
    found: dict[str, set[float]] = {}
    for term in sums:
        if term.part is Part.BELOW:
            found.setdefault(term.metric, set()).add(term.bound)
    return found
