"""What only Redis can do wrong: disagree with the book, break off, forget, or not be there."""

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.clock import ManualClock
from penstock.limits.book import Book
from penstock.limits.bucket import LOWS
from penstock.limits.charges import Charge, Granted, Kind, Unseeded
from penstock.stores.base import CountersUnavailable
from penstock.stores.counters_redis import IN_FLIGHT, RedisCounters
from penstock.stores.redis import Redis, packed
from penstock.stores.redis_address import Address, parse_url
from tests.stores.redis_server import Line, redis_server

_names = itertools.count()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


def counters(url, **options):
    return RedisCounters(url, namespace=f"t{next(_names)}", **options)


MONEY = Charge("team:ml 2026-11", Kind.BUDGET, 1000, 100, 86_400)
SLOT = Charge("key:web slots", Kind.GAUGE, 5, 1)
TOKENS = Charge("key:web tokens", Kind.RATE, 1000, 100, 60)

# What can happen to some counters: (name, cost) of each charge, at most one on each counter.
KINDS = {"second": 1, "week": 604_800, "hour": 3600, "money": 0, "slots": 0}
limits = st.fixed_dictionaries(
    {
        "second": st.integers(0, 50),
        "week": st.integers(1, 9 * 10**9),
        "hour": st.integers(1, 1000),
        "money": st.integers(0, 2**51),
        "slots": st.integers(0, 5),
    }
)
costs = st.fixed_dictionaries(
    {},
    optional={
        "second": st.integers(0, 60),
        "week": st.integers(0, 10**8),  # sixty of these are still below 2**53 millionths
        "hour": st.integers(0, 400),
        "money": st.integers(0, 2**46) | st.integers(0, 10),
        "slots": st.integers(0, 2),
    },
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), costs),
        st.tuples(st.just("settle"), st.integers(0, 50), costs),
        st.tuples(st.just("spend"), costs),
        st.tuples(st.just("tend"), st.booleans()),
        st.tuples(st.just("pass"), st.floats(0, 1.5) | st.floats(0, 70)),
    ),
    min_size=10,
    max_size=60,
)


def charged(costs, limits, soft=False):
    kinds = {"money": Kind.BUDGET, "slots": Kind.GAUGE}
    return tuple(
        Charge(name, kinds.get(name, Kind.RATE), limits[name], cost, KINDS[name] or 60, soft and name == "money")
        for name, cost in costs.items()
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, limits=limits, seeded=st.integers(0, 2**50), soft=st.booleans())
def test_the_scripts_do_what_the_book_does(redis_url, steps, limits, seeded, soft):
    async def main():
        clock, overs, book, book_overs = ManualClock(1_800_000_000.0), [], Book(), []
        redis = counters(redis_url, clock=clock, hold=60, on_over=overs.append)
        assert await redis.wait_connected(5)
        hold, open_, ids = 60_000_000, [], itertools.count()

        def now():
            return int(clock.now() * 1_000_000)

        await redis.seed("money", seeded, 60)
        book.seed("money", seeded, 60, now())
        for verb, *of in steps:
            if verb == "reserve":
                id, charges = f"r{next(ids)}", charged(of[0], limits, soft)
                theirs, ours = await redis.reserve(id, charges), book.reserve(id, charges, now(), hold)
                assert theirs == ours
                if type(ours) is Granted:
                    open_.append((theirs, ours))
            elif verb == "settle" and open_:
                theirs, ours = open_.pop(of[0] % len(open_))
                actual = [of[1].get(charge.counter, 0) for charge in ours.charges]
                redis.settle(theirs, actual)
                book_overs += book.settle(ours, actual, now())
            elif verb == "spend":
                id, charges = f"s{next(ids)}", charged(of[0], limits, soft)
                redis.spend(id, charges)
                book_overs += book.spend(id, charges, now())
            elif verb == "tend":
                if of[0]:
                    await redis.tend()
                    book.renew([ours.id for _, ours in open_], now(), hold)
                else:  # the others' view: nobody is kept alive
                    mine, redis._mine = redis._mine, {}
                    await redis.tend()
                    redis._mine = mine
                book.expire(now())
            elif verb == "pass":
                clock.advance(of[0])
            looked_at = charged(dict.fromkeys(KINDS, 0), limits)
            assert await redis.used(looked_at) == tuple(book.used(charge, now()) for charge in looked_at)
        assert overs == book_overs
        assert redis.lost == redis.pending == 0
        await redis.close()

    asyncio.run(main())


def test_the_scripts_give_back_what_the_book_does(redis_url, rng):
    """Hundreds of reservations on one busy bucket, settled in any order: minima are kept, merged and lowered."""

    async def main():
        clock, book, open_ = ManualClock(1_800_000_000.0), Book(), []
        redis = counters(redis_url, clock=clock)
        await redis.wait_connected(5)
        for n in range(40 * LOWS):
            clock.advance(rng.choice([0.0, 0.05, 0.5]))
            now = int(clock.now() * 1_000_000)
            charge = Charge("k", Kind.RATE, 400, rng.randrange(1, 40), 20)
            theirs, ours = await redis.reserve(f"r{n}", (charge,)), book.reserve(f"r{n}", (charge,), now, 60_000_000)
            assert theirs == ours
            if type(ours) is Granted:
                open_.append((theirs, ours))
            if open_ and rng.random() < 0.6:
                theirs, ours = open_.pop(rng.randrange(len(open_)))
                actual = [rng.randrange(ours.charges[0].cost + 1)]
                redis.settle(theirs, actual)
                book.settle(ours, actual, now)
                assert await redis.used((charge,)) == (book.used(charge, now),)
        await redis.close()

    asyncio.run(main())


def test_who_is_kept_alive_after_being_found_dead_is_not_let_go(redis_url):
    async def main():
        clock = ManualClock(1_800_000_000.0)
        slow, other = (RedisCounters(redis_url, namespace="alive", clock=clock) for _ in range(2))
        await slow.wait_connected(5), await other.wait_connected(5)
        await slow.reserve("a", (SLOT,))
        clock.advance(60)
        reserved = other._redis.call

        async def and_then_it_stirs(*command):
            reply = await reserved(*command)
            other._redis.call = reserved
            await slow.tend()
            return reply

        other._redis.call = and_then_it_stirs  # between finding the dead and letting go of them
        await other.tend()
        assert await other.used((SLOT,)) == (1,)
        await slow.close(), await other.close()

    asyncio.run(main())


def test_undoing_a_reservation_that_never_arrived_changes_nothing(redis_url):
    async def story(line, redis):
        await redis.reserve("a", (MONEY, SLOT, TOKENS))
        redis._settle("cancel", "never", (MONEY, SLOT, TOKENS), [0, 0, 0], 60_000_000)
        await confirmed(redis)
        assert await redis.used((MONEY, SLOT, TOKENS)) == (100, 1, 100)

    through_a_line(redis_url, story)


def test_without_a_clock_of_ours_the_servers_time_drains(redis_url):
    async def main():
        redis = counters(redis_url)
        await redis.wait_connected(5)
        fast = Charge("fast", Kind.RATE, 1, 1, 1)
        assert type(await redis.reserve("a", (fast,))) is Granted
        refused = await redis.reserve("b", (fast,))
        assert 0.5 < refused.wait <= 1
        await redis.close()

    asyncio.run(main())


def through_a_line(redis_url, story, **options):
    async def main():
        async with Line(int(redis_url.rpartition(":")[2])) as line:
            redis = counters(line.url, timeout=0.2, **options)
            assert await redis.wait_connected(5)
            await redis.seed(MONEY.counter, 0, 86_400)
            await story(line, redis)
            await redis.close()

    asyncio.run(main())


async def confirmed(redis):
    """Everything settled has been confirmed; answers come in order."""
    assert await redis.wait_connected(5)
    await redis.used(())
    assert redis.pending == 0


async def gone(redis):
    while redis.connected:  # noqa: ASYNC110  nothing says so but itself
        await asyncio.sleep(0)


def test_a_settlement_whose_answer_was_lost_is_sent_again_and_counted_once(redis_url):
    async def story(line, redis):
        granted = [await redis.reserve(f"r{n}", (MONEY, SLOT)) for n in range(3)]
        line.asked.clear()
        line.deaf = True
        for one in granted:
            redis.settle(one, [70, 1])
        await line.asked.wait()
        assert redis.pending == 3
        line.cut()
        await gone(redis)
        redis.spend("later", (Charge(MONEY.counter, Kind.BUDGET, 1000, 5, 86_400),))  # while it is gone
        line.deaf = False
        await confirmed(redis)
        assert await redis.used((MONEY, SLOT)) == (215, 0)

    through_a_line(redis_url, story)


def test_what_piled_up_while_redis_was_gone_is_all_counted_and_in_order(redis_url):
    async def story(line, redis):
        line.cut()
        await gone(redis)
        one = (Charge(MONEY.counter, Kind.BUDGET, 2**50, 1, 86_400),)
        for n in range(3 * IN_FLIGHT):
            redis.spend(f"s{n}", one)
        assert redis.pending == 3 * IN_FLIGHT
        await redis.close()
        assert redis.pending == redis.lost == 0
        after = RedisCounters(redis_url, namespace=redis._counter.partition(":")[0])
        await after.wait_connected(5)
        assert await after.used(one) == (3 * IN_FLIGHT,)
        await after.close()

    through_a_line(redis_url, story)


def test_a_reservation_whose_answer_was_lost_is_undone(redis_url):
    async def story(line, redis):
        line.deaf = True
        with pytest.raises(CountersUnavailable, match=r"no answer for 0\.2 s"):
            await redis.reserve("a", (MONEY, SLOT, TOKENS))
        line.deaf = False
        await confirmed(redis)
        assert await redis.used((MONEY, SLOT, TOKENS)) == (0, 0, 0)

    through_a_line(redis_url, story)


def test_who_leaves_while_reserving_has_reserved_nothing(redis_url):
    async def story(line, redis):
        reserving = asyncio.ensure_future(redis.reserve("a", (MONEY, SLOT)))  # noqa: TID251  awaited below
        await asyncio.sleep(0)
        reserving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reserving
        await confirmed(redis)
        assert await redis.used((MONEY, SLOT)) == (0, 0)

    through_a_line(redis_url, story)


def test_a_redis_that_is_gone_is_told_at_once_and_found_again(redis_url):
    async def story(line, redis):
        line.cut()
        await gone(redis)
        with pytest.raises(CountersUnavailable, match="not connected"):
            await redis.reserve("a", (MONEY,))
        assert await redis.wait_connected(5)
        assert type(await redis.reserve("a", (MONEY,))) is Granted

    through_a_line(redis_url, story)


def test_a_redis_that_forgot_everything_forgets_no_budget(redis_url):
    async def story(line, redis):
        held = await redis.reserve("a", (MONEY, SLOT))
        admin = await another(redis_url)
        await admin.call(packed("FLUSHALL"))
        await admin.call(packed("SCRIPT", "FLUSH"))
        with pytest.raises(CountersUnavailable, match="NOSCRIPT"):  # once: the scripts are brought with the connection
            await redis.reserve("b", (MONEY,))
        redis.settle(held, [70, 1])
        await confirmed(redis)
        assert await redis.reserve("c", (MONEY,)) == Unseeded((MONEY.counter,))
        await redis.seed(MONEY.counter, 970, 86_400)  # the ledger knows
        assert (await redis.reserve("d", (MONEY,))).used == (970,)
        await admin.close()

    through_a_line(redis_url, story)


def test_what_redis_refuses_for_good_is_counted_as_lost(redis_url):
    async def story(line, redis):
        granted = await redis.reserve("a", (MONEY,))
        admin = await another(redis_url)
        key = redis._counter + MONEY.counter
        await admin.call(packed("DEL", key))
        await admin.call(packed("SADD", key, "not a counter"))  # MGET sees nothing, SET would replace it
        await admin.call(packed("DEL", redis._open))
        await admin.call(packed("SET", redis._open, "not a hash"))
        redis.settle(granted, [70])
        await confirmed(redis)
        assert redis.lost == 1
        await admin.close()

    through_a_line(redis_url, story)


def test_keys_do_not_stay_for_ever(redis_url):
    async def story(line, redis):
        redis.settle(await redis.reserve("a", (MONEY, SLOT, TOKENS)), [70, 1, 50])
        await confirmed(redis)
        admin = await another(redis_url)
        keys = await admin.call(packed("KEYS", redis._counter + "*"))
        assert len(keys) == 3
        for key in keys:
            assert 0 < await admin.call(packed("TTL", key)) <= 2 * 86_400
        assert 0 < await admin.call(packed("TTL", redis._holder)) <= 7 * 86_400
        assert await admin.call(packed("EXISTS", redis._open, redis._due)) == 0
        await admin.close()

    through_a_line(redis_url, story)


async def another(url):
    redis = Redis(parse_url(url))
    assert await redis.wait_connected(5)
    return redis


def test_a_password_is_given(redis_url):
    async def main():
        admin = await another(redis_url)
        await admin.call(packed("CONFIG", "SET", "requirepass", "s3cret"))
        try:
            stranger = Redis(parse_url(redis_url))
            assert not await stranger.wait_connected(0.05)
            await stranger.close()
            friend = Redis(parse_url(redis_url.replace("//", "//:s3cret@") + "/3"))
            assert await friend.wait_connected(5)
            await friend.call(packed("SET", "here", "1"))
            await admin.call(packed("SELECT", 3))
            assert await admin.call(packed("GET", "here")) == b"1"
            await friend.close()
        finally:
            await admin.call(packed("CONFIG", "SET", "requirepass", ""))
            await admin.close()

    asyncio.run(main())


def test_what_does_not_speak_redis_is_left(redis_url):
    async def main():
        async def greet(reader, writer):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            redis = Redis(parse_url(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            assert not await redis.wait_connected(0.1)
            await redis.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address("localhost", 6379, None, False, "", "", 0)),
        ("rediss://me:p%40ss@db.example:7000/2", Address("db.example", 7000, None, True, "me", "p@ss", 2)),
        ("redis://:pw@[::1]:6380", Address("::1", 6380, None, False, "", "pw", 0)),
        ("unix:///run/redis.sock", Address("", 0, "/run/redis.sock", False, "", "", 0)),
    ],
)
def test_addresses_are_understood(url, address):
    assert parse_url(url) == address


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://h/books", "redis://h:99999"])
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match=r"Redis address|[Pp]ort"):
        parse_url(url)
