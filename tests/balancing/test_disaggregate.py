"""When the prompt is computed elsewhere than the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.balancing.disaggregate import Offer, PrefillRule, prefill_elsewhere

RULE = PrefillRule(threshold=2_048)
HERE = Offer(0, wait=2.0, cost=2.0)


def test_a_long_uncached_prompt_goes_where_it_costs_least():
    offers = [Offer(0, 1.0, 1.5), Offer(1, 1.0, 1.0), Offer(2, 1.0, 1.2)]
    assert prefill_elsewhere(8_192, HERE, offers, RULE) == offers[1]


def test_a_prompt_that_is_mostly_cached_where_it_is_decoded_stays_there():
    assert prefill_elsewhere(2_047, HERE, [Offer(0, 0.0, 0.0)], RULE) is None


def test_nothing_goes_elsewhere_when_that_costs_as_much():
    assert prefill_elsewhere(8_192, HERE, [Offer(0, 2.0, 2.0)], RULE) is None


def test_handing_over_is_part_of_the_cost():
    slow = PrefillRule(threshold=1, transfer_rate=8_192.0, overhead=0.0)
    assert prefill_elsewhere(8_192, HERE, [Offer(0, 0.9, 0.9)], slow) is not None, "1 s for the transfer"
    assert prefill_elsewhere(8_192, HERE, [Offer(0, 1.1, 1.1)], slow) is None


def test_a_threshold_of_nothing_means_never():
    assert prefill_elsewhere(100_000, HERE, [Offer(0, 0.0, 0.0)], PrefillRule(threshold=0)) is None


def test_without_a_replica_to_ask_the_prompt_stays():
    assert prefill_elsewhere(100_000, HERE, [], RULE) is None


@pytest.mark.parametrize(
    "wrong", [{"threshold": -1}, {"threshold": 1, "transfer_rate": 0.0}, {"threshold": 1, "overhead": -1.0}]
)
def test_rules_that_mean_nothing_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="threshold and overhead"):
        PrefillRule(**wrong)  # type: ignore[arg-type]


seconds = st.floats(0.0, 100.0)


@given(
    st.integers(0, 100_000),
    seconds,
    st.lists(seconds, max_size=6),
    st.builds(PrefillRule, threshold=st.integers(0, 10_000), transfer_rate=st.floats(1.0, 1e9), overhead=seconds),
)
def test_whatever_goes_elsewhere_costs_less_there_than_here(
    uncached: int, here: float, there: list[float], rule: PrefillRule
):
    offers = [Offer(place, cost, cost) for place, cost in enumerate(there)]
    chosen = prefill_elsewhere(uncached, Offer(9, here, here), offers, rule)
    if chosen is not None:
        assert uncached >= rule.threshold > 0
        assert chosen.cost == min(there) and chosen.cost < here
