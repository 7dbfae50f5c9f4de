"""Counters that hosts share, of which this worker leases blocks, so that most requests need no round trip.

A request is decided here when all of its limits can be leased and their blocks are enough for it. All others ask the
shared counters, once for everything: those with a `strict` limit, those with a limit too small to be divided, and those
for which a block is not enough. So nobody is refused by anything but the shared counters, and nobody is allowed
anything that they have not counted. See `limits.blocks` for what may be exceeded, and by how much.

A block is as large as the number of holders permits. Whoever is new waits with leasing until all others have heard of
it, and whoever has not heard of the others for as long spends nothing: so all together never hold more than is stated.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final

from msgspec import structs

from penstock.core.clock import Clock
from penstock.limits.blocks import FEW, Block, HeldBlock, RateBlock, block, most
from penstock.limits.charges import MICRO, Charge, Granted, Kind, Refused, Unseeded, Verdict
from penstock.stores.base import Counters, CountersUnavailable

FRESH: Final = 10.0  # seconds
TELL_EVERY: Final = 0.05  # seconds that what was used may wait to be told, together with what comes after it
IDLE: Final = 1.0  # seconds in which a counter must be used to be leased, and to stay so
MOST_BLOCKS: Final = 10_000

_Open = tuple[Sequence[Block], Sequence[Granted | None]]


class LeasedCounters:
    """One holder. Needs a running event loop. `here` counts what was decided here, `asked` what was asked of others.

    `tend` is to be called several times in each `fresh` seconds: it tells whether this holder has heard of the others.
    """

    def __init__(self, shared: Counters, clock: Clock, *, holders: Callable[[], int], fresh: float = FRESH) -> None:
        """`holders` says how many share the counters, as of the last `shared.tend`. Other holders' `fresh` is the same,
        and less than the time for which the shared counters keep a reservation alive.
        """
        self.here = 0
        self.asked = 0
        self._shared, self._clock, self._holders, self._fresh = shared, clock, holders, fresh
        self._loop = asyncio.get_running_loop()
        self._n = 1
        self._lease_from = inf  # all others know of this holder
        self._spend_until = -inf  # this holder knows of all others
        self._blocks: dict[str, Block] = {}
        self._open: dict[str, _Open] = {}
        self._wanted: set[str] = set()  # counters that were used since the last look, and are not leased
        self._to_tell: dict[Block, None] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._leasing: set[asyncio.Task[None]] = set()  # `close` waits for them
        self._prefix, self._number = f"lease-{os.urandom(8).hex()}-", 0
        self._closed = False

    def reserve_now(self, id: str, charges: tuple[Charge, ...]) -> Verdict | None:
        now = self._clock.now()
        if now >= self._spend_until:
            return None
        blocks: list[Block] = []
        for charge in charges:
            mine = self._blocks.get(charge.counter)
            if mine is None or mine.left < charge.cost or mine.limit != charge.limit or charge.strict:
                return None
            blocks.append(mine)
        return self._take(id, charges, blocks, now)

    async def reserve(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        return self.reserve_now(id, charges) or await self._ask(id, charges)

    def settle(self, granted: Granted, costs: Sequence[int]) -> None:
        taken = self._open.pop(granted.id, None)
        if taken is None:
            self._shared.settle(granted, costs)
            return
        granted.settled = True
        blocks, leases = taken
        for n, charge in enumerate(granted.charges):
            mine = blocks[n]
            if mine.settle(charge.cost, costs[n], leases[n]):
                self._tell_soon(mine)

    def spend(self, id: str, charges: Sequence[Charge]) -> None:
        self._shared.spend(id, charges)

    async def seed(self, counter: str, settled: int, window: int) -> None:
        await self._shared.seed(counter, settled, window)

    async def used(self, charges: tuple[Charge, ...]) -> tuple[int, ...]:
        """What others have leased, and not used, is in it."""
        self._tell_all()
        return self._but_for_mine(charges, await self._shared.used(charges))

    async def tend(self) -> None:
        began = self._clock.now()
        anew = began >= self._spend_until
        if anew:  # the others may do as if this holder were not there
            self._lease_from = inf
            self._give_back(list(self._blocks.values()))
        self._tell_all()
        await self._shared.tend()
        self._n = max(1, self._holders())
        self._spend_until = began + self._fresh
        if anew:
            self._lease_from = self._clock.now() + self._fresh
        for mine in self._blocks.values():
            mine.most = most(mine.charge, self._n)
            self._tell(mine)

    def give_back_idle(self) -> None:
        """Blocks that nobody has taken anything of since this was last done. It is done by itself, every `IDLE`."""
        stale = self._clock.now() >= self._spend_until
        self._give_back([mine for mine in self._blocks.values() if mine.idle or stale])
        for mine in self._blocks.values():
            mine.idle, mine.resting = True, False
        self._wanted.clear()

    async def close(self) -> None:
        self._closed = True
        for timer in (self._telling, self._looking):
            if timer is not None:
                timer.cancel()
        for task in self._leasing:
            task.cancel()
        if self._leasing:
            await asyncio.wait(self._leasing)
        self._give_back(list(self._blocks.values()))
        self._tell_all()
        for mine in dict.fromkeys(mine for blocks, _ in self._open.values() for mine in blocks):
            self._settle(mine, mine.drop())
        await self._shared.close()

    # --- deciding ---

    def _take(self, id: str, charges: tuple[Charge, ...], blocks: list[Block], now: float) -> Granted:
        self.here += 1
        leases, used = [], []
        for n, charge in enumerate(charges):
            mine = blocks[n]
            leases.append(mine.lease)
            used.append(mine.take(charge.cost, now))
            if mine.wants and not (mine.leasing or mine.resting):
                self._lease_soon(mine, charge.cost, now)
        self._open[id] = blocks, leases
        since = int(now * MICRO)
        return Granted(id, charges, tuple(used), since, since)

    async def _ask(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        self.asked += 1
        for charge in charges:
            mine = self._blocks.get(charge.counter)
            if mine is not None and (mine.limit != charge.limit or charge.strict):  # the limit is another one now
                self._give_back([mine])
        verdict = await self._shared.reserve(id, charges)
        if type(verdict) is Refused and self._gave_way(charges, verdict.used):
            verdict = await self._shared.reserve(id, charges)
        if type(verdict) is Unseeded:  # leases of what the counters have forgotten are forgotten too
            self._give_back([self._blocks[counter] for counter in verdict.counters if counter in self._blocks])
        elif type(verdict) is Granted:
            self._lease_all(charges, verdict.used)
            verdict.used = self._but_for_mine(charges, verdict.used)
        return verdict

    def _gave_way(self, charges: tuple[Charge, ...], used: tuple[int, ...]) -> bool:
        """It would fit but for what is left in blocks here; they are given back."""
        mine = []
        for charge, n in zip(charges, used, strict=True):
            if n + charge.cost > charge.limit and charge.cost and not charge.soft:
                own = self._blocks.get(charge.counter)
                if own is None or n + charge.cost > charge.limit + own.unused:
                    return False
                mine.append(own)
        self._give_back(mine)
        return True

    def _but_for_mine(self, charges: tuple[Charge, ...], used: tuple[int, ...]) -> tuple[int, ...]:
        """What the counters hold, without what is left of it here."""
        blocks = self._blocks
        if not any(charge.counter in blocks for charge in charges):
            return used
        now, numbers = self._clock.now(), []
        for charge, n in zip(charges, used, strict=True):
            mine = blocks.get(charge.counter)
            if mine is not None:
                mine.saw(n, now)
                n = mine.used(now)
            numbers.append(n)
        return tuple(numbers)

    # --- leasing ---

    def _lease_all(self, charges: tuple[Charge, ...], used: tuple[int, ...]) -> None:
        """So that the next such request is decided here; not the first within `IDLE`, and not when one of its limits
        cannot be leased.
        """
        now, n, blocks = self._clock.now(), self._n, self._blocks
        if not self._lease_from <= now < self._spend_until or self._closed:
            return
        lacking = []
        for charge, so_far in zip(charges, used, strict=True):
            mine = blocks.get(charge.counter)
            if mine is None or mine.left < charge.cost:
                if charge.strict or block(charge, charge.limit - so_far, n) < FEW * max(1, charge.cost):
                    return
                lacking.append((charge, so_far))
        new = [charge.counter for charge, _ in lacking if charge.counter not in blocks]
        if not self._wanted.issuperset(new):
            if len(self._wanted) < MOST_BLOCKS:
                self._wanted.update(new)
            self._look_soon()
            return
        if len(blocks) + len(new) > MOST_BLOCKS:
            return
        for charge, so_far in lacking:
            mine = blocks.get(charge.counter)
            if mine is None:
                kind = RateBlock if charge.kind is Kind.RATE else HeldBlock
                mine = blocks[charge.counter] = kind(structs.replace(charge, cost=0), most(charge, n))
            mine.saw(so_far, now)
            if not (mine.leasing or mine.resting):
                self._lease_soon(mine, charge.cost, now)
        self._wanted.difference_update(new)
        self._look_soon()

    def _lease_soon(self, mine: Block, cost: int, now: float) -> None:
        size = block(mine.charge, mine.limit - mine.used(now) - mine.left, self._n)
        room = mine.most - mine.left
        if size < FEW * max(1, cost) or room < 1 or now < self._lease_from or self._closed:
            mine.resting = True
            return
        mine.leasing = True
        task = self._loop.create_task(self._lease(mine, min(size, room)))
        self._leasing.add(task)
        task.add_done_callback(self._leasing.discard)

    async def _lease(self, mine: Block, size: int) -> None:
        try:
            for units in mine.parts(size):
                charge = structs.replace(mine.charge, cost=units)
                self._number += 1
                verdict = await self._shared.reserve(f"{self._prefix}{self._number}", (charge,))
                if type(verdict) is not Granted:
                    mine.resting = True
                    if type(verdict) is Unseeded:
                        self._give_back([mine])
                    elif type(verdict) is Refused:
                        mine.saw(verdict.used[0], self._clock.now())
                    return
                if self._blocks.get(charge.counter) is not mine:  # it was given back meanwhile
                    self._shared.settle(verdict, [0])
                    return
                if charge.kind is Kind.RATE:  # which nobody has to keep alive
                    self._shared.settle(structs.replace(verdict), [units])
                mine.add(verdict)
                mine.saw(verdict.used[0], self._clock.now())
                self._tell(mine)
        except CountersUnavailable:
            mine.resting = True
        finally:
            mine.leasing = False

    def _give_back(self, blocks: Iterable[Block]) -> None:
        """All that is left; and what requests still have, when they end."""
        for mine in blocks:
            if self._blocks.get(mine.charge.counter) is mine:
                del self._blocks[mine.charge.counter]
            mine.most = 0
            self._tell(mine)

    def _look_soon(self) -> None:
        if self._looking is None:
            self._looking = self._loop.call_later(IDLE, self._look)

    def _look(self) -> None:
        self._looking = None
        self.give_back_idle()
        if self._blocks:
            self._look_soon()

    # --- telling ---

    def _tell_soon(self, mine: Block) -> None:
        self._to_tell[mine] = None
        if self._closed:
            self._tell_all()
        elif self._telling is None:
            self._telling = self._loop.call_later(TELL_EVERY, self._tell_all)

    def _tell_all(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        for mine in self._to_tell:
            self._tell(mine)
        self._to_tell.clear()

    def _tell(self, mine: Block) -> None:
        self._settle(mine, mine.tell())

    def _settle(self, mine: Block, told: Iterable[tuple[Granted | None, int]]) -> None:
        for lease, cost in told:
            if lease is not None:
                self._shared.settle(lease, [cost])
            else:
                self._number += 1
                self._shared.spend(f"{self._prefix}{self._number}", (structs.replace(mine.charge, cost=cost),))


_: type[Counters] = LeasedCounters
