"""Retries, failover and hedging, told as short stories with a hand-held clock."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.plan import Plan
from penstock.resilience.attempt_events import (
    Cancel,
    Commit,
    Failed,
    FirstToken,
    GiveUp,
    Open,
    Suspected,
    WakeAt,
    Woke,
)
from penstock.resilience.attempts import Attempts
from penstock.resilience.hedging import HedgeBudget
from penstock.resilience.retry_budget import RetryBudget

PLAN = Plan(("main",), max_attempts=3, first_token_timeout=5.0)


def machine(plan=PLAN, seed=1, budget=None, deadline=float("inf")):
    return Attempts(plan, budget or RetryBudget(), Random(seed), deadline)


def failed(number, kind, wait=0.0):
    return Failed(number, UpstreamError(kind), wait)


def opens(actions):
    return [a.attempt for a in actions if isinstance(a, Open)]


def alarm(actions):
    return [a.at for a in actions if isinstance(a, WakeAt)][-1]


def test_a_failed_attempt_is_followed_by_another_after_a_pause():
    m = machine()
    assert opens(m.start(0.0)) == [0]
    actions = m.on(failed(0, FailureKind.SERVER_ERROR), 1.0)
    assert opens(actions) == []
    wake = alarm(actions)
    assert 1.0 <= wake <= 1.0 + PLAN.backoff_base
    assert opens(m.on(Woke(), wake)) == [1]


def test_a_rejected_request_is_not_retried():
    m = machine()
    m.start(0.0)
    (last,) = m.on(failed(0, FailureKind.REJECTED), 0.1)
    assert isinstance(last, GiveUp)


def test_when_nobody_would_take_it_sooner_the_wait_is_respected():
    m = machine()
    m.start(0.0)
    assert alarm(m.on(failed(0, FailureKind.RATE_LIMITED, wait=1.9), 1.0)) == 2.9


def test_who_would_have_to_wait_long_is_told_so_at_once():
    m = machine()
    m.start(0.0)
    assert isinstance(m.on(failed(0, FailureKind.RATE_LIMITED, wait=2.1), 1.0)[-1], GiveUp)


def test_a_wait_beyond_the_deadline_is_not_waited_for():
    m = machine(deadline=2.0)
    m.start(0.0)
    assert isinstance(m.on(failed(0, FailureKind.RATE_LIMITED, wait=1.5), 1.0)[-1], GiveUp)


def test_a_hedge_starts_when_the_first_token_is_slow_and_the_loser_is_cancelled():
    m = machine(Plan(("main",), hedge_after=0.5))
    assert alarm(m.start(0.0)) == 0.5
    assert opens(m.on(Woke(), 0.5)) == [1]
    assert m.on(FirstToken(1), 0.6) == [Cancel(0), Commit(1)]


def test_waking_early_is_harmless():
    m = machine(Plan(("main",), hedge_after=0.5))
    m.start(0.0)
    assert m.on(Woke(), 0.499) == [WakeAt(0.5)]


def test_a_second_failure_waits_for_the_pause_that_is_already_running():
    m = machine(Plan(("main",), hedge_after=0.5))
    m.start(0.0)
    m.on(Woke(), 0.5)
    wake = alarm(m.on(failed(0, FailureKind.SERVER_ERROR), 0.6))
    assert alarm(m.on(failed(1, FailureKind.SERVER_ERROR), 0.6)) == wake
    assert opens(m.on(Woke(), wake)) == [2]


def test_without_budget_there_is_neither_retry_nor_hedge():
    broke = RetryBudget(ratio=0.0, per_second=0.0)
    m = machine(Plan(("main",), hedge_after=0.5), budget=broke)
    m.start(0.0)
    assert opens(m.on(Woke(), 0.5)) == []
    assert isinstance(m.on(failed(0, FailureKind.CONNECT), 0.6)[-1], GiveUp)


def test_a_hedge_needs_both_budgets_and_a_refused_one_costs_neither():
    hedges, broke = HedgeBudget(0.5), RetryBudget(ratio=0.0, per_second=0.0)
    hedges.on_request()
    hedges.on_request()
    m = Attempts(Plan(("main",), hedge_after=0.5), broke, Random(1), hedges=hedges)
    m.start(0.0)
    assert opens(m.on(Woke(), 0.5)) == []
    assert hedges.affords

    m = Attempts(Plan(("main",), hedge_after=0.5), RetryBudget(), Random(1), hedges=hedges)
    m.start(0.0)
    assert opens(m.on(Woke(), 0.5)) == [1]
    assert (hedges.hedges, hedges.affords) == (1, False)

    m = Attempts(Plan(("main",), hedge_after=0.5), RetryBudget(), Random(1), hedges=hedges)
    m.start(0.0)
    assert opens(m.on(Woke(), 0.5)) == []


def test_who_waits_at_a_replica_that_is_left_out_tries_another_at_once():
    m = machine()
    m.start(0.0)
    actions = m.on(Suspected(0), 1.0)
    assert opens(actions) == [1]
    assert m.on(Suspected(0), 1.1) == [], "once is enough"
    assert m.on(FirstToken(1), 1.5) == [Cancel(0), Commit(1)]


def test_a_suspected_attempt_may_still_answer_first():
    m = machine()
    m.start(0.0)
    m.on(Suspected(0), 1.0)
    assert m.on(FirstToken(0), 1.2) == [Cancel(1), Commit(0)]


def test_suspicion_opens_nothing_while_another_attempt_is_not_suspected_or_is_about_to_begin():
    m = machine(Plan(("main",), hedge_after=0.5))
    m.start(0.0)
    assert opens(m.on(Woke(), 0.5)) == [1]
    assert m.on(Suspected(0), 0.6) == []
    assert opens(m.on(Suspected(1), 0.7)) == [2]
    backing_off = machine(Plan(("main",), hedge_after=0.5))
    backing_off.start(0.0)
    backing_off.on(Woke(), 0.5)
    backing_off.on(failed(1, FailureKind.CONNECT), 0.6)
    assert backing_off.on(Suspected(0), 0.6) == []


def test_the_deadline_ends_everything():
    m = machine(Plan(("main",), first_token_timeout=50.0), deadline=10.0)
    assert alarm(m.start(0.0)) == 10.0
    cancel, last = m.on(Woke(), 10.0)
    assert cancel == Cancel(0)
    assert last.failure.kind is FailureKind.TOTAL_TIMEOUT


kinds = st.sampled_from(list(FailureKind))
steps = st.lists(st.tuples(st.sampled_from("fstx"), st.integers(0, 4), kinds, st.floats(0, 3)), max_size=40)


@given(steps, st.integers(1, 4), st.one_of(st.none(), st.floats(0.001, 2)), st.integers(0, 2**32))
@settings(max_examples=500)
def test_whatever_happens_it_tries_at_most_so_often_and_ends_once(steps, limit, hedge, seed):
    m = machine(Plan(("a",), max_attempts=limit, hedge_after=hedge), seed, deadline=30.0)
    now, log = 0.0, list(m.start(0.0))
    for what, number, kind, dt in steps:
        if m.done:
            break
        now += dt
        event = {"f": failed(number, kind), "s": FirstToken(number), "t": Woke(), "x": Suspected(number)}[what]
        log += m.on(event, now)
    opened = opens(log)
    endings = [a for a in log if isinstance(a, Commit | GiveUp)]
    assert opened == list(range(len(opened)))
    assert len(opened) <= limit
    assert len(endings) == m.done
    if m.done:
        assert log[-1] is endings[0], "nothing happens after the end"
    else:
        assert any(isinstance(a, WakeAt) for a in log), "an unfinished machine always has an alarm"
    m.done = True
    with pytest.raises(AssertionError):
        m.on(Woke(), now)
