"""How hard to try, and when to stop: the rules of this room's machines, and what they tell. Plain values.

Seconds and fractions everywhere; `config.resilience` reads them from what people write. Each default has its reason in
docs/resilience.md.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import Final, TypeAlias

import msgspec

from penstock.core.request import Priority


class BreakerRule(msgspec.Struct, frozen=True, gc=False):
    failures: int = 5  # in a row, to open
    open_for: float = 10.0  # seconds, the first time; twice as long after each failed probe
    longest: float = 60.0  # seconds; an `open_for` that is longer stays as it is
    probes: int = 1  # calls let through while half open


class OutlierRule(msgspec.Struct, frozen=True, gc=False):
    """When a replica is left out because it does worse than its like.

    Source of the form: Envoy's outlier detection, with stalls, empty answers and slow first tokens added to it, and
    tests for few samples in the place of a standard deviation over many hosts.
    """

    in_a_row: int = 5  # bad answers: failed, stalled, empty
    share: float = 0.3  # of bad answers, and clearly more than the others have
    slow: float = 3.0  # times as long to the first token as predicted, compared with what the others take
    window: float = 30.0  # seconds in which a sample loses 63 % of its weight
    interval: float = 1.0  # seconds between two looks at everybody
    eject_for: float = 30.0  # seconds, the first time; times as many as it has been ejected lately
    longest: float = 300.0  # seconds
    most: float = 0.1  # of a pool, and always one
    ramp: float = 60.0  # seconds in which a new or recovered replica comes back to its full share


class Why(StrEnum):
    IN_A_ROW = "failures_in_a_row"
    SHARE = "failure_share"
    SLOW = "slow_first_token"


class Ejection(msgspec.Struct, frozen=True, gc=False):
    """A replica is left out. `waiting`: attempts there that have no first token yet, by their tickets; they do well to
    try elsewhere beside it (`attempts.Suspected`)."""

    replica: str
    why: Why
    until: float  # Clock.now() seconds
    waiting: tuple[int, ...]


class HedgeRule(msgspec.Struct, frozen=True, gc=False):
    """When a second attempt starts beside a slow first one, where that follows from what was predicted."""

    quantile: float = 0.95  # of observed / predicted time to the first token
    share: float = 0.02  # hedges per request
    at_least: float = 0.05  # seconds; sooner is jitter
    enough: int = 50  # first tokens seen before there is a quantile to speak of


class ConcurrencyRule(msgspec.Struct, frozen=True, gc=False):
    """How many attempts one replica is given at once, when it does not say itself how many it can take."""

    start: int = 20
    least: int = 1
    most: int = 1_000
    tolerance: float = 1.2  # times as slow as its best, before it gets fewer
    smoothing: float = 0.2  # of the way to the new limit, with each sample


class ShedRule(msgspec.Struct, frozen=True, gc=False):
    """Who is told to come back later, and when. Saturation 1 is a wait of `target`, or a KV cache that is full."""

    low: float = 0.6  # saturation from which some of this class are refused
    normal: float = 0.85
    high: float = 1.0  # `critical` never
    target: float | None = None  # seconds that a newcomer may have to wait; None: as long as a first token may take
    kv_from: float = 0.9  # the KV cache counts from here on: a well used one is no fault
    longest: float = 60.0  # seconds that anybody is asked to stay away

    def begins(self, priority: Priority) -> float:
        return {Priority.LOW: self.low, Priority.NORMAL: self.normal, Priority.HIGH: self.high}.get(priority, inf)


NO_REPLICA: Final = 1e9
"""The saturation of a model that nobody can answer for at the moment: more than any other, and JSON can say it."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One rung of a ladder. `at` and `back` are saturations; it holds from `at` on until there was less than `back`
    for `hold` seconds. Exactly one of the things to do is given."""

    at: float
    back: float
    hold: float = 10.0
    max_tokens: int | None = None  # no answer is longer
    model: str | None = None  # another one answers
    cached_for: float | None = None  # an answer to the same question that is no older (seconds) will do
    answer: str | None = None  # this text is the answer

    @property
    def name(self) -> str:
        """As the caller is told."""
        if self.max_tokens is not None:
            return f"max_tokens={self.max_tokens}"
        if self.model is not None:
            return f"model={self.model}"
        return "cached" if self.cached_for is not None else "static"


Ladder: TypeAlias = tuple[Step, ...]  # the mildest first: `at` never falls
