"""Service level objectives: what is promised, how fast its error budget burns, and when somebody is told.

A budget is the share of events that may be bad. Burning it at 1 uses it up exactly at the end of the period. An alert
needs two windows: the long one says that it matters, the short one that it still happens (Beyer et al., The Site
Reliability Workbook, chapter 5, table 5-8; the third row is a usual addition to it).
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from penstock.quality.sli import Indicator, Sli, sli_of

Severity: TypeAlias = Literal["page", "ticket"]

DAY: Final = 86_400.0
HOUR: Final = 3_600.0


class Queries(msgspec.Struct, frozen=True):
    """An indicator of somebody else's metrics, which Prometheus alone can evaluate: rates of bad and of all events, in
    PromQL, with `{{.window}}` in the place of the range. `events` is "" where `bad` is the share itself."""

    bad: str
    events: str = ""


class Slo(msgspec.Struct, frozen=True):
    """`objective` of events are good, over any `period` in seconds. `threshold` is in seconds, for latencies."""

    name: str
    objective: float  # 0 < objective < 1
    indicator: Indicator | None = Indicator.AVAILABILITY  # None: `queries`
    threshold: float | None = None
    models: tuple[str, ...] = ()  # () : all
    period: float = 30 * DAY
    min_events: int = 50  # in the long window; fewer say nothing
    queries: Queries | None = None

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return 1.0 - self.objective

    @property
    def sli(self) -> Sli | None:
        return None if self.indicator is None else sli_of(self.indicator, self.threshold, self.models)


_PROMISES: Final = {
    Indicator.AVAILABILITY: "{share} of requests do not fail, but for what their callers could have avoided",
    Indicator.ERRORS: "{share} of requests do not fail",
    Indicator.TTFT: "{share} of first tokens come within {within}",
    Indicator.TPOT: "{share} of answers have their next token within {within}",
    Indicator.E2E: "{share} of answers are whole within {within}",
    Indicator.QUEUE: "{share} of requests wait no longer than {within} for a replica",
    Indicator.REFUSALS: "{share} of answers are not refusals",
    Indicator.CAPPED: "{share} of answers are not cut at their cap of tokens",
    Indicator.FEEDBACK: "{share} of opinions about answers are good",
}


def promise(slo: Slo) -> str:
    """What is promised, as a sentence without its full stop."""
    share = f"{slo.objective * 100:g}%"
    if slo.indicator is None:
        return f"{share} of {slo.name} are good"
    within = "" if slo.threshold is None else f"{slo.threshold:g} s"
    said = _PROMISES[slo.indicator].format(share=share, within=within)
    return f"{said} ({', '.join(slo.models)})" if slo.models else said


class Window(msgspec.Struct, frozen=True):
    """A row of the table: this share of the budget is gone within `long` seconds."""

    long: float
    share: float
    severity: Severity

    @property
    def short(self) -> float:
        return self.long / 12

    def factor(self, period: float) -> float:
        """The burn rate that uses up `share` of the budget of a period within the long window."""
        return self.share * period / self.long


WINDOWS: Final = (
    Window(HOUR, 0.02, "page"),
    Window(6 * HOUR, 0.05, "page"),
    Window(DAY, 0.10, "ticket"),
    Window(3 * DAY, 0.10, "ticket"),
)
"""Over 30 days: 14.4, 6, 3 and 1 times what the budget allows."""
LONGEST: Final = max(window.long for window in WINDOWS)
SPANS: Final = tuple(sorted({span for window in WINDOWS for span in (window.long, window.short)}))


class Seen(msgspec.Struct, frozen=True):
    """Events within some time. Not whole numbers where they are what is left of a rate."""

    bad: float
    events: float


class Burn(msgspec.Struct, frozen=True):
    """How fast the budget goes: 1 is as fast as it may. None: nothing happened in that time, so nobody knows."""

    window: Window
    factor: float
    long: float | None
    short: float | None
    enough: bool  # events in the long window to say something

    @property
    def alerts(self) -> bool:
        return self.enough and (self.long or 0.0) > self.factor and (self.short or 0.0) > self.factor


def rate(seen: Seen, budget: float) -> float | None:
    return seen.bad / seen.events / budget if seen.events > 0 else None


def budget_left(seen: Seen, budget: float) -> float | None:
    """What is left of the budget of a period, given what was seen in it: 1 is all, below 0 is overdrawn."""
    burnt = rate(seen, budget)
    return None if burnt is None else 1.0 - burnt


def burn(slo: Slo, window: Window, long: Seen, short: Seen) -> Burn:
    return Burn(
        window,
        window.factor(slo.period),
        rate(long, slo.budget),
        rate(short, slo.budget),
        long.events >= slo.min_events,
    )
