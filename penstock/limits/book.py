"""All counters of one place: reserve on any number of them or on none, settle once, let the dead go.

This is the reference. The store in memory is this; the Redis scripts say the same in Lua, and a test holds them to it.
Times are microseconds. A clock that is set back neither frees nor blocks anybody: counting goes on from the last time.

For every hard budget `settled + reserved <= limit`, and for every gauge `reserved <= limit`, at every moment, unless
more was used than reserved: then `settle` says by how much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from penstock.limits.bucket import Bucket
from penstock.limits.budget import Budget, Gauge
from penstock.limits.charges import MICRO, Charge, Granted, Kind, Over, Refused, Unseeded, Verdict

LOOK_AT: Final = 5_000  # counters in one `forget`: a millisecond

Counter = Bucket | Gauge | Budget


class Book:
    """Bounded by what is in use: `forget` drops what has run dry, ended or been let go."""

    __slots__ = ("_counters", "_now", "_open", "_shift", "_to_look_at")

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._open: dict[str, Granted] = {}
        self._now = 0
        self._shift = 0  # by how much the clock was set back since the beginning
        self._to_look_at: list[str] = []

    def reserve(self, id: str, charges: tuple[Charge, ...], now: int, hold: int) -> Verdict:
        """All of it or nothing. No counter may occur twice. Unless renewed, it is let go after `hold` microseconds.

        First come, first served: whoever is refused keeps no place in a queue.
        """
        now = self._onward(now)
        counters: list[Counter] = []
        for charge in charges:
            counter = self._counters.get(charge.counter) or self._begin(charge)
            if counter is None or not counter.fits(charge, now):
                return self._refuse(charges, now)
            counters.append(counter)
        assert id not in self._open, f"reservation {id} is still open"
        used = tuple([counters[n].take(charge, now) for n, charge in enumerate(charges)])
        granted = self._open[id] = Granted(id, charges, used, now, now + hold)
        return granted

    def settle(self, granted: Granted, costs: Sequence[int], now: int) -> tuple[Over, ...]:
        """What it really cost, a number for each charge (a gauge's does not matter): more or less than was reserved.

        Once: again does nothing. After it was let go as dead, what was used is counted all the same.
        """
        if granted.settled:
            return ()
        granted.settled = True
        reserved = self._open.pop(granted.id, None) is not None
        return self._settle(granted.id, granted.charges, costs, granted.since, now, reserved)

    def spend(self, id: str, charges: Sequence[Charge], now: int) -> tuple[Over, ...]:
        """Count what was used without having been reserved. Gauges are left as they are."""
        free = [Charge(c.counter, c.kind, c.limit, 0, c.window, c.soft) for c in charges]
        return self._settle(id, free, [charge.cost for charge in charges], 0, now, False)

    def seed(self, counter: str, settled: int, window: int, now: int) -> None:
        """At least `settled` was spent on this budget, says the ledger; its calendar window has `window` seconds left.

        Raises and never lowers, so that any number of seeds by anybody count once.
        """
        budget = self._counters.get(counter)
        if budget is None:
            budget = self._counters[counter] = Budget()
        assert type(budget) is Budget, counter
        budget.seed(settled, window, self._onward(now))

    def renew(self, ids: Iterable[str], now: int, hold: int) -> None:
        """Their holders live: they are kept for another `hold` microseconds. Those let go by now stay so."""
        now = self._onward(now)
        for id in ids:
            granted = self._open.get(id)
            if granted is not None:
                granted.expires_at = now + hold

    def expire(self, now: int) -> list[str]:
        """Let go of what nobody has settled or renewed: its holder is dead. Whose that was."""
        now = self._onward(now)
        dead = [granted for granted in self._open.values() if granted.expires_at <= now]
        for granted in dead:
            del self._open[granted.id]
            for charge in granted.charges:
                if (counter := self._counters.get(charge.counter)) is not None:
                    counter.release(charge.cost)
        return [granted.id for granted in dead]

    def forget(self, now: int, most: int = LOOK_AT) -> None:
        """Look at `most` counters, in turn, and drop those that nobody uses."""
        now = self._onward(now)
        if not self._to_look_at:
            self._to_look_at = list(self._counters)
        for name in self._to_look_at[-most:]:
            if (counter := self._counters.get(name)) is not None and counter.idle(now):
                del self._counters[name]
        del self._to_look_at[-most:]

    def used(self, charge: Charge, now: int) -> int:
        """What its counter holds, in whole units, rounded up."""
        counter = self._counters.get(charge.counter)
        return 0 if counter is None else counter.used(charge, self._onward(now))

    def _onward(self, now: int) -> int:
        now += self._shift
        if now < self._now:
            self._shift += self._now - now
            now = self._now
        self._now = now
        return now

    def _begin(self, charge: Charge) -> Counter | None:
        """None: only `seed` begins a budget."""
        if charge.kind is Kind.BUDGET:
            return None
        counter = self._counters[charge.counter] = Bucket() if charge.kind is Kind.RATE else Gauge()
        return counter

    def _refuse(self, charges: tuple[Charge, ...], now: int) -> Refused | Unseeded:
        counters, unseeded = [], []
        for charge in charges:
            counter = self._counters.get(charge.counter) or self._begin(charge)
            if counter is None:
                unseeded.append(charge.counter)
            else:
                counters.append(counter)
        return Unseeded(tuple(unseeded)) if unseeded else refusal(charges, counters, now)

    def _settle(
        self, id: str, charges: Sequence[Charge], costs: Sequence[int], since: int, now: int, reserved: bool
    ) -> tuple[Over, ...]:
        now = self._onward(now)
        overs = []
        assert len(charges) == len(costs), f"{id}: {len(costs)} costs for {len(charges)} charges"
        for n, charge in enumerate(charges):
            counter = self._counters.get(charge.counter) or self._begin(charge)
            if counter is None:  # a budget long over: the ledger knows
                continue
            by = counter.settle(charge, costs[n], since, now, reserved)
            if by:
                overs.append(Over(id, charge, by))
        return tuple(overs)


def refusal(charges: tuple[Charge, ...], counters: list[Counter], now: int) -> Refused:
    waits = [counter.wait(charge, now) for counter, charge in zip(counters, charges, strict=True)]
    used = tuple([counter.used(charge, now) for counter, charge in zip(counters, charges, strict=True)])
    longest = max(waits)
    return Refused(charges, waits.index(longest), longest / MICRO, used)
