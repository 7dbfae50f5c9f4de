from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import FailureKind
from penstock.core.plan import OK
from penstock.resilience.breaker import Breaker, BreakerRule
from penstock.resilience.concurrency import Concurrency, Limited
from penstock.resilience.options import ConcurrencyRule


def served(limiter, capacity, demand, n, *, rng=None, noise=0.0, bias=1.0):
    """`n` first tokens of a replica that can do `capacity` at once, and is as much slower as there are more."""
    for _ in range(n):
        inflight = min(demand, limiter.limit)
        took = bias * max(1.0, inflight / capacity) * (1.0 if rng is None else rng.lognormvariate(0.0, noise))
        limiter.on_first_token(1.0, took, inflight)
    return limiter


@pytest.mark.parametrize("capacity", [1, 4, 16, 64, 256])
@pytest.mark.parametrize("bias", [0.3, 1.0, 3.0])
def test_it_finds_what_the_replica_can_do_at_once_whatever_the_predictions_are_worth(capacity, bias):
    limiter = Concurrency(ConcurrencyRule())
    served(limiter, capacity, capacity // 2, 200, bias=bias)  # what it is like while it has little to do
    served(limiter, capacity, 10_000, 5_000, bias=bias)
    assert capacity <= limiter.limit <= 1.4 * capacity + 8


def test_it_stays_there_under_lasting_overload_and_does_not_take_it_for_normal():
    limiter = served(Concurrency(ConcurrencyRule()), 32, 10, 500)
    served(limiter, 32, 10_000, 5_000)
    before = limiter.limit
    served(limiter, 32, 10_000, 50_000)
    assert limiter.limit == pytest.approx(before, abs=2)


def test_noise_does_not_starve_it():
    limiter, rng = Concurrency(ConcurrencyRule()), Random(1)
    served(limiter, 32, 10, 500, rng=rng, noise=0.5)
    served(limiter, 32, 10_000, 5_000, rng=rng, noise=0.5)
    assert 16 <= limiter.limit <= 64


def test_without_demand_it_does_not_grow():
    limiter = served(Concurrency(ConcurrencyRule()), 1_000, 9, 10_000)
    assert limiter.limit == 20


def test_a_replica_that_gets_slower_gets_fewer_and_one_that_recovers_gets_them_back():
    limiter = served(Concurrency(ConcurrencyRule()), 64, 30, 500)
    served(limiter, 64, 10_000, 3_000)
    high = limiter.limit
    served(limiter, 8, 10_000, 3_000)
    assert limiter.limit < high / 3
    served(limiter, 64, 10_000, 3_000)
    assert limiter.limit == pytest.approx(high, rel=0.1)


def test_slowness_that_few_do_not_cure_becomes_the_new_normal():
    limiter = served(Concurrency(ConcurrencyRule()), 64, 10_000, 3_000)
    squeezed = limiter.limit
    lowest = squeezed
    for _ in range(5_000):
        served(limiter, 64, 10_000, 1, bias=5.0)  # another model, another network: it is just slow
        lowest = min(lowest, limiter.limit)
    assert lowest < squeezed / 3
    assert limiter.limit > squeezed / 2


def test_slowness_that_shows_in_a_quiet_hour_becomes_the_new_normal():
    limiter = served(Concurrency(ConcurrencyRule()), 64, 10_000, 3_000)
    before = limiter.limit
    served(limiter, 64, 5, 1_000, bias=2.0)
    served(limiter, 64, 10_000, 3_000, bias=2.0)
    assert limiter.limit == pytest.approx(before, rel=0.2)


def test_a_refusal_cuts_it_below_what_was_in_flight():
    limiter = Concurrency(ConcurrencyRule())
    limiter.on_refused(10)
    assert limiter.limit == 9


def test_where_nothing_was_predicted_nothing_is_learned():
    limiter = Concurrency(ConcurrencyRule())
    for _ in range(100):
        limiter.on_first_token(0.0, 9.0, 20)
    assert limiter.limit == 20


samples = st.lists(
    st.tuples(st.sampled_from("ft"), st.floats(0, 1e3), st.floats(1e-3, 1e3), st.integers(1, 5_000)), max_size=400
)


@given(samples, st.integers(1, 5), st.integers(20, 400))
@settings(deadline=None)
def test_it_never_leaves_its_bounds(steps, least, most):
    limiter = Concurrency(ConcurrencyRule(least=least, most=most))
    for what, took, predicted, inflight in steps:
        if what == "f":
            limiter.on_first_token(predicted, took, inflight)
        else:
            limiter.on_refused(inflight)
        assert 1 <= least <= limiter.limit <= most


@given(samples)
def test_it_never_grows_while_less_than_half_is_used(steps):
    limiter = Concurrency(ConcurrencyRule())
    for _, took, predicted, _ in steps:
        before = limiter.limit
        limiter.on_first_token(predicted, took, (before - 1) // 2)
        assert limiter.limit <= before


def test_the_gate_is_shut_while_it_is_full_or_the_breaker_is_open():
    gate = Limited(Breaker(BreakerRule(failures=1)), Concurrency(ConcurrencyRule(start=2)))
    gate.on_start(0.0)
    assert gate.closed
    gate.on_start(0.0)
    assert not gate.closed
    assert not gate.allows(0.0)
    gate.on_end(OK, 1.0)
    assert gate.allows(1.0)
    gate.on_end(FailureKind.NETWORK, 2.0)
    assert not gate.closed
    assert not gate.allows(2.0)
    assert gate.allows(12.0)


def test_the_gate_learns_from_429s():
    gate = Limited(Breaker(BreakerRule()), Concurrency(ConcurrencyRule()))
    for _ in range(10):
        gate.on_start(0.0)
    gate.on_end(FailureKind.RATE_LIMITED, 1.0)
    assert gate.concurrency.limit == 9
    assert gate.inflight == 9
