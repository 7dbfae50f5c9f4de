"""Reserving what is likely, and holding a part of a limit."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.limits.blocks import PIECES, SHARE, HeldBlock, RateBlock, block, overshoot, pieces
from penstock.limits.charges import Charge, Granted, Kind
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


def charge(limit, kind=Kind.RATE, cost=0):
    return Charge("counter", kind, limit, cost, 60)


def lease(units, since, kind=Kind.RATE):
    return Granted(f"lease {since}", (charge(8000, kind, units),), (units,), since, 0)


@given(st.sampled_from(Kind), st.integers(1, 10**6), st.integers(1, 20))
def test_all_holders_together_hold_no_more_than_is_stated(kind, limit, holders):
    free, held = limit, 0
    for _ in range(holders):
        leased = min(free, block(charge(limit, kind), free, holders))
        free, held = free - leased, held + leased
    assert held <= overshoot(limit) <= limit / SHARE


def test_blocks_shrink_as_the_limit_nears():
    assert block(charge(8000), 8000, 4) == 250
    assert block(charge(8000), 400, 4) == 50
    assert block(charge(8000), 3, 4) == 0
    assert block(charge(8000), -5, 4) == 0


@given(st.integers(1, 10**6))
def test_nearly_all_of_a_block_can_be_given_back_whatever_of_it_is_in_use(size):
    parts = pieces(size)
    assert sum(parts) == size
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] <= -(-size // 2 ** (PIECES - 1))


def test_a_block_of_a_rate_asks_in_good_time_and_knows_which_lease_its_units_are_of():
    mine, first, second, third = RateBlock(charge(8000), 1000), lease(100, 1), lease(100, 2), lease(100, 3)
    assert mine.wants
    mine.add(first)
    assert not mine.wants
    mine.take(80, 0.0)
    assert mine.wants
    mine.add(second)
    mine.add(third)
    assert (mine.left, mine.lease) == (220, first)
    mine.take(19, 0.0)
    assert mine.lease is first
    mine.take(1, 0.0)
    assert mine.lease is second
    mine.take(200, 0.0)
    mine.add(third)
    assert (mine.left, mine.lease) == (100, third)


def test_what_was_not_used_of_a_rate_goes_back_each_part_as_of_its_own_lease():
    mine, first, second = RateBlock(charge(8000), 1000), lease(100, 1), lease(100, 2)
    mine.add(first)
    mine.add(second)
    mine.take(100, 0.0)
    assert mine.settle(60, 20, second)
    assert mine.settle(40, 39, first)
    assert mine.settle(9, 8, second)
    assert not mine.settle(10, 10, second)
    assert mine.settle(5, 12, second)  # more than was reserved
    assert mine.unused == 100 + 42
    *back, beyond = mine.tell()
    assert [(part.charges[0].cost, part.since, cost) for part, cost in back] == [(41, 2, 0), (1, 1, 0)]
    assert beyond == (None, 7)
    assert list(mine.tell()) == []
    assert mine.left == 100


def test_what_is_beyond_what_may_lie_about_goes_back_each_part_as_of_its_own_lease():
    mine = RateBlock(charge(8000), 30)
    mine.add(lease(100, 1))
    mine.take(60, 0.0)
    mine.add(lease(100, 2))
    assert [(part.charges[0].cost, part.since) for part, _ in mine.tell()] == [(40, 1), (70, 2)]
    assert mine.left == 30
    assert [(part.charges[0].cost, part.since) for part, _ in mine.drop()] == [(30, 2)]


def test_what_is_known_of_a_rate_drains():
    mine = RateBlock(charge(60), 30)
    mine.saw(20, 100.0)
    assert mine.used(105.0) == 15
    mine.add(lease(10, 1))
    assert mine.take(1, 110.0) == 11
    assert mine.take(1, 200.0) == 1


def test_of_a_budget_leases_are_settled_as_soon_as_they_are_spent_and_what_is_spent_is_told_once():
    mine, large, small = HeldBlock(charge(8000, Kind.BUDGET), 100), *(lease(n, n, Kind.BUDGET) for n in (60, 40))
    mine.add(small)
    mine.add(large)
    for _ in range(3):
        mine.take(20, 0.0)
    assert mine.settle(20, 5, None)
    assert mine.settle(20, 20, None)
    assert list(mine.tell()) == [(None, 25)]
    assert mine.unused == 55 + 25  # the shared counter has it as spent and as leased
    assert mine.settle(20, 30, None)  # more than was reserved
    assert list(mine.tell()) == [(small, 30)]
    assert (mine.left, mine.unused) == (55, 60)
    mine.take(55, 0.0)
    mine.settle(55, 55, None)
    assert list(mine.drop()) == [(large, 55)]
    assert mine.unused == 0


def test_of_a_gauge_leases_are_given_back_when_they_are_not_in_use_any_more():
    mine, large, small = HeldBlock(charge(8000, Kind.GAUGE), 4), *(lease(n, n, Kind.GAUGE) for n in (3, 2))
    mine.add(large)
    mine.add(small)
    for _ in range(5):
        mine.take(1, 0.0)
    for _ in range(4):
        assert not mine.settle(1, 1, None)
    assert mine.settle(1, 1, None)  # one more than may lie about
    assert list(mine.tell()) == []
    mine.most = 3
    assert list(mine.tell()) == [(small, 0)]
    assert mine.left == 3
