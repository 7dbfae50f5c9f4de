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
from penstock.stores.redis import PASSING, Redis, RedisGone, packed
from penstock.stores.redis_address import parse_url

MOST_PENDING: Final = 100_000  # settlements that Redis has not confirmed; beyond that the oldest are lost, and counted
IN_FLIGHT: Final = 1_000  # settlements on their way at once
AT_ONCE: Final = 500  # reservations kept alive by one command
GOODBYE: Final = 3.0  # seconds for what is pending at `close`
KNOWN: Final = 4_096  # sets of counters whose commands are remembered, as far as they are alike

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
        self._heads: dict[tuple[str, ...], tuple[bytes, bytes]] = {}  # of RESERVE and SETTLE, by counters
        self._mine: dict[str, Granted] = {}
        self._number = 0  # of the last settlement
        self._sent = 0  # of the last one sent on this connection
        self._in_flight = 0
        self._pending: dict[int, tuple[bytes, str, tuple[Charge, ...]]] = {}  # by number, in order
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
        reply = await self._reserve(id, charges, self._hold)
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
        await self._call(_evalsha(SEED, keys, self._now(), settled, window))

    async def used(self, charges: tuple[Charge, ...]) -> tuple[int, ...]:
        free = tuple(structs.replace(charge, cost=0) for charge in charges)
        return tuple((await self._reserve("", free, 0))[2:])

    async def tend(self) -> None:
        ids = list(self._mine)
        for first in range(0, len(ids) or 1, AT_ONCE):
            await self._tend(ids[first : first + AT_ONCE])
        keys = (self._time, self._holders)
        self.holders = await self._call(_evalsha(HOLDERS, keys, self._now(), self._holder, self._hold))

    async def close(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE):
                while self._pending:
                    await self._redis.wait_connected(GOODBYE)
                    with contextlib.suppress(RedisGone):  # answers come in order: what was sent before is answered
                        await self._redis.call(packed("PING"))
        except TimeoutError:
            self.lost += len(self._pending)
        await self._redis.close()

    async def _tend(self, ids: list[str]) -> None:
        keys = (self._time, self._due, self._open)
        while True:
            dead = await self._call(_evalsha(TEND, keys, self._now(), self._hold, *ids))
            for id, blob in zip(dead[::2], dead[1::2], strict=True):
                charges = () if blob is None else _charges(blob)
                await self._call(self._settling("expire", id, charges, [0] * len(charges), self._hold, 0))
            if len(dead) < 2 * MOST_DEAD:
                return
            ids = []

    async def _reserve(self, id: str, charges: tuple[Charge, ...], hold: int) -> list[int]:
        command = self._head(charges)[0] + _bulks(self._now(), id.encode(), b"%d" % hold, _encode(charges))
        if not self.connected:
            raise CountersUnavailable("Redis is not connected")
        try:
            reply: list[int] = await self._call(command)
        except (asyncio.CancelledError, CountersUnavailable):
            if hold:  # it may have been carried out
                self._settle("cancel", id, charges, [0] * len(charges), hold)
            raise
        return reply

    async def _call(self, command: bytes) -> Any:
        try:
            return await self._redis.call(command)
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
    ) -> bytes:
        name = id.encode() if isinstance(id, str) else id
        said = (self._now(), name, mode.encode(), _encode(charges), _encode(costs), b"%d" % since, b"%d" % number)
        return self._head(charges)[1] + _bulks(*said)

    def _head(self, charges: tuple[Charge, ...]) -> tuple[bytes, bytes]:
        """The beginnings of RESERVE and SETTLE with these counters: all but their arguments."""
        counters = tuple([charge.counter for charge in charges])
        head = self._heads.get(counters)
        if head is None:
            own = (self._time, self._due, self._open)
            keys = tuple([self._counter + counter for counter in counters])
            head = _begun(RESERVE, (*own, *keys), 4), _begun(SETTLE, (*own, self._holder, *keys), 7)
            if len(self._heads) >= KNOWN:
                del self._heads[next(iter(self._heads))]
            self._heads[counters] = head
        return head

    def _send(self) -> None:
        """As many as may be on their way, strictly in order: Redis takes a number it has passed for one it has done."""
        while self._sent < self._number and self._in_flight < IN_FLIGHT and self._redis.connected:
            number = self._sent + 1
            row = self._pending.get(number)
            if row is not None:
                command, id, charges = row
                try:
                    self._redis.send(command, partial(self._settled, number, id, charges), late=True)
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
            self._redis.send(packed("SCRIPT", "LOAD", script.text), self._loaded)
        self._in_flight = 0
        self._sent = next(iter(self._pending), self._number + 1) - 1
        self._send()

    def _loaded(self, reply: object) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._redis.renew()

    def _now(self) -> bytes:
        return b"" if self._clock is None else b"%d" % int(self._clock.now() * MICRO)


def _evalsha(script: Script, keys: tuple[str, ...], *values: str | bytes | int) -> bytes:
    return packed("EVALSHA", script.sha, len(keys), *keys, *values)


def _begun(script: Script, keys: tuple[str, ...], n_values: int) -> bytes:
    """A command as Redis reads it, up to its values, which `_bulks` writes."""
    words = ["EVALSHA", script.sha, str(len(keys)), *keys]
    return b"*%d\r\n" % (len(words) + n_values) + _bulks(*[word.encode() for word in words])


def _bulks(*words: bytes) -> bytes:
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


_: type[Counters] = RedisCounters
