from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import FailureKind, UpstreamError, kind_of_status
from penstock.resilience.breaker import Breaker, BreakerRule, Phase
from penstock.resilience.failures import CONSEQUENCES, for_caller
from penstock.resilience.retry_budget import RetryBudget

RULE = BreakerRule(failures=3, open_for=10.0, probes=1)


def opened(at=0.0):
    breaker = Breaker(RULE)
    for _ in range(3):
        breaker.on_failure(at)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before():
    breaker = Breaker(RULE)
    breaker.on_failure(0.0)
    breaker.on_failure(0.0)
    breaker.on_success(0.0)
    breaker.on_failure(0.0)
    breaker.on_failure(0.0)
    assert breaker.allows(0.0)
    breaker.on_failure(0.0)
    assert not breaker.allows(9.9)


def test_half_open_lets_one_probe_through_and_its_success_closes():
    breaker = opened()
    assert breaker.phase(10.0) is Phase.HALF_OPEN
    assert breaker.allows(10.0)
    breaker.on_start(10.0)
    assert not breaker.allows(10.0)
    breaker.on_success(10.5)
    assert breaker.phase(10.5) is Phase.CLOSED


def test_a_failed_probe_opens_it_again_for_as_long():
    breaker = opened()
    breaker.on_start(10.0)
    breaker.on_failure(10.5)
    assert not breaker.allows(20.4)
    assert breaker.allows(20.5)


def test_an_abandoned_probe_frees_its_place():
    breaker = opened()
    breaker.on_start(10.0)
    breaker.on_abandoned(10.1)
    assert breaker.allows(10.1)


@given(st.lists(st.tuples(st.sampled_from("sfax"), st.floats(0, 5)), max_size=60))
def test_closed_is_exactly_when_nothing_opened_it(steps):
    breaker, now = Breaker(RULE), 0.0
    for what, dt in steps:
        now += dt
        {"s": breaker.on_success, "f": breaker.on_failure, "a": breaker.on_abandoned, "x": breaker.on_start}[what](now)
        assert breaker.closed == (breaker.opened_at is None)
        assert breaker.probing >= 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=200), st.floats(0, 1), st.floats(0, 5))
def test_retries_never_exceed_their_share_of_requests_plus_the_floor(steps, ratio, per_second):
    budget, now, requests, retries = RetryBudget(ratio, per_second, window=10.0), 0.0, 0, 0
    for is_request, dt in steps:
        now += dt
        if is_request:
            budget.on_request()
            requests += 1
        else:
            retries += budget.take(now)
        assert retries <= ratio * requests + per_second * (10.0 + now) + 1e-6


def test_an_outage_is_not_answered_with_a_storm():
    budget = RetryBudget(ratio=0.2, per_second=1.0, window=10.0)
    taken = 0
    for i in range(10_000):  # 1,000 requests a second, all failing
        budget.on_request()
        taken += budget.take(i / 1000)
    assert 1_500 < taken < 2_100
    assert budget.refused == 10_000 - taken


def test_every_kind_of_failure_has_its_consequence_and_says_nothing_internal():
    assert set(CONSEQUENCES) == set(FailureKind)
    for kind in FailureKind:
        told = for_caller(UpstreamError(kind, "http://10.0.0.4:8000 sk-secret"))
        assert told.status >= 400
        assert "10.0.0.4" not in told.message
        assert "secret" not in told.message


def test_our_credentials_fault_is_never_the_callers():
    for status in (401, 403):
        assert for_caller(UpstreamError(kind_of_status(status))).status == 502
