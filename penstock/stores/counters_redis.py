"""Counters that several machines share: one round trip to Redis for a reservation, whatever it is charged on.

All keys carry the hash tag `{limits}`, so a cluster keeps them in one slot. The server must not evict
(`maxmemory-policy noeviction`): a counter that vanishes is a limit that starts anew. Budgets survive even that, because
they are seeded from the ledger before they are used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, Final

import hiredis
import msgspec
from msgspec import structs

from penstock.core.clock import Clock
from penstock.limits.charges import MICRO, Charge, Granted, Over, Refused, Unseeded, Verdict
from penstock.stores.base import Counters, CountersUnavailable
from penstock.stores.counters_lua import ALL, HOLDERS, MOST_DEAD, RESERVE, SEED, SETTLE, TEND, VERSION, Script
from penstock.stores.counters_memory import HOLD
from penstock.stores.redis import PASSING, Redis, RedisGone
from penstock.stores.redis_address import parse_url

MOST_PENDING: Final = 100_000  # settlements that Redis has not confirmed; beyond that the oldest are lost, and counted
IN_FLIGHT: Final = 1_000  # settlements on their way at once
AT_ONCE: Final = 500  # reservations kept alive by one command
GOODBYE: Final = 3.0  # seconds for what is pending at `close`

Command = tuple[str | bytes | int, ...]

_encode = msgspec.msgpack.Encoder().encode
_charges = msgspec.msgpack.Decoder(tuple[Charge, ...]).decode


class RedisCounters:
    """One holder. Needs a running event loop.

    `lost` counts settlements that Redis refused for good or that waited too long; the ledger still has them. `holders`
    is how many there were at the last `tend`. The time is the server's, unless a `clock` is given: for tests and
    simulations.
    """

    def __init__(
        self,
        url: str,
        *,
        hold: float = HOLD,
        timeout: float = 0.5,
        on_over: Callable[[Over], None] | None = None,
        clock: Clock | None = None,
        namespace: str = "penstock",
    ) -> None:
        """Raises ValueError when the URL is none of Redis."""
        self.lost = 0
        self.holders = 1
        self._hold = int(hold * MICRO)
        self._on_over = on_over
        self._clock = clock
        prefix = f"{namespace}:{{limits}}:{VERSION}:"
        self._time, self._due, self._open = prefix + "time", prefix + "due", prefix + "open"
        self._holders = prefix + "holders"
        self._holder = f"{prefix}holder:{os.urandom(8).hex()}"
        self._counter = prefix + "counter:"
        self._shas = {script.name: script.sha for script in ALL}
        self._mine: dict[str, Granted] = {}
        self._number = 0  # of the last settlement
        self._sent = 0  # of the last one sent on this connection
        self._in_flight = 0
        self._pending: dict[int, tuple[Command, str, tuple[Charge, ...]]] = {}  # by number, in order
        self._redis = Redis(parse_url(url), timeout=timeout, on_connect=self._begin)

    @property
    def connected(self) -> bool:
        return self._redis.connected

    @property
    def pending(self) -> int:
        """Settlements that Redis has not confirmed."""
        return len(self._pending)

    async def wait_connected(self, seconds: float) -> bool:
        return await self._redis.wait_connected(seconds)

    def reserve_now(self, id: str, charges: tuple[Charge, ...]) -> Verdict | None:
        return None

    async def reserve(self, id: str, charges: tuple[Charge, ...]) -> Verdict:
        blob = _encode(charges)
        reply = await self._reserve(id, charges, blob, self._hold)
        status, now, *rest = reply
        if status == 1:
            granted = Granted(id, charges, tuple(rest), now, now + self._hold)
            self._mine[id] = granted
            return granted
        if status == 2:
            return Unseeded(tuple(charges[which].counter for which in rest))
        which, wait, *used = rest
        return Refused(charges, which, inf if wait < 0 else wait / MICRO, tuple(used))

    def settle(self, granted: Granted, costs: Sequence[int]) -> None:
        if granted.settled:
            return
        granted.settled = True
        self._mine.pop(granted.id, None)
        self._settle("settle", granted.id, granted.charges, costs, granted.since)

    def spend(self, id: str, charges: Sequence[Charge]) -> None:
        free = tuple(structs.replace(charge, cost=0) for charge in charges)
        self._settle("settle", id, free, [charge.cost for charge in charges], 0)

    async def seed(self, counter: str, settled: int, window: int) -> None:
        keys = (self._time, self._counter + counter)
        await self._call(self._command(SEED, keys, self._now(), settled, window))

    async def used(self, charges: tuple[Charge, ...]) -> tuple[int, ...]:
        free = tuple(structs.replace(charge, cost=0) for charge in charges)
        return tuple((await self._reserve("", free, _encode(free), 0))[2:])

    async def tend(self) -> None:
        ids = list(self._mine)
        for first in range(0, len(ids) or 1, AT_ONCE):
            await self._tend(ids[first : first + AT_ONCE])
        keys = (self._time, self._holders)
        self.holders = await self._call(self._command(HOLDERS, keys, self._now(), self._holder, self._hold))

    async def close(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE):
                while self._pending:
                    await self._redis.wait_connected(GOODBYE)
                    with contextlib.suppress(RedisGone):
                        await self._redis.call("PING")  # answers come in order: what was sent has been answered before
        except TimeoutError:
            self.lost += len(self._pending)
        await self._redis.close()

    async def _tend(self, ids: list[str]) -> None:
        keys = (self._time, self._due, self._open)
        while True:
            dead = await self._call(self._command(TEND, keys, self._now(), self._hold, *ids))
            for id, blob in zip(dead[::2], dead[1::2], strict=True):
                charges = () if blob is None else _charges(blob)
                await self._call(self._settling("expire", id, charges, [0] * len(charges), self._hold, 0))
            if len(dead) < 2 * MOST_DEAD:
                return
            ids = []

    async def _reserve(self, id: str, charges: tuple[Charge, ...], blob: bytes, hold: int) -> list[int]:
        counter = self._counter
        keys = (self._time, self._due, self._open, *[counter + charge.counter for charge in charges])
        command = self._command(RESERVE, keys, self._now(), id, hold, blob)
        if not self.connected:
            raise CountersUnavailable("Redis is not connected")
        try:
            reply: list[int] = await self._call(command)
        except (asyncio.CancelledError, CountersUnavailable):
            if hold:  # it may have been carried out
                self._settle("cancel", id, charges, [0] * len(charges), hold)
            raise
        return reply

    async def _call(self, command: Command) -> Any:
        try:
            return await self._redis.call(*command)
        except RedisGone as gone:
            raise CountersUnavailable(f"Redis: {gone}") from None
        except hiredis.ReplyError as error:
            if str(error).startswith(PASSING):
                self._redis.renew()
            raise CountersUnavailable(f"Redis: {error}") from None

    def _settle(self, mode: str, id: str, charges: tuple[Charge, ...], costs: Sequence[int], since: int) -> None:
        assert len(charges) == len(costs), f"{id}: {len(costs)} costs for {len(charges)} charges"
        self._number = number = self._number + 1
        self._pending[number] = self._settling(mode, id, charges, costs, since, number), id, charges
        if len(self._pending) > MOST_PENDING:
            del self._pending[next(iter(self._pending))]
            self.lost += 1
        self._send()

    def _settling(
        self, mode: str, id: str | bytes, charges: tuple[Charge, ...], costs: Sequence[int], since: int, number: int
    ) -> Command:
        counter = self._counter
        keys = (self._time, self._due, self._open, self._holder, *[counter + charge.counter for charge in charges])
        return self._command(SETTLE, keys, self._now(), id, mode, _encode(charges), _encode(costs), since, number)

    def _command(self, script: Script, keys: tuple[str, ...], *values: str | bytes | int) -> Command:
        return ("EVALSHA", self._shas[script.name], len(keys), *keys, *values)

    def _send(self) -> None:
        """As many as may be on their way, strictly in order: Redis takes a number it has passed for one it has done."""
        while self._sent < self._number and self._in_flight < IN_FLIGHT and self._redis.connected:
            number = self._sent + 1
            row = self._pending.get(number)
            if row is not None:
                command, id, charges = row
                try:
                    self._redis.send(command, partial(self._settled, number, id, charges))
                except RedisGone:
                    self._redis.renew()
                    return
                self._in_flight += 1
            self._sent = number

    def _settled(self, number: int, id: str, charges: tuple[Charge, ...], reply: object) -> None:
        if isinstance(reply, RedisGone):
            return  # sent again as soon as there is a connection
        self._in_flight -= 1
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith(PASSING):
                self._redis.renew()
                return
            self.lost += 1
        elif self._on_over is not None and isinstance(reply, list):
            for charge, by in zip(charges, reply[2:], strict=False):  # no numbers when it was done before
                if by:
                    self._on_over(Over(id, charge, by))
        self._pending.pop(number, None)
        self._send()

    def _begin(self) -> None:
        """A connection is there: the scripts, and then what was not confirmed."""
        for script in ALL:
            self._redis.send(("SCRIPT", "LOAD", script.text), self._loaded)
        self._in_flight = 0
        self._sent = next(iter(self._pending), self._number + 1) - 1
        self._send()

    def _loaded(self, reply: object) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._redis.renew()

    def _now(self) -> str | int:
        return "" if self._clock is None else int(self._clock.now() * MICRO)


_: type[Counters] = RedisCounters
