"""A retry budget: retries may add only so much load, so that an outage is not answered with a storm.

Source: Finagle's RetryBudget: a bucket that every request fills a little and every retry empties by one, what is in it
leaking away over a time to live, with a minimum rate for quiet services.
"""

from __future__ import annotations

from math import exp


class RetryBudget:
    """At most `ratio` extra attempts per request plus `per_second`, both averaged over `window` seconds.

    Retrying without a budget, for comparisons, is a ratio as large as the most attempts of a request.
    """

    __slots__ = ("_at", "_credit", "_deposits", "_floor", "_per_second", "_ratio", "_window", "refused")

    def __init__(self, ratio: float = 0.2, per_second: float = 10.0, window: float = 10.0) -> None:
        assert ratio >= 0 and per_second >= 0 and window > 0
        self._ratio, self._per_second, self._window = ratio, per_second, window
        self._floor = per_second * window  # what may be spent at once in a quiet hour
        self._credit = 0.0  # deposits of requests up to `_at`, of which each leaks away over `window`
        self._deposits = 0.0  # since then
        self._at = 0.0
        self.refused = 0

    def on_request(self) -> None:
        """A deposit. What leaks away is only counted when somebody wants to spend, so this is one addition."""
        self._deposits += self._ratio

    def take(self, now: float) -> bool:
        """One more attempt, please. Says no when the budget is spent."""
        self._leak(now)
        if self._credit + self._floor < 1.0:
            self.refused += 1
            return False
        if self._credit >= 1.0:
            self._credit -= 1.0
        else:
            self._floor -= 1.0 - self._credit
            self._credit = 0.0
        return True

    def _leak(self, now: float) -> None:
        """Deposits since the last time are taken to have come evenly: many requests and no retry for an hour leave what
        the last `window` of them would have left."""
        gone = now - self._at
        if gone <= 0:
            self._credit += self._deposits
            self._deposits = 0.0
            return
        self._at = now
        left = exp(-gone / self._window)
        self._credit = self._credit * left + self._deposits * (1.0 - left) * self._window / gone
        self._deposits = 0.0
        self._floor = min(self._per_second * self._window, self._floor + gone * self._per_second)
