from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.plan import Plan
from penstock.resilience.hedging import HedgeBudget, Hedging, with_hedge
from penstock.resilience.options import HedgeRule
from penstock.resilience.sketch import Sketch
from penstock.resilience.stalls import Stalls


def learned(n=1_000, seed=1):
    hedging, rng = Hedging(HedgeRule()), Random(seed)
    for _ in range(n):
        predicted = rng.uniform(0.1, 10.0)
        hedging.learn(predicted, predicted * rng.uniform(0.5, 1.5))
    return hedging


def test_it_comes_after_the_95th_percentile_of_what_such_a_prediction_becomes():
    hedging = learned()
    assert hedging.after(2.0) == pytest.approx(2.0 * 1.45, rel=0.05)
    assert hedging.after(0.2) == pytest.approx(0.2 * 1.45, rel=0.05)


def test_one_in_twenty_requests_waits_so_long():
    hedging, rng = learned(), Random(2)
    late = sum(rng.uniform(0.5, 1.5) * 3.0 > hedging.after(3.0) for _ in range(20_000))
    assert 0.03 < late / 20_000 < 0.07


def test_nothing_is_hedged_before_enough_is_known_or_where_nothing_was_predicted():
    assert learned(49).after(1.0) is None
    assert learned(50).after(1.0) is not None
    assert learned().after(0.0) is None


def test_a_hedge_is_never_sooner_than_jitter():
    assert learned().after(0.001) == HedgeRule().at_least


def test_the_plan_gets_it_unless_it_has_a_time_of_its_own_or_no_hedging():
    plan, hedging = Plan(("a",)), learned()
    assert with_hedge(plan, hedging, 2.0).hedge_after == hedging.after(2.0)
    assert with_hedge(plan, None, 2.0) is plan
    assert with_hedge(plan, Hedging(HedgeRule()), 2.0) is plan
    fixed = Plan(("a",), hedge_after=0.3)
    assert with_hedge(fixed, hedging, 2.0) is fixed


@given(st.lists(st.booleans(), max_size=2_000), st.floats(0, 0.2))
def test_hedges_are_never_more_than_their_share_of_the_requests(steps, share):
    budget, requests = HedgeBudget(share), 0
    for is_request in steps:
        if is_request:
            budget.on_request()
            requests += 1
        elif budget.affords:
            budget.spend()
        assert budget.hedges <= share * requests + 1e-6


def test_two_in_a_hundred_may_be_hedged_and_a_quiet_day_saves_ten_for_a_burst():
    budget = HedgeBudget(0.02)
    spent = 0
    for _ in range(10_000):
        budget.on_request()
        if budget.affords:
            budget.spend()
            spent += 1
    assert spent == pytest.approx(200, abs=1)
    for _ in range(100_000):
        budget.on_request()
    burst = 0
    while budget.affords:
        budget.spend()
        burst += 1
    assert burst == 10


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_a_quantile_is_one_of_the_samples_to_three_percent(xs, q):
    sketch = Sketch(1e-3, 1e3)
    for x in xs:
        sketch.add(x)
    exact = sorted(xs)[max(0, -(-len(xs) * q // 1).__int__() - 1)]
    near = [abs(sketch.quantile(q) / x - 1) for x in xs]
    assert min(near) < 0.03
    at_most = sum(x <= sketch.quantile(q) * 1.026 for x in xs)
    assert at_most >= q * len(xs) - 1e-6
    assert sketch.quantile(q) <= max(exact, min(xs)) * 1.06


def test_what_was_long_ago_is_forgotten():
    sketch = Sketch(0.01, 100.0, recent=200)
    for _ in range(5_000):
        sketch.add(10.0)
    for _ in range(2_000):
        sketch.add(0.1)
    assert sketch.quantile(0.95) == pytest.approx(0.1, rel=0.03)
    assert sketch.n < 200


def test_what_is_outside_of_its_range_counts_at_its_ends():
    sketch = Sketch(0.1, 10.0)
    sketch.add(1e-9)
    assert sketch.quantile(0.5) == pytest.approx(0.1, rel=0.03)
    for _ in range(3):
        sketch.add(1e9)
    assert sketch.quantile(0.9) == pytest.approx(10.0, rel=0.06)


def test_a_stream_has_stalled_after_twenty_times_the_slowest_usual_gap_and_not_sooner_than_two_seconds():
    slow, quick, new = Stalls(), Stalls(), Stalls()
    for _ in range(200):
        slow.learn(1.0, 1.0 + 99 * 0.25, 100)
        quick.learn(1.0, 1.0 + 99 * 0.01, 100)
    assert slow.after() == pytest.approx(5.0, rel=0.03)
    assert quick.after() == 2.0
    for _ in range(99):
        new.learn(1.0, 3.0, 5)
    new.learn(1.0, 1.0, 1)  # one token has no gap
    assert new.after() == float("inf")
