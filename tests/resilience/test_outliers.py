"""A replica is compared with its like, in a hand-held world: who is left out, when, and who never is."""

from heapq import heappop, heappush
from math import exp
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import FailureKind
from penstock.core.fleet import Replica
from penstock.core.plan import CANCELLED, OK
from penstock.resilience.options import OutlierRule, Why
from penstock.resilience.outliers import Outliers

RULE = OutlierRule()


def pool(n):
    return [Replica(f"r/{i}", "r") for i in range(n)]


def attempt(outliers, name, at, *, took=0.1, predicted=0.1, ended=OK, empty=False):
    """From start to end; the ejection that its end led to, if any."""
    ticket = outliers.started(name, predicted, at)
    if took is not None:
        outliers.first_token(name, ticket, at + took)
    return outliers.ended(name, ticket, ended, at + (took or 0.0), empty=empty)


def out(replicas, now):
    return [replica.name for replica in replicas if replica.ejected_until > now]


def fail(outliers, name, at, times=RULE.in_a_row, kind=FailureKind.SERVER_ERROR):
    return [attempt(outliers, name, at, took=None, ended=kind) for _ in range(times)][-1]


def test_five_failures_in_a_row_eject_for_thirty_seconds():
    replicas = pool(2)
    outliers = Outliers(RULE, replicas)
    assert fail(outliers, "r/0", 1.0, 4) is None
    ejection = fail(outliers, "r/0", 1.0, 1)
    assert (ejection.replica, ejection.why, ejection.until) == ("r/0", Why.IN_A_ROW, 31.0)
    assert replicas[0].ejected_until == 31.0


def test_a_good_answer_between_them_begins_the_count_anew():
    outliers = Outliers(RULE, pool(2))
    fail(outliers, "r/0", 1.0, 4)
    attempt(outliers, "r/0", 1.0)
    assert fail(outliers, "r/0", 2.0, 4) is None


def test_empty_and_stalled_answers_are_bad_ones_and_each_counts_once():
    outliers = Outliers(RULE, pool(2))
    for _ in range(3):
        assert attempt(outliers, "r/0", 1.0, empty=True) is None
    tickets = [outliers.started("r/0", 0.1, 1.0) for _ in range(2)]
    assert outliers.stalled("r/0", tickets[0], 5.0) is None
    assert outliers.stalled("r/0", tickets[0], 6.0) is None
    assert outliers.ended("r/0", tickets[0], FailureKind.IDLE_TIMEOUT, 7.0) is None
    assert outliers.stalled("r/0", tickets[1], 8.0).why is Why.IN_A_ROW


@pytest.mark.parametrize(
    "kind", [FailureKind.REJECTED, FailureKind.CONTEXT_LENGTH, FailureKind.RATE_LIMITED, CANCELLED]
)
def test_what_says_nothing_of_the_replica_is_not_held_against_it(kind):
    outliers = Outliers(RULE, pool(2))
    assert fail(outliers, "r/0", 1.0, 50, kind) is None


def test_the_last_one_that_answers_is_never_left_out():
    replicas = pool(2)
    outliers = Outliers(RULE, replicas)
    replicas[1].ready = False
    assert fail(outliers, "r/0", 1.0, 20) is None
    alone = Outliers(RULE, [Replica("a", "r")])
    assert fail(alone, "a", 1.0, 20) is None


def test_when_the_others_fail_too_those_left_out_come_back():
    replicas = pool(2)
    outliers = Outliers(RULE, replicas)
    assert fail(outliers, "r/0", 1.0)
    fail(outliers, "r/1", 2.0)
    assert out(replicas, 2.0) == ["r/0"]
    outliers.sweep(3.0)
    assert out(replicas, 3.0) == []


def test_each_ejection_is_longer_up_to_five_minutes_and_good_conduct_is_remembered():
    replicas = pool(2)
    outliers = Outliers(RULE, replicas)
    now, lengths = 0.0, []
    for _ in range(12):
        ejection = fail(outliers, "r/0", now)
        lengths.append(ejection.until - now)
        now = ejection.until + 1.0
    assert lengths[:3] == pytest.approx([30.0, 60.0, 90.0])
    assert lengths[-1] == pytest.approx(300.0)
    now += 3600.0
    assert fail(outliers, "r/0", now).until - now == pytest.approx(30.0)


def test_who_fails_one_in_three_is_found_though_never_five_in_a_row():
    replicas = pool(8)
    outliers = Outliers(RULE, replicas)
    found = []
    for i in range(120):
        now = i * 0.1
        for replica in replicas:
            bad = replica is replicas[3] and i % 3 == 0
            attempt(outliers, replica.name, now, took=0.01, ended=FailureKind.NETWORK if bad else OK)
        found += outliers.sweep(now)
    assert [(one.replica, one.why) for one in found] == [("r/3", Why.SHARE)]


def test_what_all_suffer_from_ejects_nobody():
    replicas = pool(8)
    outliers = Outliers(RULE, replicas)
    rng = Random(5)
    for i in range(300):
        now = i * 0.1
        for replica in replicas:
            bad = rng.random() < 0.4
            took = 0.1 if now < 15 else 2.0  # all of them twenty times slower, from one moment to the next
            attempt(outliers, replica.name, now - took, took=took, ended=FailureKind.NETWORK if bad else OK)
        assert [one.why for one in outliers.sweep(now) if one.why is not Why.IN_A_ROW] == []


def test_a_wrong_prediction_for_all_is_nobodys_fault():
    replicas = pool(4)
    outliers = Outliers(RULE, replicas)
    for i in range(200):
        for replica in replicas:
            attempt(outliers, replica.name, i * 0.1, took=3.0, predicted=0.1)
        assert outliers.sweep(i * 0.1) == []


def test_an_attempt_that_hangs_alone_is_no_evidence_while_others_there_are_answered():
    outliers = Outliers(RULE, pool(2))
    for _ in range(5):
        outliers.started("r/0", 0.1, 0.0)  # five that nobody ever hears of again
    for i in range(200):
        now = i * 0.1
        for name in ("r/0", "r/1"):
            attempt(outliers, name, now)
        assert outliers.sweep(now) == []


def test_some_milliseconds_more_than_almost_nothing_are_not_slow():
    outliers = Outliers(RULE, pool(2))
    for i in range(200):
        attempt(outliers, "r/0", i * 0.1, took=0.03, predicted=0.002)
        attempt(outliers, "r/1", i * 0.1, took=0.002, predicted=0.002)
        assert outliers.sweep(i * 0.1) == []


def world(n, rate, *, seconds, fault=None, factor=10.0, seed=0, noise=0.6, ttft=0.3):
    """`rate` requests per second over `n` replicas, each as likely; from 30 s on the first one is ten times slower
    (`slow`) or answers nothing (`hang`). Returns when it was left out, after that, and who else was."""
    rng, replicas = Random(seed), pool(n)
    outliers = Outliers(RULE, replicas)
    ends, now, sweep_at, count = [], 0.0, 1.0, 0
    arrival = rng.expovariate(rate)
    found, others = None, []
    while now < seconds:
        now = min(arrival, sweep_at, ends[0][0] if ends else arrival)
        if ends and ends[0][0] == now:
            _, _, name, ticket = heappop(ends)
            outliers.first_token(name, ticket, now)
            outliers.ended(name, ticket, OK, now)
        elif now == sweep_at:
            for ejection in outliers.sweep(now):
                if ejection.replica != "r/0" or now < 30.0:
                    others.append(ejection)
                elif found is None:
                    found = (now - 30.0, len(ejection.waiting))
            sweep_at += RULE.interval
        else:
            arrival = now + rng.expovariate(rate)
            replica = rng.choice([one for one in replicas if one.ejected_until <= now])
            predicted = ttft * exp(rng.gauss(0.0, 0.5))
            ticket = outliers.started(replica.name, predicted, now)
            count += 1
            faulty = fault is not None and replica is replicas[0] and now >= 30.0
            if not (faulty and fault == "hang"):
                took = predicted * exp(rng.gauss(0.0, noise)) * (factor if faulty else 1.0)
                heappush(ends, (now + took, count, replica.name, ticket))
    return found, others


@pytest.mark.parametrize("fault", ["slow", "hang"])
@pytest.mark.parametrize(("n", "rate"), [(2, 4), (2, 40), (8, 80), (100, 500)])
def test_one_that_is_ten_times_slower_or_hangs_is_out_within_seconds(n, rate, fault):
    found, others = world(n, rate, seconds=42.0, fault=fault, seed=n)
    assert found is not None
    after, waiting = found
    assert after <= 8.0
    assert waiting > 0, "those who wait there are told to try elsewhere"
    assert others == []


@pytest.mark.parametrize("noise", [0.3, 0.6, 1.0])
def test_chance_alone_ejects_nobody_in_ten_thousand_requests(noise):
    assert world(8, 80, seconds=125.0, noise=noise, seed=3) == (None, [])


def test_a_new_replica_ramps_up_over_a_minute_and_the_first_ones_do_not():
    replicas = pool(2)
    outliers = Outliers(RULE, replicas)
    assert outliers.ramp("r/0", 0.0) == 1.0
    newcomer = Replica("r/2", "r")
    outliers.keep([*replicas, newcomer], 100.0)
    assert [outliers.ramp(f"r/{i}", 100.0) for i in range(3)] == [1.0, 1.0, 0.1]
    assert newcomer.ramp == pytest.approx(10.0)
    assert outliers.ramp("r/2", 130.0) == pytest.approx(0.55)
    outliers.sweep(160.0)
    assert newcomer.ramp == 1.0


def test_a_pool_that_is_all_new_does_not_ramp():
    outliers = Outliers(RULE, pool(2))
    outliers.keep([Replica("new/0", "r"), Replica("new/1", "r")], 100.0)
    assert outliers.ramp("new/0", 100.0) == 1.0


def test_after_an_ejection_it_comes_back_slowly():
    replicas = pool(2)
    outliers = Outliers(RULE, replicas)
    until = fail(outliers, "r/0", 0.0).until
    assert outliers.ramp("r/0", until) == pytest.approx(0.1)
    assert outliers.ramp("r/0", until + 30.0) == pytest.approx(0.55)
    assert outliers.ramp("r/0", until + 60.0) == 1.0


def test_a_replica_that_stays_keeps_its_record_and_one_that_left_is_forgotten():
    replicas = pool(3)
    outliers = Outliers(RULE, replicas)
    fail(outliers, "r/0", 0.0, 4)
    ticket = outliers.started("r/2", 0.1, 0.0)
    again = Replica("r/0", "r")
    outliers.keep([again, replicas[1]], 1.0)
    outliers.first_token("r/2", ticket, 1.0)
    assert outliers.ended("r/2", ticket, FailureKind.NETWORK, 1.0) is None
    assert fail(outliers, "r/0", 1.0, 1).replica == "r/0"
    assert again.ejected_until > 1.0


steps = st.lists(
    st.tuples(
        st.integers(0, 11),
        st.sampled_from(["ok", "fail", "empty", "slow", "hang", "cancel", "sweep", "unready", "ready"]),
        st.floats(0, 20),
    ),
    max_size=150,
)


@given(st.integers(1, 12), steps)
@settings(max_examples=200, deadline=None)
def test_whatever_happens_at_most_a_tenth_or_one_is_out_and_somebody_else_answers(n, steps):
    replicas = pool(n)
    outliers = Outliers(RULE, replicas)
    now = 0.0
    for which, what, dt in steps:
        now += dt
        replica = replicas[which % n]
        before = out(replicas, now)
        match what:
            case "sweep":
                outliers.sweep(now)
            case "ready" | "unready":
                replica.ready = what == "ready"
            case "hang":
                outliers.started(replica.name, 0.1, now)
            case "slow":
                attempt(outliers, replica.name, now, took=5.0)
                now += 5.0
            case "cancel":
                attempt(outliers, replica.name, now, took=None, ended=CANCELLED)
            case _:
                attempt(outliers, replica.name, now, empty=what == "empty", took=0.1 if what == "ok" else None,
                        ended=FailureKind.CONNECT if what == "fail" else OK)  # fmt: skip
        after = out(replicas, now)
        assert len(after) <= max(1, n // 10)
        if set(after) - set(before):
            assert any(one.ready and one.name not in after for one in replicas)
        for one in replicas:
            assert 0.1 <= outliers.ramp(one.name, now) <= 1.0
            assert one.ejected_until <= now + RULE.longest


@given(steps)
@settings(max_examples=100, deadline=None)
def test_samples_of_all_are_those_of_each_added_up(steps):
    replicas = pool(4)
    outliers = Outliers(RULE, replicas)
    now = 0.0
    for which, what, dt in steps:
        now += dt
        attempt(outliers, f"r/{which % 4}", now, took=dt, ended=FailureKind.NETWORK if what == "fail" else OK)
        outliers.sweep(now)
        now += dt
    for whole, part in (("_bad", "bad"), ("_slowness", "slowness")):
        of_all = getattr(outliers, whole)
        of_all.at(now)
        total = 0.0
        for record in outliers._records.values():
            getattr(record, part).at(now)
            total += getattr(record, part).n
        assert of_all.n == pytest.approx(total, abs=1e-6)


def usual(outliers, at, *, names=("r/1", "r/2")):
    """Enough of quick first tokens elsewhere that there is something to compare with."""
    for number in range(10):
        for name in names:
            attempt(outliers, name, at + number * 0.01)


def test_one_first_token_that_is_far_too_late_makes_a_replica_dearer_long_before_it_is_left_out():
    replicas = pool(3)
    outliers = Outliers(RULE, replicas)
    usual(outliers, 0.0)
    attempt(outliers, "r/0", 1.0, took=1.5)
    assert replicas[0].ramp == pytest.approx(10.0, rel=0.01)
    assert [one.ramp for one in replicas[1:]] == [1.0, 1.0]
    assert not out(replicas, 3.0)
    outliers.sweep(3.0)
    assert 9.0 < replicas[0].ramp < 10.0, "it is forgiven slowly"
    outliers.sweep(600.0)
    assert replicas[0].ramp == pytest.approx(1.0, abs=0.01)


def test_a_suspect_whose_first_tokens_are_quick_again_is_as_cheap_as_the_others():
    replicas = pool(3)
    outliers = Outliers(RULE, replicas)
    usual(outliers, 0.0)
    attempt(outliers, "r/0", 1.0, took=1.5)
    for number in range(3):
        attempt(outliers, "r/0", 3.0 + number)
    assert replicas[0].ramp == 1.0


def test_attempts_that_are_overdue_make_a_replica_dearer_at_the_next_look():
    replicas = pool(3)
    outliers = Outliers(RULE, replicas)
    usual(outliers, 0.0)
    outliers.started("r/0", 0.1, 1.0)
    outliers.sweep(1.1)
    assert replicas[0].ramp == 1.0
    outliers.sweep(2.5)
    assert replicas[0].ramp > 5.0


def test_what_has_become_slow_for_all_leaves_their_costs_as_far_apart_as_they_were():
    replicas = pool(3)
    outliers = Outliers(RULE, replicas)
    usual(outliers, 0.0, names=("r/0", "r/1", "r/2"))
    for number in range(30):
        for one in replicas:
            attempt(outliers, one.name, 2.0 + number, took=0.6)
    outliers.sweep(33.0)
    assert max(one.ramp for one in replicas) < 1.5 * min(one.ramp for one in replicas)


def test_where_more_than_a_few_are_suspected_nobody_is_dearer_for_it():
    replicas = pool(6)
    outliers = Outliers(RULE, replicas)
    usual(outliers, 0.0, names=("r/3", "r/4", "r/5"))
    attempt(outliers, "r/0", 1.0, took=1.5)
    outliers.sweep(1.5)
    assert replicas[0].ramp > 5.0
    attempt(outliers, "r/1", 1.6, took=1.5)
    attempt(outliers, "r/2", 1.6, took=1.5)
    outliers.sweep(3.2)
    assert [one.ramp for one in replicas] == [1.0] * 6
    assert not out(replicas, 3.2)


def test_one_alone_that_waits_for_long_where_nothing_comes_is_enough():
    replicas = pool(3)
    outliers = Outliers(RULE, replicas)
    usual(outliers, 0.0)
    outliers.started("r/0", 0.1, 1.0)
    at = 1.0
    while not out(replicas, at):
        at += 1.0
        usual(outliers, at)
        outliers.sweep(at)
    assert 5.0 < at < 10.0, "not for what may be a stall"
