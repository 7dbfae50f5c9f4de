from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.balancing.rates import FASTEST, FLATTEST, LONGEST, SHORTEST, SLOWEST, STEEPEST, Outputs, Rates
from penstock.core.fleet import ITL_SLOPE, PREFILL_RATE, STEP_BASE, Replica

speeds = st.floats(200, 200_000)


def prompts(rates, rng, n, rate, busy=0.8, stalls=0.0, now=0.0):
    """First tokens of an engine that computes one prompt after the other, within 10 % of `rate`, `busy` of the time.

    Returns when the last one came.
    """
    done = now
    for _ in range(n):
        uncached = int(rng.expovariate(1 / 1_500)) + 1
        now += rng.expovariate(busy * rate / 1_500)
        span = 0.005 + uncached / rate * rng.uniform(0.9, 1.1)
        done = max(now, done) + span * (100 if rng.random() < stalls else 1)
        rates.first_token(uncached, now, done)
    return done


def answers(rates, rng, n, base, slope):
    """Of an engine that computes prompts meanwhile; it is not known of all of them whether it did."""
    for _ in range(n):
        running, tokens, prefilled = rng.randint(1, 64), rng.randint(20, 400), rng.choice((0, 0, 1_000, 30_000))
        itl = base + slope * running
        seconds = (tokens - 1) * itl * rng.uniform(0.9, 1.1) + prefilled / rates.replica.compute_rate
        rates.ended(tokens, running, 0.0, seconds, prefilled, rng.choice((0, 500)))


@given(st.floats(200, 50_000), st.sampled_from((0.2, 0.8, 2.0)), st.integers(0, 9))
def test_the_prefill_rate_of_an_engine_is_learned_to_a_tenth_however_long_its_queue(rate, busy, seed):
    replica = Replica("r", "d")
    prompts(Rates(replica), Random(seed), 300, rate, busy)
    assert replica.prefill_rate == pytest.approx(rate, rel=0.1)


@given(st.floats(0.002, 0.1), st.floats(0.000_1, 0.005), st.integers(0, 9))
def test_the_time_of_a_step_is_learned_to_a_tenth(base, slope, seed):
    replica = Replica("r", "d")
    answers(Rates(replica), Random(seed), 400, base, slope)
    for running in (8, 32, 64):
        learned = replica.step_base + replica.itl_slope * running
        assert learned == pytest.approx(base + slope * running, rel=0.1)


@given(speeds, st.integers(0, 9))
def test_one_stall_in_fifty_does_not_make_a_replica_slow(rate, seed):
    replica = Replica("r", "d")
    prompts(Rates(replica), Random(seed), 400, rate, stalls=0.02)
    assert replica.prefill_rate > 0.6 * rate


def test_a_replica_that_slows_down_tenfold_is_known_to_be_slow_before_long():
    replica, rng = Replica("r", "d"), Random(3)
    rates = Rates(replica)
    now = prompts(rates, rng, 300, 8_000)
    now = prompts(rates, rng, 150, 800, now=now)
    assert replica.prefill_rate < 2_000
    prompts(rates, rng, 500, 800, now=now)
    assert replica.prefill_rate == pytest.approx(800, rel=0.1)


def stepped(rates, rng, n, rate, sizes, writing, step):
    """Of an engine whose steps are of 2,048 tokens, a sequence that is being written taking one: prompts fill what is
    left, in their order, several in one step, and two wait at any time. A first token comes when its step ends."""
    replica = rates.replica
    replica.inflight = writing
    now, free, waiting = 0.0, 2_048 - writing, []
    for _ in range(n):
        while len(waiting) < 2:
            waiting.append([rng.choice(sizes), 0, now])
            waiting[-1][1] = waiting[-1][0]
        room, computed, done = free, 0, []
        for one in waiting:
            taken = min(one[1], room)
            one[1] -= taken
            room -= taken
            computed += taken
            if not one[1]:
                done.append(one)
        now += step + computed / rate
        for one in done:
            rates.first_token(one[0], one[2], now)
            waiting.remove(one)


@given(
    st.floats(1_000, 40_000),
    st.sampled_from([(300,), (3_000, 8_000), (300, 300, 300, 3_000, 8_000)]),
    st.sampled_from([0, 200]),
    st.integers(0, 9),
)
def test_what_prompts_take_is_learned_without_what_is_written_beside_them(rate, sizes, writing, seed):
    replica = Replica("r", "d", step_base=0.006, itl_slope=0.000_35)
    stepped(Rates(replica), Random(seed), 400, rate, sizes, writing, 0.006 + 0.000_35 * writing)
    assert replica.compute_rate == pytest.approx(rate, rel=0.1)


def test_the_first_point_of_a_cold_start_is_not_taken_at_its_word():
    replica = Replica("r", "d")
    rates = Rates(replica)
    rates.first_token(1_000, 0.0, 60.0)
    rates.first_token(1_000, 100.0, 100.1)
    assert replica.prefill_rate < PREFILL_RATE
    assert replica.prefill_rate > PREFILL_RATE / 5


def test_prompts_of_one_length_teach_the_rate():
    replica = Replica("r", "d")
    rates = Rates(replica)
    for n in range(300):
        rates.first_token(700, 10.0 * n, 10.0 * n + 0.01 + 700 / 500)
    assert replica.prefill_rate == pytest.approx(500, rel=0.05)


def test_points_at_one_place_leave_the_slope_where_it_was():
    replica, rng = Replica("r", "d"), Random(1)
    rates = Rates(replica)
    for _ in range(500):
        rates.ended(100, 1, 0.0, 99 * 0.03 * rng.uniform(0.99, 1.01), 0, 0)
    assert replica.itl_slope == pytest.approx(ITL_SLOPE)
    assert replica.step_base + replica.itl_slope == pytest.approx(0.03, rel=0.05)


def test_what_says_nothing_teaches_nothing():
    replica = Replica("r", "d")
    rates = Rates(replica)
    rates.first_token(3, 0.0, 1.0)
    rates.first_token(3_000, 1.0, 1.0)
    rates.ended(2, 10, 0.0, 5.0, 0, 0)
    rates.ended(100, 10, 5.0, 5.0, 0, 0)
    rates.ended(100, 10, 0.0, 5.0, 40_000, 0)
    rates.ended(100, 10, 0.0, 5.0, 0, 40_000)
    assert (replica.prefill_rate, replica.step_base, replica.itl_slope) == (PREFILL_RATE, STEP_BASE, ITL_SLOPE)


numbers = st.floats(0, 1e9, allow_nan=False)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**9), numbers, numbers), max_size=40))
def test_learned_rates_stay_within_bounds_whatever_is_seen(points):
    replica = Replica("r", "d")
    rates = Rates(replica)
    now = 0.0
    for uncached, prefilled, seconds, running in points:
        rates.first_token(uncached, now, now + seconds)
        rates.ended(uncached, running, now, now + seconds, prefilled, prefilled // 2)
        now += seconds / 2
        assert SLOWEST * 0.999 <= replica.prefill_rate <= FASTEST * 1.001
        assert SLOWEST <= replica.compute_rate <= FASTEST
        assert SHORTEST <= replica.step_base <= LONGEST
        assert FLATTEST <= replica.itl_slope <= STEEPEST


@given(st.lists(st.integers(1, 100_000), min_size=5, max_size=250))
def test_the_median_of_the_answers_is_known_to_a_tenth(lengths):
    outputs = Outputs()
    for n in lengths:
        outputs.learn(n)
    lower, upper = sorted(lengths)[(len(lengths) - 1) // 2], median(lengths)
    assert 0.9 * lower - 1 <= outputs.median <= 1.1 * max(upper, lower) + 1


def test_prompts_that_were_computed_in_one_step_count_together():
    replica, rng = Replica("r", "d"), Random(2)
    rates = Rates(replica)
    for now in range(300):
        sizes = [rng.randint(100, 400) for _ in range(rng.randint(1, 10))]
        for size in sizes:
            rates.first_token(size, float(now), now + sum(sizes) / 5_000)
    assert replica.prefill_rate == pytest.approx(5_000, rel=0.05)


def test_answers_of_long_ago_weigh_less():
    outputs = Outputs()
    for _ in range(2_000):
        outputs.learn(100)
    for _ in range(300):
        outputs.learn(1_000)
    assert outputs.median == pytest.approx(1_000, rel=0.1)
