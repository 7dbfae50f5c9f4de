"""Counters that are out of reach are not waited for: how much more can be used then is known, and counted later."""

import asyncio
from math import isinf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from penstock.core.clock import ManualClock, SystemClock
from penstock.limits.book import Book
from penstock.limits.charges import Charge, Granted, Kind, Refused, Unseeded
from penstock.stores.base import CountersUnavailable
from penstock.stores.counters_fallback import QUIET, SOON, FallbackCounters
from penstock.stores.counters_memory import MemoryCounters
from penstock.stores.counters_redis import RedisCounters
from tests.stores.redis_server import Line, redis_server


class Distant:
    """Counters behind a line that can be cut. What is settled meanwhile arrives later, as with Redis."""

    def __init__(self, counters):
        self._counters, self._late, self.away = counters, [], False

    def back(self):
        self.away = False
        for verb, *arguments in self._late:
            getattr(self._counters, verb)(*arguments)
        self._late.clear()

    def settle(self, *arguments):
        self._later("settle", *arguments)

    def spend(self, *arguments):
        self._later("spend", *arguments)

    def _later(self, *what):
        self._late.append(what)
        if not self.away:
            self.back()

    def __getattr__(self, verb):
        async def ask(*arguments):
            if self.away:
                raise CountersUnavailable("away")
            return await getattr(self._counters, verb)(*arguments)

        return ask


class World:
    """`n` holders over one book, each on a line of its own."""

    def __init__(self, n=2):
        self.clock = ManualClock(1_800_000_000.0)
        self.book = Book()
        self.lines = [Distant(MemoryCounters(self.clock, book=self.book)) for _ in range(n)]
        self.holders = [
            FallbackCounters(line, lambda: MemoryCounters(self.clock), self.clock, holders=lambda: n)
            for line in self.lines
        ]
        self._ids = iter(range(10**9))

    def cut(self):
        for line in self.lines:
            line.away = True

    def mend(self):
        for line in self.lines:
            line.back()

    async def reserve(self, which, *charges):
        return await self.holders[which].reserve(f"r{next(self._ids)}", charges)

    async def allowed(self, which, charge, most=1000):
        """How often until it is refused."""
        for n in range(most):
            if type(await self.reserve(which, charge)) is not Granted:
                return n
        raise AssertionError("never refused")


def rate(cost=1, limit=10, window=60, **more):
    return Charge("requests", Kind.RATE, limit, cost, window, **more)


def budget(cost, limit=1000):
    return Charge("money", Kind.BUDGET, limit, cost, 86_400)


def run(story, n=2):
    world = World(n)
    asyncio.run(story(world))


def test_as_long_as_all_is_well_it_is_the_shared_counters_that_decide():
    async def story(world):
        assert await world.allowed(0, rate()) == 10
        assert await world.allowed(1, rate()) == 0
        assert [holder.alone for holder in world.holders] == [0, 0]
        assert world.holders[0].reachable

    run(story)


def test_alone_each_allows_its_share_and_the_refusal_and_the_headers_say_so():
    async def story(world):
        world.cut()
        granted = await world.reserve(0, rate())
        assert granted.charges == (rate(),)
        assert granted.used == (6,)  # the five of the others and this one: four are left
        assert await world.allowed(0, rate()) == 4
        refused = await world.reserve(0, rate())
        assert type(refused) is Refused
        assert (refused.used, refused.charges) == ((10,), (rate(),))
        assert 0 < refused.wait <= 12
        assert await world.allowed(1, rate()) == 5
        assert not world.holders[0].reachable
        assert world.holders[1].alone == 6

    run(story)


def test_a_strict_limit_refuses_to_be_counted_alone():
    async def story(world):
        world.cut()
        with pytest.raises(CountersUnavailable):
            await world.reserve(0, rate(), structs.replace(rate(strict=True), counter="other"))
        assert await world.allowed(0, rate()) == 5

    run(story)


def test_more_than_a_share_is_told_to_wait_and_more_than_the_limit_that_it_never_fits():
    async def story(world):
        world.cut()
        assert (await world.reserve(0, rate(6))).wait == SOON
        assert isinf((await world.reserve(0, rate(11))).wait)

    run(story)


def test_a_limit_smaller_than_there_are_holders_lets_each_have_one():
    async def story(world):
        world.cut()
        assert [await world.allowed(which, rate(limit=2)) for which in range(3)] == [1, 1, 1]
        assert await world.allowed(0, rate(limit=0)) == 0

    run(story, n=3)


def test_what_was_used_alone_is_counted_for_all_when_they_are_back():
    async def story(world):
        await world.holders[0].seed("money", 100, 86_400)
        world.cut()
        holder = world.holders[0]
        assert type(await world.reserve(0, rate(3), budget(200))) is Unseeded
        await holder.seed("money", 100, 86_400)
        granted = await world.reserve(0, rate(3), budget(200))
        holder.settle(granted, [2, 150])
        holder.settle(granted, [2, 150])
        world.mend()
        assert await world.holders[1].used((rate(), budget(0))) == (2, 250)

    run(story)


def test_who_began_alone_and_ends_with_the_others_is_settled_once():
    async def story(world):
        world.cut()
        slot = Charge("slots", Kind.GAUGE, 4, 1)
        granted = await world.reserve(0, rate(3), slot)
        world.mend()
        holder = world.holders[0]
        holder.settle(granted, [3, 0])
        holder.settle(granted, [3, 0])
        assert await holder.used((rate(), slot)) == (3, 0)
        world.cut()
        assert await holder.used((rate(), slot)) == (8, 2)  # none of the slots that are its own

    run(story)


def test_going_alone_begins_anew_only_after_a_while_together():
    async def story(world):
        for quiet, more in ((QUIET - 1, 0), (QUIET + 1, 5)):
            world.cut()
            await world.allowed(0, rate(window=86_400))
            world.mend()
            world.clock.advance(quiet)
            await world.holders[0].tend()
            world.cut()
            assert await world.allowed(0, rate(window=86_400)) == more

    run(story)


def test_without_anybody_to_ask_going_alone_never_begins_anew():
    async def story(world):
        world.cut()
        await world.allowed(0, rate(window=86_400))
        world.clock.advance(10 * QUIET)
        with pytest.raises(CountersUnavailable):
            await world.holders[0].tend()
        assert await world.allowed(0, rate(window=86_400)) == 0

    run(story)


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 4),
    limit=st.integers(1, 40),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), max_size=60),
    cut_at=st.integers(0, 60),
)
def test_one_outage_never_lets_more_through_than_is_stated(n, limit, steps, cut_at):
    async def story(world):
        for holder in world.holders:
            await holder.seed("money", 0, 86_400)
        used = {"before": 0, "alone": 0}
        when = "before"
        for i, (which, cost) in enumerate(steps):
            which %= n
            if i == cut_at:
                when = "alone"
                world.cut()
            charges = (rate(cost, limit), Charge("money", Kind.BUDGET, limit, cost, 86_400))
            verdict = await world.reserve(which, *charges)
            if type(verdict) is Unseeded:
                await world.holders[which].seed("money", used["before"], 86_400)  # what the ledger says
                verdict = await world.reserve(which, *charges)
            if type(verdict) is Granted:
                world.holders[which].settle(verdict, [cost, cost])
                used[when] += cost
        assert used["alone"] <= max(limit, n)
        assert used["before"] + used["alone"] <= limit  # the budget, of all of them together
        world.mend()
        assert await world.holders[0].used((Charge("money", Kind.BUDGET, limit, 0, 86_400),)) == (sum(used.values()),)

    run(story, n)


def test_redis_that_goes_away_is_done_without_and_told_when_it_is_back(tmp_path):
    async def story(port):
        async with Line(port) as line:
            clock = SystemClock()
            redis = RedisCounters(line.url, timeout=0.2)
            other = RedisCounters(f"redis://127.0.0.1:{port}")
            counters = FallbackCounters(redis, lambda: MemoryCounters(clock), clock, holders=lambda: redis.holders)
            assert await redis.wait_connected(5)
            assert await other.wait_connected(5)
            await other.tend()
            await counters.tend()
            assert redis.holders == 2
            line.deaf = True
            granted = await counters.reserve("a", (rate(3),))
            assert type(granted) is Granted
            assert counters.alone == 1
            line.deaf = False
            counters.settle(granted, [4])
            assert await redis.wait_connected(5)
            await redis.tend()  # answers come in order
            assert await other.used((rate(),)) == (4,)
            await counters.close()
            await other.close()

    with redis_server(tmp_path) as url:
        asyncio.run(story(int(url.rpartition(":")[2])))
