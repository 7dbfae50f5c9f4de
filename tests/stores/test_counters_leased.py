"""Most requests are decided without a round trip, and no more is used than if all of them had made one, but for what is
stated.
"""

import asyncio
from itertools import count
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from penstock.core.clock import ManualClock
from penstock.limits.blocks import overshoot
from penstock.limits.book import Book
from penstock.limits.charges import Charge, Granted, Kind, Refused, Unseeded
from penstock.stores.base import CountersUnavailable
from penstock.stores.counters_fallback import FallbackCounters
from penstock.stores.counters_leased import IDLE, TELL_EVERY, LeasedCounters
from penstock.stores.counters_memory import MemoryCounters
from penstock.stores.counters_redis import RedisCounters
from penstock.testing import virtual_loop
from tests.stores.redis_server import redis_server

HOLD = 60.0
FRESH = 10.0
_worlds = count()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Line:
    """To shared counters: counts what is asked of them, and can be cut."""

    def __init__(self, counters):
        self._counters, self.asked, self.away = counters, 0, False

    def __getattr__(self, verb):
        return getattr(self._counters, verb)

    async def reserve(self, id, charges):
        self.asked += 1
        return await self._then(self._counters.reserve, id, charges)

    async def tend(self):
        await self._then(self._counters.tend)

    async def _then(self, verb, *arguments):
        if self.away:
            raise CountersUnavailable("away")
        return await verb(*arguments)


class Timeless:
    """A loop without timers: what happens does not depend on how fast it does."""

    def __init__(self, loop):
        self._loop, self.create_task = loop, loop.create_task

    def call_later(self, seconds, call):
        return self._loop.call_later(10**6, call)


class World:
    """Some holders of one book, or of one Redis."""

    def __init__(self, clock, url=None):
        self.clock, self.overs, self.book = clock, [], Book()
        self._url, self._namespace = url, f"leased{next(_worlds)}"
        self.lines, self.holders, self._ids = [], [], count()

    async def counters(self):
        options = {"hold": HOLD, "on_over": self.overs.append, "clock": self.clock}
        if self._url is None:
            return MemoryCounters(book=self.book, **options)
        redis = RedisCounters(self._url, namespace=self._namespace, timeout=10, **options)
        assert await redis.wait_connected(5)
        return redis

    async def holder(self):
        line = Line(await self.counters())
        self.lines.append(line)
        holder = LeasedCounters(line, self.clock, holders=lambda: len(self.holders), fresh=FRESH)
        if self._url is not None:
            holder._loop = Timeless(holder._loop)
        self.holders.append(holder)
        return holder

    async def begin(self, n):
        """Holders that know of each other, and lease."""
        for _ in range(n):
            await self.holder()
        for _ in range(3):
            for holder in self.holders:
                await holder.tend()
            await self.pass_by(FRESH / 2 + 0.1)
        return self.holders

    async def pass_by(self, seconds):
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    async def reserve(self, holder, *charges):
        verdict = await holder.reserve(f"r{next(self._ids)}", charges)
        await asyncio.sleep(0)  # what is leased in the background arrives
        return verdict

    async def use(self, holder, *charges, costs=None):
        """Whether it was allowed."""
        verdict = await self.reserve(holder, *charges)
        if type(verdict) is Granted:
            holder.settle(verdict, costs or [charge.cost for charge in charges])
            return True
        return False

    async def settled(self):
        """What has been used is told to all, and what was leased too late has been given back."""
        for holder in self.holders:
            while holder._leasing:
                await asyncio.wait(holder._leasing)
            await holder.used(())

    async def close(self):
        for holder in self.holders:
            await holder.close()


def story(n=2):
    """Runs with `n` holders over a book, in virtual time."""

    def decorate(test):
        def run():
            async def main(loop):
                world = World(loop)
                await test(world, *await world.begin(n))
                await world.close()

            virtual_loop.run(main)

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


def rate(cost=1, limit=1600, window=60, name="requests", strict=False):
    return Charge(name, Kind.RATE, limit, cost, window, False, strict)


def gauge(limit=160):
    return Charge("slots", Kind.GAUGE, limit, 1)


def budget(cost, limit=128_000, soft=False):
    return Charge("money", Kind.BUDGET, limit, cost, 86_400, soft)


@story()
async def test_most_requests_need_no_round_trip(world, one, two):
    await one.seed("money", 0, 86_400)
    for _ in range(200):
        assert await world.use(one, rate(), gauge(), budget(10))
        await world.pass_by(0.02)
    assert one.here > 190
    assert world.lines[0].asked < 40
    await world.settled()
    assert (await two.used((gauge(), budget(0))))[1] - 2000 < 1000  # the rest is leased


@story()
async def test_a_strict_limit_asks_every_time_and_brings_the_others_along(world, one, two):
    for _ in range(50):
        assert await world.use(one, rate(), rate(name="exact", strict=True))
    assert one.here == 0
    assert world.lines[0].asked == 50
    assert await two.used((rate(), rate(name="exact"))) == (50, 50)


@story()
async def test_a_limit_too_small_to_be_divided_is_asked_for_every_time(world, one, two):
    for _ in range(20):
        assert await world.use(one, rate(limit=60), rate(name="large"))
    assert one.here == 0
    assert world.lines[0].asked == 20
    assert await two.used((rate(limit=60), rate(name="large"))) == (20, 20)  # nothing was leased for nothing


@story()
async def test_who_comes_once_a_second_leases_nothing(world, one, two):
    for n in range(1, 6):
        assert await world.use(one, rate(1600))
        assert world.lines[0].asked == n
        await world.pass_by(max(IDLE, 60) + 0.1)


@story()
async def test_what_is_idle_is_given_back_within_two_looks(world, one, two):
    await one.seed("money", 0, 86_400)
    for _ in range(20):
        assert await world.use(one, rate(window=86_400), gauge(), budget(10))
        await asyncio.sleep(0.01)
    assert one.here > 10
    assert sum(await two.used((rate(window=86_400), gauge(), budget(0)))) > 20 + 200
    await asyncio.sleep(2 * IDLE + TELL_EVERY)
    assert await two.used((rate(window=86_400), gauge(), budget(0))) == (20, 0, 200)


@story()
async def test_what_was_leased_comes_back_at_the_end(world, one, two):
    await one.seed("money", 0, 86_400)
    charges = (rate(window=86_400), gauge(), budget(10))
    for _ in range(20):
        assert await world.use(one, *charges)
        await asyncio.sleep(0.01)
    still_open = await world.reserve(one, *charges)
    await one.close()
    assert await two.used(charges) == (21, 0, 200)
    one.settle(still_open, (1, 1, 7))
    assert await two.used(charges) == (21, 0, 207)
    world.holders.remove(one)


@story()
async def test_what_a_dead_holder_leased_comes_back_to_the_living(world, dead, living):
    await dead.seed("money", 0, 86_400)
    for _ in range(20):
        assert await world.use(dead, gauge(), budget(10))
        await asyncio.sleep(0.01)
    await asyncio.sleep(TELL_EVERY)
    dead._looking.cancel()  # it does nothing any more
    before = await living.used((gauge(), budget(0)))
    assert before[0] > 0
    assert before[1] > 200
    for _ in range(7):
        await living.tend()
        await asyncio.sleep(HOLD / 6)
    await living.tend()
    assert await living.used((gauge(), budget(0))) == (0, 200)
    world.holders.remove(dead)


@story()
async def test_the_last_of_it_goes_to_who_asks_for_it_and_only_that_holder_refuses_whom_all_refuse(world, one, two):
    await one.seed("money", 0, 86_400)
    rng, allowed, spent = Random(7), [0, 0], 0
    while True:
        cost = rng.randrange(5, 100)
        which = rng.randrange(2)
        if not await world.use(world.holders[which], budget(cost)):
            break
        spent += cost
        allowed[which] += 1
        await asyncio.sleep(0.001)
    assert spent > 0.97 * 128_000
    assert sum(holder.here for holder in world.holders) > 0.8 * sum(allowed)
    await asyncio.sleep(2 * IDLE + TELL_EVERY)
    assert await one.used((budget(0),)) == (spent,)
    assert await world.use(two, budget(128_000 - spent))
    assert not await world.use(one, budget(1))


@story()
async def test_a_block_of_ones_own_is_no_reason_to_be_refused(world, one, two):
    for _ in range(20):
        assert await world.use(one, rate(window=86_400))
        await asyncio.sleep(0.001)
    left = 1600 - (await two.used((rate(window=86_400),)))[0]
    assert left < 1580
    assert not await world.use(two, rate(1580, window=86_400))
    assert await world.use(one, rate(1580, window=86_400))
    assert not await world.use(one, rate(1, window=86_400))


@story()
async def test_what_was_not_used_of_a_rate_is_not_kept_in_the_block_for_a_later_burst(world, one, two):
    """Streams of an hour, all ended at once: what drained meanwhile is gone."""
    open_ = []
    for _ in range(6):
        for _ in range(100):
            verdict = await world.reserve(one, rate(10, limit=16_000))
            assert type(verdict) is Granted
            open_.append(verdict)
            await asyncio.sleep(0.01)
        await one.tend(), await two.tend()
    assert one.here > 500
    for n in range(240):  # others keep the block in use
        await world.use(one, rate(1, limit=16_000))
        await asyncio.sleep(0.5)
        if n % 10 == 0:
            await one.tend(), await two.tend()
    for verdict in open_:
        one.settle(verdict, [0])
    await world.settled()
    burst = 0
    while await world.use(one, rate(10, limit=16_000)):
        burst += 10
    assert 15_900 <= burst <= 16_000 + overshoot(16_000)


@story()
async def test_more_than_was_reserved_is_charged_and_told(world, one, two):
    await one.seed("money", 0, 86_400)
    for _ in range(20):
        await world.use(one, rate(window=86_400), budget(10))
        await asyncio.sleep(0.01)
    here = one.here
    assert await world.use(one, rate(window=86_400), budget(10), costs=[1700, 130_000])
    assert one.here == here + 1
    await asyncio.sleep(2 * IDLE + TELL_EVERY)
    assert await two.used((rate(window=86_400), budget(0))) == (1720, 130_200)
    assert {over.charge.kind for over in world.overs} == {Kind.RATE, Kind.BUDGET}


@story()
async def test_settling_again_changes_nothing(world, one, two):
    await one.seed("money", 0, 86_400)
    for _ in range(20):
        granted = await world.reserve(one, rate(window=86_400), gauge(), budget(10))
        for _ in range(2):
            one.settle(granted, (1, 1, 10))
    assert one.here > 10
    await asyncio.sleep(2 * IDLE + TELL_EVERY)
    assert await two.used((rate(window=86_400), gauge(), budget(0))) == (20, 0, 200)


@story()
async def test_headers_say_what_this_worker_knows(world, one, two):
    for n in range(1, 60):
        granted = await world.reserve(one, rate(limit=6000))
        assert n - 1 <= granted.used[0] <= n  # nobody else, and hardly any time
        one.settle(granted, [1])
    assert one.here > 50
    assert await one.used((rate(limit=6000),)) == (59,)


@story()
async def test_a_limit_that_is_changed_is_asked_for_anew(world, one, two):
    for _ in range(20):
        await world.use(one, rate(window=86_400))
    here = one.here
    assert type(await world.reserve(one, rate(40, limit=50, window=86_400))) is Refused
    assert one.here == here
    assert await two.used((rate(window=86_400),)) == (20,)  # the block came back


@story()
async def test_a_limit_that_is_made_strict_is_asked_for_from_then_on(world, one, two):
    for _ in range(20):
        await world.use(one, rate(window=86_400))
    here = one.here
    for _ in range(5):
        assert await world.use(one, rate(window=86_400, strict=True))
    assert one.here == here
    assert await two.used((rate(window=86_400),)) == (25,)


@story(1)
async def test_who_is_new_waits_until_all_others_have_made_room(world, old):
    for _ in range(50):
        await world.use(old, rate(limit=160, window=3600))
    assert old._blocks["requests"].left > 10
    new = await world.holder()
    await new.tend()
    for _ in range(10):
        await world.use(new, rate(limit=160, window=3600))
    assert new.here == 0
    await old.tend()
    assert old._blocks["requests"].left <= 10
    assert (await new.used((rate(),)))[0] <= 70
    for _ in range(3):
        await new.tend()
        await asyncio.sleep(FRESH / 2)
    for _ in range(10):
        await world.use(new, rate(limit=160, window=3600))
    assert new.here > 0


@story()
async def test_who_has_not_heard_of_the_others_for_long_spends_nothing_that_it_leased(world, one, two):
    await one.seed("money", 0, 86_400)
    for _ in range(20):
        await world.use(one, rate(window=86_400), budget(10))
    here = one.here
    for line in world.lines:
        line.away = True
    with pytest.raises(CountersUnavailable):
        await one.tend()
    for _ in range(10):  # until then it does
        assert await world.use(one, rate(window=86_400), budget(10))
        await asyncio.sleep(0.5)
    assert one.here == here + 10
    await asyncio.sleep(FRESH)
    with pytest.raises(CountersUnavailable):
        await world.reserve(one, rate(window=86_400), budget(10))


@story()
async def test_what_arrives_when_nobody_wants_it_any_more_is_given_back(world, one, two):
    await one.seed("money", 0, 86_400)
    charges = (rate(window=86_400), budget(10))
    for _ in range(2):
        await one.reserve(f"before {_}", charges)
    one.give_back_idle(), one.give_back_idle()
    await asyncio.sleep(0)
    assert await two.used(charges) == (2, 20)


@story()
async def test_when_the_counters_are_gone_blocks_are_spent_and_then_a_share(world, one, two):
    counters = FallbackCounters(one, lambda: MemoryCounters(world.clock), world.clock, holders=lambda: 2)
    for _ in range(20):
        await world.use(counters, rate(window=86_400))
    world.lines[0].away = True
    allowed, here = 0, one.here
    while await world.use(counters, rate(window=86_400)):
        allowed += 1
    assert counters.alone == 800 + 1  # its half, and the refusal
    assert allowed == 800 + one.here - here > 800
    world.lines[0].away = False
    await world.settled()
    assert await counters.used((rate(window=86_400),)) == (20 + allowed,)


@story()
async def test_a_budget_that_the_counters_forgot_is_looked_up_again(world, one, two):
    await one.seed("money", 0, 86_400)
    for _ in range(20):
        await world.use(one, budget(10))
    await asyncio.sleep(TELL_EVERY)
    world.book._counters.clear(), world.book._open.clear()
    verdict = None
    for _ in range(200):
        verdict = await world.reserve(one, budget(10))
        if type(verdict) is Unseeded:
            break
    assert type(verdict) is Unseeded
    here = one.here
    await one.seed("money", 5000, 86_400)
    assert (await world.reserve(one, budget(10))).used == (5010,)
    assert one.here == here


holders = st.integers(0, 2)


class LeasedMachine(RuleBasedStateMachine):
    """Three holders. Whatever happens in whatever order: gauges and budgets are never exceeded, a rate in no window by
    more than is stated, and in the end everything is there again.
    """

    url, here = None, None  # set by the test

    @initialize(n=st.integers(1, 3))
    def begin(self, n):
        self.runner = asyncio.Runner(loop_factory=None if self.url else virtual_loop.VirtualLoop)
        self.run = self.runner.run
        clock = ManualClock(1_800_000_000.0) if self.url else self.runner.get_loop()
        self.world = World(clock, self.url)
        self.run(self.world.begin(n))
        self.watch = self.run(self.world.counters())  # leases nothing
        self.run(self.watch.seed("money", 0, 86_400))
        self.open = []  # (holder, granted, its row of `taken`)
        self.taken = []  # [when, units] of the rate
        self.requests, self.slots, self.money = 200 * n, 40 * n, 9600 * n  # their limits
        self.in_use = self.spent = self.reserved = self.over = 0

    def charges(self, units, money, strict):
        return (
            rate(units, limit=self.requests, window=10),
            Charge("slots", Kind.GAUGE, self.slots, 1, 0, False, strict),
            budget(money, limit=self.money),
        )

    @rule(which=holders, n=st.integers(1, 25), units=st.integers(0, 3), money=st.integers(0, 30), strict=st.booleans())
    def reserve(self, which, n, units, money, strict):
        for _ in range(n):
            self.open += self._reserve(which, units, money, strict and units == 3)

    @rule(which=holders, n=st.integers(1, 60), units=st.integers(0, 3), money=st.integers(0, 30))
    def use(self, which, n, units, money):
        for _ in range(n):
            for one in self._reserve(which, units, money):
                self._settle(one, units, money)

    @rule(which=st.integers(0, 1000), units=st.integers(0, 4), money=st.integers(0, 40))
    def settle(self, which, units, money):
        if self.open:
            self._settle(self.open.pop(which % len(self.open)), units, money)

    @rule(units=st.integers(0, 1), money=st.integers(0, 10))
    def settle_all(self, units, money):
        while self.open:
            self._settle(self.open.pop(), units, money)

    def _reserve(self, which, units, money, strict=False):
        holder = self.world.holders[which % len(self.world.holders)]
        charges = self.charges(units, money, strict)
        verdict = self.run(self.world.reserve(holder, *charges))
        if type(verdict) is Refused:  # by the shared counters, which hold as much as there may be
            held = self.run(self.watch.used(charges))
            assert any(n + charge.cost > charge.limit for n, charge in zip(held, charges, strict=True))
            return []
        assert type(verdict) is Granted
        row = [self.world.clock.now(), units]
        self.taken.append(row)
        self.in_use += 1
        self.reserved += money
        return [(holder, verdict, row)]

    def _settle(self, reservation, units, money):
        holder, granted, row = reservation
        holder.settle(granted, (units, 1, money))
        tokens, _, nanos = (charge.cost for charge in granted.charges)
        self.over += max(0, money - nanos)
        self.reserved -= nanos
        self.spent += money
        self.in_use -= 1
        row[1] = min(units, tokens)
        if units > tokens:  # charged when it is known
            self.taken.append([self.world.clock.now(), units - tokens])

    @rule(seconds=st.floats(0.001, 4), times=st.integers(1, 4))
    def time_passes(self, seconds, times):
        for _ in range(times):
            self.run(self.world.pass_by(seconds))
            self.run(self.tend())

    async def tend(self):
        for holder in self.world.holders:
            await holder.tend()
        await self.watch.tend()

    @rule(which=holders)
    def look(self, which):
        self.world.holders[which % len(self.world.holders)].give_back_idle()

    @invariant()
    def no_more_is_used_than_is_stated(self):
        assert self.in_use <= self.slots
        assert self.spent + self.reserved <= self.money + self.over

    @rule()
    def all_that_is_used_is_counted(self):
        self.run(self.world.settled())
        _, in_use, money = self.run(self.watch.used(self.charges(0, 0, False)))
        assert self.in_use <= in_use <= self.slots
        assert self.spent + self.reserved <= money <= self.money + self.over

    def teardown(self):
        if not hasattr(self, "world"):
            return
        told = sum(over.by for over in self.world.overs if over.charge.kind is Kind.RATE)
        limit, taken = self.requests, self.taken
        for first, (since, _) in enumerate(taken):
            used = 0
            for when, units in taken[first:]:
                used += units
                assert used <= limit + limit * (when - since) / 10 + 1 + overshoot(limit) + told
        for holder in self.world.holders:
            self.here.append(holder.here)
            holder.give_back_idle()
            holder.give_back_idle()
        self.run(self.world.settled())
        _, in_use, money = self.run(self.watch.used(self.charges(0, 0, False)))
        if not self.in_use:
            assert (in_use, money) == (0, self.spent)
        self.run(self.world.close())
        self.run(self.watch.close())
        self.runner.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", ["book", "redis"])
def test_no_more_is_used_than_is_stated_and_all_of_it_comes_back(where, request):
    """Takes seconds: some thousand steps, with tens of requests each."""
    url = request.getfixturevalue("redis_url") if where == "redis" else None
    machine = type("Machine", (LeasedMachine,), {"url": url, "here": []})
    examples = 20 if where == "redis" else 100
    run_machine(machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None))
    assert sum(machine.here) > 10 * examples
