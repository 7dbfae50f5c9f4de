"""Percentiles and their intervals, against what textbooks and plain counting say."""

from math import comb
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.loadtest.quantiles import distribution, quantile, ranks


def test_percentiles_are_those_of_numpy():
    numpy = pytest.importorskip("numpy")
    rng = Random(4)
    values = [rng.lognormvariate(0, 2) for _ in range(1_237)]
    found = distribution(values)
    for p in found.percentiles:
        assert p.value == pytest.approx(float(numpy.percentile(values, p.percent)))


@pytest.mark.parametrize(
    ("n", "p", "expected"),
    # David and Nagaraja, Order Statistics, and Conover, Practical Nonparametric Statistics: the usual tables
    [(10, 0.5, (2, 9)), (15, 0.5, (4, 12)), (100, 0.5, (40, 61)), (5, 0.5, (None, None)), (100, 0.99, (97, None))],
)
def test_ranks_are_those_of_the_tables(n, p, expected):
    assert ranks(n, p) == expected


@given(st.integers(1, 200), st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.99]))
def test_each_side_errs_as_seldom_as_promised_and_no_narrower_pair_would(n, p):
    def fewer_than(r):  # P(B < r)
        return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(r))

    low, high = ranks(n, p)
    if low is not None:
        assert fewer_than(low) <= 0.025 + 1e-9
        assert low == n or fewer_than(low + 1) > 0.025 - 1e-9
    else:
        assert fewer_than(1) > 0.025 - 1e-9
    if high is not None:
        assert 1 - fewer_than(high) <= 0.025 + 1e-9
        assert high == 1 or 1 - fewer_than(high - 1) > 0.025 - 1e-9
    else:
        assert 1 - fewer_than(n) > 0.025 - 1e-9


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = Random(9)
    held = 0
    for _ in range(400):
        p = distribution([rng.expovariate(1.0) for _ in range(150)]).at(90.0)
        held += p.low <= 2.302585 <= p.high
    assert 0.93 <= held / 400 <= 0.99


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_a_quantile_lies_between_its_neighbours_and_rises(values, p):
    rising = sorted(values)
    assert rising[0] <= quantile(rising, p) <= rising[-1]
    assert quantile(rising, 0) == rising[0] and quantile(rising, 1) == rising[-1]


def test_nothing_has_no_distribution():
    assert distribution([]) is None
