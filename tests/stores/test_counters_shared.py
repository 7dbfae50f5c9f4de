"""What only counters in a shared file can do wrong: disagree with the book, be torn by a death, be full, be stopped."""

import asyncio
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.clock import ManualClock
from penstock.limits.book import Book
from penstock.limits.bucket import LOWS
from penstock.limits.charges import Charge, Granted, Kind, Refused
from penstock.stores import counters_shared
from penstock.stores.base import CountersUnavailable
from penstock.stores.counters_shared import MOST_CHARGES, SharedCounters
from penstock.stores.counters_shared_reservations import MOST_HELD
from tests.stores.test_counters_redis import KINDS, charged, limits, steps

COMPILED = not str(counters_shared.__file__).endswith(".py")
SLOT = Charge("key:web slots", Kind.GAUGE, 5, 1)
MONEY = Charge("team:ml 2026-11", Kind.BUDGET, 1000, 100, 86_400)
_names = itertools.count()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "counters"


@pytest.fixture
def clock():
    return ManualClock(1_000_000.0)


def opened(path, clock, most=256, **options):
    return SharedCounters(path, clock, most=most, **options)


def rates(count):
    return [Charge(f"key:{n} requests|60s", Kind.RATE, 60, 1, 60) for n in range(count)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, limits=limits, seeded=st.integers(0, 2**50), soft=st.booleans(), n_holders=st.integers(1, 3))
def test_holders_together_do_what_the_book_does(tmp_path, steps, limits, seeded, soft, n_holders):
    async def main():
        clock, overs, book, book_overs = ManualClock(1_800_000_000.0), [], Book(), []
        path = tmp_path / str(next(_names))
        holders = [opened(path, clock, hold=60, on_over=overs.append) for _ in range(n_holders)]
        turn = itertools.cycle(holders)
        hold, open_, ids = 60_000_000, [], itertools.count()

        def now():
            return int(clock.now() * 1_000_000)

        await next(turn).seed("money", seeded, 60)
        book.seed("money", seeded, 60, now())
        for verb, *of in steps:
            holder = next(turn)
            if verb == "reserve":
                id, charges = f"r{next(ids)}", charged(of[0], limits, soft)
                theirs, ours = await holder.reserve(id, charges), book.reserve(id, charges, now(), hold)
                assert theirs == ours
                if type(ours) is Granted:
                    open_.append((holder, theirs, ours))
            elif verb == "settle" and open_:
                holder, theirs, ours = open_.pop(of[0] % len(open_))
                actual = [of[1].get(charge.counter, 0) for charge in ours.charges]
                holder.settle(theirs, actual)
                book_overs += book.settle(ours, actual, now())
            elif verb == "spend":
                id, charges = f"s{next(ids)}", charged(of[0], limits, soft)
                holder.spend(id, charges)
                book_overs += book.spend(id, charges, now())
            elif verb == "tend":
                kept = holders if of[0] else holders[1:]
                for holder in kept:
                    holder._reservations.renew(list(holder._mine.values()))
                book.renew([ours.id for holder, _, ours in open_ if holder in kept], now(), hold)
                holder._reservations.look_after()
                holder._forget()
                book.expire(now())
                book.forget(now())
            elif verb == "pass":
                clock.advance(of[0])
            looked_at = charged(dict.fromkeys(KINDS, 0), limits)
            assert await holder.used(looked_at) == tuple(book.used(charge, now()) for charge in looked_at)
        assert overs == book_overs
        holders[0].check()
        assert [holder.lost + holder.pending for holder in holders] == [0] * n_holders
        for holder in holders:
            await holder.close()
        path.unlink()

    asyncio.run(main())


def test_it_gives_back_what_the_book_does(path, rng):
    """Hundreds of reservations on one busy bucket, settled in any order: minima are kept, merged and lowered."""

    async def main():
        clock, book, open_ = ManualClock(1_800_000_000.0), Book(), []
        holders = [opened(path, clock) for _ in range(2)]
        for n in range(40 * LOWS):
            clock.advance(rng.choice([0.0, 0.05, 0.5]))
            now = int(clock.now() * 1_000_000)
            charge = Charge("k", Kind.RATE, 400, rng.randrange(1, 40), 20)
            theirs = await holders[n % 2].reserve(f"r{n}", (charge,))
            ours = book.reserve(f"r{n}", (charge,), now, 60_000_000)
            assert theirs == ours
            if type(ours) is Granted:
                open_.append((theirs, ours))
            if open_ and rng.random() < 0.6:
                theirs, ours = open_.pop(rng.randrange(len(open_)))
                actual = [rng.randrange(ours.charges[0].cost + 1)]
                holders[rng.randrange(2)].settle(theirs, actual)
                book.settle(ours, actual, now)
                assert await holders[0].used((charge,)) == (book.used(charge, now),)

    asyncio.run(main())


def story_of_dying_workers(name, folder, *arguments):
    """Forks, so it is a process of its own."""
    script = Path(__file__).with_name("dying_workers.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    command = [sys.executable, "-P", str(script), name, str(folder), *map(str, arguments)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=110)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.timeout(120)
@pytest.mark.skipif(COMPILED, reason="nothing stops compiled code between two writes")
def test_a_death_between_any_two_writes_leaves_all_of_a_change_or_nothing(tmp_path):
    """Takes seconds: nearly 300 processes, each killed a write later than the one before."""
    story_of_dying_workers("interrupted", tmp_path)


@pytest.mark.timeout(120)
def test_workers_killed_at_random_under_load_lose_nothing_and_hold_nothing(tmp_path, rng):
    """Takes seconds: 200 processes are killed after some hundred requests each."""
    story_of_dying_workers("killed", tmp_path, rng.randrange(2**32))


def test_who_is_stopped_inside_the_lock_delays_the_others_once(tmp_path):
    story_of_dying_workers("stopped", tmp_path)


def test_a_worker_started_again_lets_go_of_what_its_predecessor_had(path, clock):
    async def main():
        other, dead = opened(path, clock), opened(path, clock)
        await other.seed(MONEY.counter, 0, 86_400)
        await dead.reserve("a", (SLOT, MONEY))
        await other.reserve("b", (SLOT, MONEY))
        await dead.close()
        assert await other.used((SLOT, MONEY)) == (2, 200)
        again = opened(path, clock)  # and nobody has tended
        assert await again.used((SLOT, MONEY)) == (1, 100)
        again.check()

    asyncio.run(main())


def test_what_a_dead_process_had_comes_back_at_once(path, clock):
    async def main():
        other, dead = opened(path, clock), opened(path, clock)
        for n in range(3):
            await dead.reserve(f"a{n}", (SLOT,))
        await dead.close()
        await other.tend()
        assert await other.used((SLOT,)) == (0,)

    asyncio.run(main())


def test_when_all_slots_are_taken_new_counters_are_refused_and_old_ones_go_on(path, clock):
    async def main():
        holder = opened(path, clock, most=8)
        old, new = rates(9)[:8], rates(9)[8]
        for n, charge in enumerate(old):
            assert type(await holder.reserve(f"a{n}", (charge,))) is Granted
        assert holder.slots == (8, 8)
        with pytest.raises(CountersUnavailable, match="all 8 slots"):
            await holder.reserve("b", (old[0], new))
        assert await holder.used((old[0],)) == (1,)
        assert type(await holder.reserve("c", (old[0],))) is Granted
        clock.advance(60)
        await holder.tend()  # they have run dry
        assert holder.slots == (0, 8)
        assert type(await holder.reserve("d", (new,))) is Granted
        holder.check()

    asyncio.run(main())


def test_what_was_used_without_a_place_to_count_it_is_told(path, clock):
    async def main():
        holder = opened(path, clock, most=2)
        first, second, third = rates(3)
        holder.spend("a", (first, second, third))
        assert holder.lost == 1
        assert await holder.used((first, second, third)) == (1, 1, 0)

    asyncio.run(main())


def test_a_counter_that_was_forgotten_is_not_mistaken_for_the_one_in_its_place(path, clock):
    async def main():
        one, two = opened(path, clock), opened(path, clock)
        first, second = rates(2)
        await one.reserve("a", (first,))
        clock.advance(60)
        await two.tend()
        await two.reserve("b", (second,))  # in the slot that the first had
        await one.reserve("c", (first,))
        assert await one.used((first, second)) == (1, 1)
        one.check()

    asyncio.run(main())


def test_memory_is_taken_as_counters_come(path, clock):
    async def main():
        holder = opened(path, clock, most=2**19)
        before = os.stat(path).st_blocks * 512
        assert os.stat(path).st_size > 150 * 2**20
        assert before < 3 * 2**20  # the index
        for n, charge in enumerate(rates(5000)):
            await holder.reserve(str(n), (charge,))
        assert os.stat(path).st_blocks * 512 - before < 8 * 2**20

    asyncio.run(main())


@pytest.mark.parametrize(
    "charges",
    [tuple(rates(MOST_CHARGES + 1)), tuple(Charge(f"slots {n}", Kind.GAUGE, 5, 1) for n in range(MOST_HELD + 1))],
)
def test_a_request_on_more_limits_than_fit_is_refused_with_the_reason(path, clock, charges):
    async def main():
        holder = opened(path, clock)
        with pytest.raises(CountersUnavailable, match="a request on more than"):
            await holder.reserve("a", charges)
        assert set(await holder.used(charges)) == {0}
        assert type(await holder.reserve("b", charges[1:MOST_HELD])) is Granted
        holder.check()

    asyncio.run(main())


def test_a_name_can_be_anything(path, clock):
    async def main():
        holder = opened(path, clock)
        names = ["", "\ud800", "\0", "é" * 10_000, "a", "a "]
        for n, name in enumerate(names):
            await holder.reserve(str(n), (Charge(name, Kind.RATE, 60, n + 1, 60),))
        used = await holder.used(tuple(Charge(name, Kind.RATE, 60, 0, 60) for name in names))
        assert used == (1, 2, 3, 4, 5, 6)

    asyncio.run(main())


def test_a_cost_beyond_all_numbers_fills_the_counter_and_breaks_nothing(path, clock):
    async def main():
        holder = opened(path, clock)
        (rate,) = rates(1)
        await holder.seed(MONEY.counter, 0, 86_400)
        for n in range(3):
            holder.spend(f"a{n}", (Charge(rate.counter, Kind.RATE, 60, 2**70, 60), MONEY))
            holder.spend(f"b{n}", (rate, Charge(MONEY.counter, Kind.BUDGET, 1000, 2**70, 86_400)))
        assert type(await holder.reserve("c", (rate,))) is Refused
        assert type(await holder.reserve("d", (MONEY,))) is Refused
        holder.check()

    asyncio.run(main())


def test_closed_counters_are_out_of_reach(path, clock):
    async def main():
        holder = opened(path, clock)
        granted = await holder.reserve("a", (SLOT,))
        await holder.close()
        await holder.close()
        with pytest.raises(CountersUnavailable, match="closed"):
            await holder.reserve("b", (SLOT,))
        holder.settle(granted, (1,))  # a request that ends last of all
        assert holder.pending == 1

    asyncio.run(main())
