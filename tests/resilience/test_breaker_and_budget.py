import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import FailureKind, UpstreamError, kind_of_status
from penstock.resilience.breaker import Breaker, BreakerRule, Phase
from penstock.resilience.failures import CONSEQUENCES, NATURES, Blame, Lasting, for_caller
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


def test_each_failed_probe_doubles_the_time_until_the_next_one_up_to_a_minute():
    breaker, now, waits = opened(), 0.0, []
    for _ in range(70):
        until = breaker.opens_until()
        assert not breaker.allows(until - 0.1)
        assert breaker.allows(until)
        waits.append(until - now)
        now = until
        breaker.on_start(now)
        breaker.on_failure(now)
    assert waits[:4] == [10.0, 20.0, 40.0, 60.0]
    assert set(waits[4:]) == {60.0}


def test_an_open_time_that_is_longer_than_a_minute_stays_as_it_is():
    breaker = Breaker(BreakerRule(failures=1, open_for=300.0))
    breaker.on_failure(0.0)
    breaker.on_start(300.0)
    breaker.on_failure(300.0)
    assert breaker.opens_until() == 600.0


def test_a_success_forgets_how_often_probes_failed():
    breaker = opened()
    breaker.on_start(10.0)
    breaker.on_failure(10.0)
    breaker.on_start(30.0)
    breaker.on_success(30.0)
    for _ in range(3):
        breaker.on_failure(40.0)
    assert breaker.opens_until() == 50.0


@pytest.mark.parametrize(
    "kind", [FailureKind.NETWORK, FailureKind.TRUNCATED, FailureKind.IDLE_TIMEOUT, FailureKind.BAD_PAYLOAD]
)
def test_a_probe_whose_stream_breaks_after_its_first_token_has_failed(kind):
    breaker = opened()
    breaker.on_start(10.0)
    assert not breaker.allows(11.0), "its first token closes nothing, and nobody else may try before its end"
    breaker.on_end(kind, 12.0)
    assert breaker.phase(31.9) is Phase.OPEN
    assert breaker.allows(32.0)


def test_attempts_that_began_before_it_opened_do_not_prolong_it_when_they_break():
    breaker = opened()
    for i in range(50):
        breaker.on_end(FailureKind.NETWORK, 1.0 + i * 0.1)
    assert breaker.opens_until() == 10.0


def test_one_of_those_that_fails_when_a_probe_is_due_puts_the_probe_off():
    breaker = opened()
    breaker.on_end(FailureKind.NETWORK, 12.0)
    assert breaker.opens_until() == 22.0


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


def test_what_the_last_requests_paid_in_is_there_for_the_first_retry_after_a_quiet_hour():
    """A replica is killed with hundreds of requests on it: all of them are moved, at once."""
    budget = RetryBudget(ratio=0.2, per_second=1.0, window=10.0)
    for _ in range(3600 * 100):  # 100 a second, without a retry
        budget.on_request()
    moved = sum(budget.take(3600.0) for _ in range(400))
    assert moved == pytest.approx(0.2 * 100 * 10 + 1.0 * 10, abs=1)


@given(st.lists(st.floats(0.01, 5), min_size=1, max_size=50))
def test_how_often_it_is_asked_does_not_change_what_is_in_it(pauses):
    """Even traffic, 50 a second: asked in between or only at the end, the same is left."""
    asked, unasked, now = RetryBudget(0.2, 0.0), RetryBudget(0.2, 0.0), 0.0
    for pause in pauses:
        for _ in range(int(pause * 50)):
            asked.on_request()
            unasked.on_request()
        now += int(pause * 50) / 50
        asked._leak(now)
    unasked._leak(now)
    assert asked._credit == pytest.approx(unasked._credit, rel=1e-6, abs=1e-9)


def test_retries_without_a_budget_are_a_ratio_as_large_as_the_most_attempts():
    budget = RetryBudget(ratio=10.0, per_second=0.0)
    for _ in range(1_000):
        budget.on_request()
        assert all(budget.take(0.0) for _ in range(9))


def test_an_outage_is_not_answered_with_a_storm():
    budget = RetryBudget(ratio=0.2, per_second=1.0, window=10.0)
    taken = 0
    for i in range(10_000):  # 1,000 requests a second, all failing
        budget.on_request()
        taken += budget.take(i / 1000)
    assert 1_500 < taken < 2_100
    assert budget.refused == 10_000 - taken


def test_every_kind_of_failure_is_either_passing_or_not_and_somebodys():
    assert set(NATURES) == set(FailureKind)
    for kind, nature in NATURES.items():
        if CONSEQUENCES[kind].trips and nature.lasting is Lasting.TRANSIENT:
            assert nature.blame is Blame.PROVIDER, f"{kind}: a breaker opens for what a provider did"
        if nature.blame is Blame.CALLER:
            assert not CONSEQUENCES[kind].retry, f"{kind}: another attempt has the same fault"
            assert nature.lasting is Lasting.SYSTEMATIC


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
