"""Reserving what is likely, and holding a part of a limit."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.limits.blocks import SHARE, Block, block, overshoot
from penstock.limits.estimate import ENOUGH, HALVE_AT, KEPT, Estimates


def test_nothing_known_reserves_all_that_is_allowed():
    estimates = Estimates()
    for _ in range(ENOUGH - 1):
        estimates.learn("m", "k", 1000, 10)
    assert estimates.expect("m", "k", 1000) == 1000


def test_nine_of_ten_answers_stay_within_the_estimate(rng):
    estimates, inside = Estimates(), 0
    for n in range(6000):
        used = min(4096, int(rng.lognormvariate(5, 1)))
        if n >= 1000:
            inside += used <= estimates.expect("m", "k", 4096)
        estimates.learn("m", "k", 4096, used)
    assert 0.88 < inside / 5000 < 0.97  # the next bin upwards is up to a fifth more


def test_a_new_key_is_expected_to_be_like_the_others_of_its_model():
    estimates = Estimates()
    for n in range(ENOUGH):
        estimates.learn("m", f"k{n}", 1000, 60)
    assert 60 <= estimates.expect("m", "new", 1000) <= 72


def test_what_was_long_ago_is_forgotten():
    estimates = Estimates()
    for _ in range(5 * HALVE_AT):
        estimates.learn("m", "k", 1000, 1000)
    for _ in range(2 * HALVE_AT):
        estimates.learn("m", "k", 1000, 50)
    assert estimates.expect("m", "k", 1000) < 100


def test_memory_of_estimates_is_bounded():
    estimates = Estimates()
    for n in range(KEPT + 50):
        estimates.learn("m", f"k{n}", 10, 5)
    assert len(estimates._kept) == KEPT


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_an_estimate_is_never_more_than_is_allowed_nor_nothing(allowed, used):
    estimates = Estimates()
    for _ in range(ENOUGH):
        estimates.learn("m", "k", allowed, used)
    assert 1 <= estimates.expect("m", "k", allowed) <= allowed
    assert estimates.expect("m", "k", allowed) >= min(used, allowed) or used < allowed / 128


@given(st.integers(1, 10**6), st.integers(1, 20))
def test_all_holders_together_hold_no_more_than_is_stated(limit, holders):
    free, held = limit, 0
    for _ in range(holders):
        leased = min(free, block(limit, free, holders))
        free, held = free - leased, held + leased
    assert held <= overshoot(limit, holders) <= max(holders, limit // SHARE)


def test_blocks_shrink_as_the_limit_nears():
    assert block(8000, 8000, 4) == 250
    assert block(8000, 400, 4) == 50
    assert block(8000, 3, 4) == 1


def test_a_block_gives_what_it_has_and_asks_in_good_time():
    mine = Block()
    assert mine.wants
    mine.add(100)
    assert not mine.wants
    assert mine.take(80)
    assert mine.wants
    assert not mine.take(21)
    assert mine.settle(80, 30) == 0
    assert mine.left == 70
    assert mine.take(70)
    assert mine.settle(70, 95) == 25  # beyond the block: somebody has to be told
    assert mine.drop() == 0
