"""When a second attempt starts beside a slow first one: where it is later than 19 of 20 are, relative to what was
predicted for it. A fixed time would hedge all long prompts and no short one.

Source: J. Dean, L. A. Barroso, "The Tail at Scale", CACM 2013: hedged requests, deferred to the 95th percentile.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from penstock.core.plan import Plan
from penstock.resilience.options import HedgeRule
from penstock.resilience.sketch import Sketch

MOST_SAVED: Final = 10.0  # hedges that a quiet time leaves for a burst


class HedgeBudget:
    """Hedges are at most `share` of the requests, counted from the start; besides, each takes from the retry budget."""

    __slots__ = ("_credit", "_share", "hedges")

    def __init__(self, share: float) -> None:
        assert 0 <= share <= 1
        self._share = share
        self._credit = 0.0
        self.hedges = 0

    def on_request(self) -> None:
        self._credit = min(MOST_SAVED, self._credit + self._share)

    @property
    def affords(self) -> bool:
        return self._credit >= 1.0 - 1e-9  # fifty times 0.02 are a hair less than 1

    def spend(self) -> None:
        assert self.affords, "ask first"
        self._credit -= 1.0
        self.hedges += 1


class Hedging:
    """What one model's first tokens have taken, relative to the predictions."""

    __slots__ = ("_ratios", "budget", "rule")

    def __init__(self, rule: HedgeRule) -> None:
        self.rule = rule
        self.budget = HedgeBudget(rule.share)
        self._ratios = Sketch(0.02, 50.0)

    def learn(self, predicted: float, took: float) -> None:
        """Seconds. Also of an attempt that was cancelled because its hedge was faster: it took at least so long."""
        if predicted > 0.0:
            self._ratios.add(max(1e-6, took) / predicted)

    def after(self, predicted: float) -> float | None:
        """Seconds without a first token until a hedge is worth it; None while too little is known."""
        if predicted <= 0.0 or self._ratios.n < self.rule.enough:
            return None
        return max(self.rule.at_least, predicted * self._ratios.quantile(self.rule.quantile))


def with_hedge(plan: Plan, hedging: Hedging | None, predicted: float) -> Plan:
    """The plan for one request. A time that was written down stays; without `hedging`, or where the first token is the
    whole answer (`plan.for_plain`: give no `hedging`), nothing changes."""
    if hedging is None or plan.hedge_after is not None:
        return plan
    after = hedging.after(predicted)
    return plan if after is None else replace(plan, hedge_after=after)
