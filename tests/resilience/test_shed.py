from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.fleet import Replica
from penstock.core.request import Priority
from penstock.resilience.options import NO_REPLICA, ShedRule
from penstock.resilience.shed import chance, kv_of, saturation, shed

RULE = ShedRule()
NEVER = float("inf")


def test_each_class_begins_where_it_should_and_ends_when_all_is_full():
    low, normal, high = Priority.LOW, Priority.NORMAL, Priority.HIGH
    assert [chance(RULE, low, at) for at in (0.6, 0.8, 1.0, 5.0)] == pytest.approx([0.0, 0.25, 1.0, 1.0])
    assert [chance(RULE, normal, at) for at in (0.85, 0.925, 1.0)] == pytest.approx([0.0, 0.25, 1.0])
    assert [chance(RULE, high, at) for at in (1.0, 1.075, 1.15)] == pytest.approx([0.0, 0.25, 1.0])


def test_a_class_without_a_beginning_is_never_refused():
    critical = [one for one in Priority if RULE.begins(one) == NEVER]
    assert [one.value for one in critical] == [one.value for one in Priority if one.value == "critical"]
    assert [chance(RULE, one, 1e9) for one in critical] == [0.0] * len(critical)


def test_saturation_is_the_wait_over_the_longest_wait_allowed():
    assert saturation(RULE, 15.0, 30.0, 0.0) == 0.5
    assert saturation(ShedRule(target=5.0), 15.0, 30.0, 0.0) == 3.0


def test_a_well_used_cache_is_no_saturation_and_a_full_one_is():
    assert saturation(RULE, 0.0, 30.0, 0.9) == 0.0
    assert saturation(RULE, 0.0, 30.0, 0.96) == pytest.approx(0.6)
    assert saturation(RULE, 0.0, 30.0, 1.0) == pytest.approx(1.0)
    ready, away, out = Replica("a", "a", kv_used=0.4), Replica("b", "a", kv_used=1.0), Replica("c", "a", kv_used=1.0)
    away.ready, out.ejected_until = False, 10.0
    assert kv_of([ready, away, out], 5.0) == 0.4
    assert kv_of([ready, away, out], 10.0) == pytest.approx(0.7)
    assert kv_of([away], 5.0) == 0.0


def test_without_any_replica_nothing_is_shed_because_there_is_nothing_to_spare():
    assert saturation(RULE, NEVER, 30.0, 0.0) == NO_REPLICA
    assert shed(RULE, Priority.LOW, NO_REPLICA, NEVER, 30.0, Random(1)) is None


def test_who_is_refused_is_told_to_come_back_when_the_queue_has_drained_to_where_it_begins():
    refused = shed(RULE, Priority.LOW, 1.0, 30.0, 30.0, Random(1))
    assert 30.0 - 18.0 <= refused.retry_after <= 12.0 * 1.25
    assert shed(RULE, Priority.LOW, 100.0, 3_000.0, 30.0, Random(1)).retry_after == RULE.longest
    full_cache = shed(RULE, Priority.LOW, 1.0, 0.0, 30.0, Random(1))
    assert 1.0 <= full_cache.retry_after <= 1.25


def test_not_all_come_back_at_once():
    rng = Random(7)
    assert len({shed(RULE, Priority.LOW, 1.0, 30.0, 30.0, rng).retry_after for _ in range(100)}) > 90


def test_where_nothing_is_open_chance_is_not_asked():
    class Never(Random):
        def random(self):
            raise AssertionError("asked")

    assert shed(RULE, Priority.LOW, 0.5, 15.0, 30.0, Never()) is None


def test_so_many_are_refused_as_the_chance_says():
    rng = Random(3)
    n = sum(shed(RULE, Priority.LOW, 0.8, 24.0, 30.0, rng) is not None for _ in range(20_000))
    assert n / 20_000 == pytest.approx(0.25, abs=0.01)


@given(st.floats(0, 3), st.floats(0, 3))
def test_more_saturation_never_helps_and_a_better_class_never_hurts(one, other):
    lesser, greater = sorted((one, other))
    order = [Priority.LOW, Priority.NORMAL, Priority.HIGH]
    for priority in order:
        assert 0.0 <= chance(RULE, priority, lesser) <= chance(RULE, priority, greater) <= 1.0
    chances = [chance(RULE, priority, greater) for priority in order]
    assert chances == sorted(chances, reverse=True)
