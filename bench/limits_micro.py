"""CPU microseconds for one reservation and its settlement: three rates and a budget, in memory, in Redis, and
in blocks leased from it.

    .venv/bin/python bench/limits_micro.py [redis://127.0.0.1:6379]

The best of five, of this process alone; what Redis itself uses is not in it. The keys go into a namespace of their own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import uvloop

from penstock.core.clock import SystemClock
from penstock.limits.charges import Charge, Granted, Kind
from penstock.stores.base import Counters
from penstock.stores.counters_leased import LeasedCounters
from penstock.stores.counters_memory import MemoryCounters
from penstock.stores.counters_redis import RedisCounters

TIMES, REPEATS, AT_ONCE = 20_000, 5, 50
MANY = 10**9
FRESH = 1.0  # seconds


async def requests(counters: Counters, name: str, n: int) -> None:
    for i in range(n):
        charges = (
            Charge("key:web requests", Kind.RATE, MANY, 1, 60),
            Charge("key:web input", Kind.RATE, MANY, 500, 60),
            Charge("key:web output", Kind.RATE, MANY, 400, 60),
            Charge("team:ml 2026-11", Kind.BUDGET, 2**50, 9_000, 86_400),
        )
        granted = await counters.reserve(f"{name}.{i}", charges)
        assert type(granted) is Granted
        counters.settle(granted, (1, 500, 300, 7_000))


async def measure(what: str, counters: Counters, at_once: int) -> None:
    await counters.seed("team:ml 2026-11", 0, 86_400)
    best = float("inf")
    for repeat in range(REPEATS):
        started = time.process_time()
        each = TIMES // at_once
        await asyncio.gather(*[requests(counters, f"{at_once}.{repeat}.{n}", each) for n in range(at_once)])
        best = min(best, (time.process_time() - started) / TIMES)
    print(f"{what:28} {best * 1e6:6.1f} us")


async def tend(counters: Counters) -> None:
    while True:
        await counters.tend()
        await asyncio.sleep(FRESH / 4)


async def main() -> None:
    await measure("memory", MemoryCounters(SystemClock()), 1)
    if len(sys.argv) > 1:
        redis = RedisCounters(sys.argv[1], namespace=f"bench{os.getpid()}")
        if not await redis.wait_connected(5):
            sys.exit(f"no Redis at {sys.argv[1]}")
        await measure("redis, one at a time", redis, 1)
        await measure(f"redis, {AT_ONCE} at a time", redis, AT_ONCE)
        leased = LeasedCounters(redis, SystemClock(), holders=lambda: 4, fresh=FRESH)
        tending = asyncio.get_running_loop().create_task(tend(leased))
        await asyncio.sleep(2 * FRESH)
        await measure("leased, one at a time", leased, 1)
        await measure(f"leased, {AT_ONCE} at a time", leased, AT_ONCE)
        print(f"{'':28} {leased.here / (leased.here + leased.asked):.1%} of them without a round trip")
        tending.cancel()
        await redis.close()


uvloop.run(main())
