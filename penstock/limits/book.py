"""The counters themselves: reserve on any number of them or on none, settle once, let the dead go.

This is the reference. The store in memory is this; the Redis scripts say the same in Lua, and a test holds them to it.
Times are microseconds on one scale that never runs backwards; a `now` before the last one counts as the last one.

For every hard budget `settled + reserved <= limit`, and for every gauge `reserved <= limit`, at every moment, unless a
settlement took more than it had reserved: then `settle` says by how much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from penstock.limits.bucket import Bucket, wait
from penstock.limits.charges import MICRO, Charge, Granted, Kind, Over, Refused, Unseeded, Verdict

SOON: Final = MICRO  # to wait for what others hold: nobody knows when they settle
GRACE: Final = 86_400  # seconds that a budget is remembered after its window: for late settlements, and odd clocks

_RATE, _GAUGE, _BUDGET = Kind.RATE, Kind.GAUGE, Kind.BUDGET


class Budget:
    __slots__ = ("forget_at", "reserved", "settled")

    def __init__(self, settled: int, forget_at: int) -> None:
        self.settled = settled
        self.reserved = 0
        self.forget_at = forget_at


class Book:
    """All counters of one place. Bounded by what is in use: `forget` drops what has run dry, ended or been let go."""

    __slots__ = ("_budgets", "_buckets", "_gauges", "_now", "_open")

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}
        self._gauges: dict[str, int] = {}
        self._budgets: dict[str, Budget] = {}
        self._open: dict[str, Granted] = {}
        self._now = 0

    def reserve(self, id: str, charges: tuple[Charge, ...], now: int, hold: int) -> Verdict:
        """All of it or nothing. `id` is new; nobody settling or renewing it for `hold` microseconds frees it.

        Whoever comes first gets it: a refusal keeps no place in a queue.
        """
        if now > self._now:
            self._now = now
        else:
            now = self._now
        if any_refused := self._look(charges, now):
            return any_refused
        used = []
        for charge in charges:
            kind, counter, cost = charge.kind, charge.counter, charge.cost
            if kind is _RATE:
                bucket = self._buckets.get(counter)
                if bucket is None:
                    bucket = self._buckets[counter] = Bucket(now)
                at, held = bucket.drained(charge.limit, charge.window, now)
                if cost:
                    bucket.add(at, held, cost * MICRO, now)
                    held += cost * MICRO
                used.append(-(-held // MICRO))
            elif kind is _GAUGE:
                self._gauges[counter] = in_use = self._gauges.get(counter, 0) + cost
                used.append(in_use)
            else:
                budget = self._budgets[counter]
                budget.reserved += cost
                budget.forget_at = now + (charge.window + GRACE) * MICRO
                used.append(budget.settled + budget.reserved)
        granted = Granted(id, charges, tuple(used), now, now + hold)
        assert id not in self._open, f"reservation {id} is already open"
        self._open[id] = granted
        return granted
