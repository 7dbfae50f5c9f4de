"""Counters keep the same promises wherever they are: in memory, in a file that processes share, and in Redis."""

import asyncio
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from penstock.core.clock import ManualClock
from penstock.limits.book import Book
from penstock.limits.charges import Charge, Granted, Kind, Refused, Unseeded
from penstock.stores.counters_leased import LeasedCounters
from penstock.stores.counters_memory import MemoryCounters
from penstock.stores.counters_redis import RedisCounters
from penstock.stores.counters_shared import SharedCounters
from tests.stores.redis_server import redis_server

HOLD = 60.0
_worlds = count()


class StepClock(ManualClock):
    def step(self, seconds):
        """As an administrator sets a clock."""
        self._now += seconds


class Leasing(LeasedCounters):
    """What these tests ask for cannot be leased: the limits are too small."""

    @property
    def _mine(self):
        return self._shared._mine


class World:
    """One set of counters, its clock, and any number of holders."""

    def __init__(self, url=None, file=None, leased=False):
        self.clock = StepClock(1_800_000_000.0)  # as a server has it: Unix seconds
        self.overs = []
        self._url, self._namespace = url, f"test{next(_worlds)}"
        self._file, self._leased = file, leased
        self._book = Book()
        self._holders = []

    async def holder(self):
        options = {"hold": HOLD, "on_over": self.overs.append, "clock": self.clock}
        if self._file is not None:
            holder = SharedCounters(self._file, most=256, **options)
        elif self._url is None:
            holder = MemoryCounters(book=self._book, **options)
        else:
            holder = RedisCounters(self._url, namespace=self._namespace, timeout=10, **options)
            assert await holder.wait_connected(5)
        if self._leased:
            holder = Leasing(holder, self.clock, holders=lambda: len(self._holders))
        self._holders.append(holder)
        return holder

    async def close(self):
        for holder in self._holders:
            await holder.close()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["memory", "shared", "redis", "leased"])
def new_world(request, tmp_path):
    """Makes worlds without anything in them."""
    if request.param == "shared":
        return lambda: World(file=tmp_path / str(next(_worlds)))
    if request.param == "leased":
        return lambda: World(leased=True)
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    return lambda: World(url)


@pytest.fixture
def in_world(new_world):
    """Runs a story in a new world, with two holders."""

    def run(story):
        async def main():
            world = new_world()
            try:
                await story(world, await world.holder(), await world.holder())
            finally:
                await world.close()

        asyncio.run(main())

    return run


def rate(cost=1, limit=60, window=60, name="key:web"):
    return Charge(f"{name} requests", Kind.RATE, limit, cost, window)


def gauge(cost=1, limit=2):
    return Charge("key:web slots", Kind.GAUGE, limit, cost)


def budget(cost, limit=1000, soft=False, name="team:ml money 2026-11"):
    return Charge(name, Kind.BUDGET, limit, cost, 86_400, soft)


def test_a_refusal_leaves_nothing_behind(in_world):
    async def story(world, one, two):
        charges = (rate(), gauge(), budget(400), rate(50, limit=100, name="team:ml"))
        await one.seed(charges[2].counter, 0, 86_400)
        assert type(await one.reserve("a", charges)) is Granted
        assert type(await two.reserve("b", charges)) is Granted
        before = await two.used(charges)
        assert before == (2, 2, 800, 100)
        refused = await two.reserve("c", charges)
        assert type(refused) is Refused
        assert refused.used == before == await one.used(charges)
        assert (refused.which, refused.wait) == (3, 30.0)  # of all that are full, the one that takes longest

    in_world(story)


def test_an_unknown_budget_is_never_an_unspent_one(in_world):
    async def story(world, one, two):
        charges = (rate(), budget(10))
        assert await one.reserve("a", charges) == Unseeded((budget(10).counter,))
        assert await one.used(charges) == (0, 0)
        await asyncio.gather(*[holder.seed(budget(10).counter, 995, 86_400) for holder in (one, two)])
        await one.seed(budget(10).counter, 3, 86_400)  # an older count than what is known
        assert await two.used(charges) == (0, 995)
        assert (await one.reserve("a", charges)).wait == 86_400

    in_world(story)


def test_what_was_not_used_comes_back_and_what_was_used_stays(in_world):
    async def story(world, one, two):
        charges = (rate(40, limit=60), gauge(), budget(700))
        await one.seed(charges[2].counter, 100, 86_400)
        granted = await one.reserve("a", charges)
        assert granted.used == (40, 1, 800)
        one.settle(granted, [10, 1, 250])
        assert await one.used(charges) == (10, 0, 350)
        one.settle(granted, [60, 1, 700])
        assert await one.used(charges) == (10, 0, 350)

    in_world(story)


def test_more_than_was_reserved_is_charged_and_told(in_world):
    async def story(world, one, two):
        charges = (rate(10, limit=60), budget(500))
        await one.seed(charges[1].counter, 300, 86_400)
        one.settle(await one.reserve("a", charges), [75, 900])
        assert await one.used(charges) == (75, 1200)
        assert [(over.id, over.charge.kind, over.by) for over in world.overs] == [
            ("a", Kind.RATE, 15),
            ("a", Kind.BUDGET, 200),
        ]
        refused = await one.reserve("b", charges)
        assert type(refused) is Refused and refused.which == 1

    in_world(story)


def test_a_soft_budget_allows_and_counts(in_world):
    async def story(world, one, two):
        await one.seed(budget(1).counter, 990, 86_400)
        granted = await one.reserve("a", (budget(50, soft=True),))
        assert granted.used == (1040,)
        one.settle(granted, [60])
        assert await one.used((budget(0, soft=True),)) == (1050,)
        assert world.overs == []

    in_world(story)


def test_what_costs_nothing_passes_a_limit_that_is_used_up(in_world):
    async def story(world, one, two):
        await one.seed(budget(1).counter, 5000, 86_400)
        assert type(await one.reserve("a", (rate(60), gauge(2)))) is Granted
        assert type(await one.reserve("b", (rate(0), gauge(0), budget(0)))) is Granted

    in_world(story)


def test_what_a_dead_holder_had_comes_back_to_the_living(in_world):
    async def story(world, dead, living):
        await living.seed(budget(1).counter, 0, 86_400)
        await dead.reserve("a", (gauge(2), budget(900), rate(60, window=3600)))
        world.clock.advance(HOLD - 1)
        await living.tend()
        assert await living.used((gauge(), budget(0), rate(window=3600))) == (2, 900, 60)
        world.clock.advance(2)
        await living.tend()
        # what it took of the rate may have been used: that only runs dry
        assert await living.used((gauge(), budget(0), rate(window=3600))) == (0, 0, 59)

    in_world(story)


def test_a_long_request_is_kept_alive_by_its_holder(in_world):
    async def story(world, one, two):
        granted = await one.reserve("a", (gauge(2),))
        for _ in range(8):
            world.clock.advance(HOLD / 4)
            await one.tend()
            await two.tend()
        assert await two.used((gauge(),)) == (2,)
        one.settle(granted, [2])
        assert await one.used((gauge(),)) == (0,)

    in_world(story)


def test_who_settles_after_being_given_up_is_charged_once_for_what_was_used(in_world):
    async def story(world, slow, other):
        await slow.seed(budget(1).counter, 0, 86_400)
        charges = (gauge(), budget(900))
        granted = await slow.reserve("a", charges)
        world.clock.advance(HOLD)
        await other.tend()
        assert type(await other.reserve("b", charges)) is Granted
        slow.settle(granted, [1, 300])
        slow.settle(granted, [1, 300])
        await slow.tend()
        assert await slow.used(charges) == (1, 1200)
        assert [(over.id, over.by) for over in world.overs] == [("a", 200)]

    in_world(story)


def test_what_was_never_reserved_can_still_be_counted(in_world):
    async def story(world, one, two):
        await one.seed(budget(1).counter, 900, 86_400)
        one.spend("a", (rate(70), gauge(), budget(150)))
        assert await one.used((rate(), gauge(), budget(0))) == (70, 0, 1050)
        assert [over.by for over in world.overs] == [10, 50]

    in_world(story)


def test_of_a_crowd_as_many_get_in_as_fit(in_world):
    async def story(world, one, two):
        await one.seed(budget(1).counter, 0, 86_400)
        crowd = [(one, two)[n % 2].reserve(f"r{n}", (rate(limit=1000), budget(30))) for n in range(100)]
        granted = [verdict for verdict in await asyncio.gather(*crowd) if type(verdict) is Granted]
        assert len(granted) == 33
        assert await one.used((rate(limit=1000), budget(0))) == (33, 990)

    in_world(story)


def test_a_clock_that_is_set_back_frees_nobody_and_blocks_nobody(in_world):
    async def story(world, one, two):
        assert type(await one.reserve("a", (rate(60),))) is Granted
        world.clock.step(-7200)
        refused = await two.reserve("b", (rate(60),))
        assert refused.wait == 60
        world.clock.advance(60)
        assert type(await two.reserve("b", (rate(60),))) is Granted

    in_world(story)


def test_a_limit_that_is_changed_keeps_what_was_used(in_world):
    async def story(world, one, two):
        await one.reserve("a", (rate(40, limit=60),))
        assert type(await one.reserve("b", (rate(1, limit=40),))) is Refused
        assert type(await one.reserve("c", (rate(60, limit=100),))) is Granted

    in_world(story)


amounts = st.integers(0, 60)


class CountersMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: no hard limit is exceeded but by what was told, and every unit is counted."""

    open = Bundle("open")
    new_world = None  # set by the test

    @initialize()
    def begin(self):
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.world = self.new_world()
        self.holders = [self.run(self.world.holder()) for _ in range(2)]
        self.ids = count()
        self.now = 0.0  # forward only
        self.money = 0  # settled
        self.reserved = {}  # id: [holder, charges, let go at]
        self.taken = {}  # id: tokens, for ever
        self.run(self.holders[0].seed(budget(0).counter, 0, 86_400))

    def charges(self, tokens, money):
        return rate(tokens, limit=100, window=10), gauge(limit=4), budget(money, limit=200)

    @rule(target=open, holder=st.integers(0, 1), tokens=amounts, money=amounts)
    def reserve(self, holder, tokens, money):
        id, charges = f"r{next(self.ids)}", self.charges(tokens, money)
        before = self.used()
        verdict = self.run(self.holders[holder].reserve(id, charges))
        if type(verdict) is Refused:
            assert self.used() == before == verdict.used
            assert verdict.wait > 0
            return multiple()
        assert type(verdict) is Granted
        assert verdict.used == self.used()
        self.reserved[id] = [holder, charges, self.now + HOLD]
        self.taken[id] = tokens
        return holder, verdict

    @rule(reservation=consumes(open), tokens=amounts, money=amounts, times=st.integers(1, 2))
    def settle(self, reservation, tokens, money, times):
        holder, granted = reservation
        for _ in range(times):
            self.holders[holder].settle(granted, (tokens, 1, money))
        self.run(self.holders[holder].used(()))  # answers come in order: it has been settled
        self.reserved.pop(granted.id, None)
        self.taken[granted.id] = tokens
        self.money += money

    @rule(reservation=consumes(open))
    def crash_while_holding(self, reservation):
        """It is neither settled nor kept alive any more."""
        holder, granted = reservation
        self.holders[holder]._mine.pop(granted.id)

    @rule(seconds=st.floats(0.001, 40))
    def time_passes(self, seconds):
        self.world.clock.advance(seconds)
        self.now += seconds

    @rule(seconds=st.floats(-5000, 0))
    def the_clock_is_set_back(self, seconds):
        self.used()  # the counters have seen the time until now
        self.world.clock.step(seconds)

    @rule(holder=st.integers(0, 1))
    def tend(self, holder):
        mine = self.holders[holder]._mine
        self.run(self.holders[holder].tend())
        for id, row in list(self.reserved.items()):
            if row[0] == holder and id in mine:
                row[2] = self.now + HOLD
            elif row[2] <= self.now - 1e-3:
                del self.reserved[id]
            elif row[2] <= self.now + 1e-3:  # to the microsecond: only the counters can say
                self.run(self.forget_if_gone(id))

    async def forget_if_gone(self, id):
        if self.counted()[1] != (await self.holders[0].used(self.charges(0, 0)))[1]:
            del self.reserved[id]

    def counted(self):
        """What the gauge and the budget must hold."""
        rows = [row[1] for row in self.reserved.values()]
        return self.money + sum(charges[2].cost for charges in rows), len(rows)

    def used(self):
        return self.run(self.holders[0].used(self.charges(0, 0)))

    @invariant()
    def every_unit_is_counted_and_no_limit_exceeded_but_by_what_was_told(self):
        tokens, in_use, money = self.used()
        assert (money, in_use) == self.counted()
        told = {Kind.RATE: 0, Kind.BUDGET: 0}
        for over in self.world.overs:
            told[over.charge.kind] += over.by
        assert in_use <= 4
        assert money <= 200 + told[Kind.BUDGET]
        assert tokens <= 100 + told[Kind.RATE]
        assert sum(self.taken.values()) <= 100 + 10 * self.now + 1 + told[Kind.RATE]

    def teardown(self):
        if hasattr(self, "runner"):
            self.run(self.world.close())
            self.runner.close()


@pytest.mark.timeout(300)
def test_the_books_always_balance(new_world, request):
    """Takes seconds: a few thousand steps, each of which asks the counters several times."""
    machine = type("Machine", (CountersMachine,), {"new_world": staticmethod(new_world)})
    examples = 25 if "redis" in request.node.name else 150
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None))
