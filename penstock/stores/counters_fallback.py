"""Counters that several hosts share and, while they are out of reach, this process alone with its share of each limit.

What that costs, exactly: of `n` holders that are cut off each allows `limit // n` of a limit (but 1 at least) on its
own. A rate that was used up just before can so be used once more in the same window: together at most twice, for each
time that the counters go away. Of a budget each spends its part of what the ledger says was left, so together no more
than the limit, and what was reserved at that moment elsewhere. Requests that began alone do not count as concurrent
ones for the others. A `strict` limit refuses instead. What was used is counted for all as soon as they can be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isinf
from typing import Final

from msgspec import structs

from penstock.core.clock import Clock
from penstock.limits.charges import Charge, Granted, Kind, Refused, Verdict
from penstock.stores.base import Counters, CountersUnavailable

SOON: Final = 1.0  # seconds to wait for what is more than one holder's share
QUIET: Final = 60.0  # seconds with the shared counters, after which going alone begins anew


class FallbackCounters:
    """`alone` counts the reservations that were decided here. `holders` says how many there are, as last known; one
    that has never reached the others knows of itself alone.
    """

    def __init__(
        self, shared: Counters, local: Callable[[], Counters], clock: Clock, *, holders: Callable[[], int]
    ) -> None:
        """`local` makes empty counters."""
        self.alone = 0
        self.reachable = True  # at the last reservation
        self._shared, self._make, self._clock, self._holders = shared, local, clock, holders
        self._local: Counters | None = None
        self._n = 1  # holders, as long as `_local` is in use
        self._alone_at = 0.0  # when that was last asked
        self._open: dict[str, tuple[Counters, Granted]] = {}

    def reserve_now(self, id: str, charges: tuple[Charge, ...]) -> Verdict | None:
        try:
            verdict = self._shared.reserve_now(id, charges)
        except CountersUnavailable:
            return None
        if verdict is not None:
            self.reachable = True
        return verdict

    async def reserve(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        try:
            verdict = await self._shared.reserve(id, charges)
        except CountersUnavailable:
            self.reachable = False
            if any(charge.strict for charge in charges):
                raise
            return await self._reserve_alone(id, charges)
        self.reachable = True
        return verdict

    def settle(self, granted: Granted, costs: Sequence[int]) -> None:
        local = self._open.pop(granted.id, None)
        if local is None:
            self._shared.settle(granted, costs)
            return
        granted.settled = True
        counters, here = local
        counters.settle(here, costs)
        self._shared.spend(
            granted.id,
            [structs.replace(charge, cost=cost) for charge, cost in zip(granted.charges, costs, strict=True) if cost],
        )

    def spend(self, id: str, charges: Sequence[Charge]) -> None:
        self._shared.spend(id, charges)

    async def seed(self, counter: str, settled: int, window: int) -> None:
        try:
            await self._shared.seed(counter, settled, window)
        except CountersUnavailable:
            local = self._begin()
            await local.seed(counter, -(-settled // self._n), window)

    async def used(self, charges: tuple[Charge, ...]) -> tuple[int, ...]:
        try:
            return await self._shared.used(charges)
        except CountersUnavailable:
            local = self._begin()
            mine = tuple(map(self._share, charges))
            return _with_the_others(charges, mine, await local.used(mine))

    async def tend(self) -> None:
        if self._local is not None:
            await self._local.tend()
        await self._shared.tend()
        if self._clock.now() - self._alone_at > QUIET:
            self._local = None

    async def close(self) -> None:
        await self._shared.close()

    async def _reserve_alone(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        local = self._begin()
        mine = tuple(map(self._share, charges))
        verdict = await local.reserve(id, mine)
        if isinstance(verdict, Granted):
            self.alone += 1
            self._open[id] = local, verdict
            used = _with_the_others(charges, mine, verdict.used)
            return Granted(id, charges, used, verdict.since, verdict.expires_at)
        if isinstance(verdict, Refused):
            self.alone += 1
            longest, wait = charges[verdict.which], verdict.wait
            if isinf(wait) and longest.cost <= longest.limit:
                wait = SOON
            return Refused(charges, verdict.which, wait, _with_the_others(charges, mine, verdict.used))
        return verdict

    def _begin(self) -> Counters:
        self._alone_at = self._clock.now()
        if self._local is None:
            self._n = max(1, self._holders())
            self._local = self._make()
        return self._local

    def _share(self, charge: Charge) -> Charge:
        limit = charge.limit // self._n
        return structs.replace(charge, limit=limit if limit or charge.kind is Kind.BUDGET else min(1, charge.limit))


def _with_the_others(charges: Sequence[Charge], mine: Sequence[Charge], used: Sequence[int]) -> tuple[int, ...]:
    """As if the others had used all of theirs: so what is left is what is left here."""
    return tuple(n + charge.limit - own.limit for charge, own, n in zip(charges, mine, used, strict=True))


_: type[Counters] = FallbackCounters
