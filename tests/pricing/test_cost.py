"""What a request costs: every token once, exactly, and never zero because nobody knew."""

from datetime import UTC, date, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.money import round_to_nanos
from penstock.core.request import Usage
from penstock.pricing.bill import UNPRICED, Media
from penstock.pricing.cost import amounts, cost_of, max_cost_nanos
from penstock.pricing.prices import Price, free_row
from penstock.pricing.rates import INPUT, OUTPUT, Rates, Tier
from tests.pricing.worlds import NOW, any_media, any_price, any_rates, any_usage, counts, price, rates, services

SIX_CLASSES = price(rates(input=3, cached_input=0.3, cache_write=3.75, cache_write_1h=6, output=15, reasoning=20))


def picos(cost):
    return sum(part.picos for part in cost.parts)


# --- what must hold for any price and any usage ----------------------------------------------------------------------


@given(any_usage(), any_media)
def test_every_token_is_in_one_class(usage, media):
    found = dict(amounts(usage, media))
    assert sum(found[name] for name in INPUT) == usage.prompt_tokens
    assert sum(found[name] for name in OUTPUT) == usage.completion_tokens
    assert all(amount >= 0 for amount in found.values())


@given(any_usage(), any_media, any_price(), services)
def test_the_cost_is_the_sum_of_its_parts_rounded_once(usage, media, price, service):
    cost = cost_of(usage, price, NOW, media=media, service=service)
    assert cost.priced
    assert cost.nanos == round_to_nanos(picos(cost))
    assert cost.row is price.rows[0]
    assert type(cost.nanos) is int and all(type(part.picos) is int for part in cost.parts)


@given(any_usage(), any_usage(), any_rates())
def test_two_requests_cost_what_their_tokens_cost_together(one, other, rates):
    """Without lengths and fees the classes are independent of each other: nothing is counted with something else."""
    plain = msgspec.structs.replace(rates, image=None, request=None)
    both = Usage(*(getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__))
    here = price(plain)
    assert picos(cost_of(both, here, NOW)) == picos(cost_of(one, here, NOW)) + picos(cost_of(other, here, NOW))


@given(any_usage(), any_media, any_rates(), st.sampled_from(["prompt_tokens", "completion_tokens"]), counts)
def test_more_tokens_never_cost_less(usage, media, rates, which, more):
    longer = msgspec.structs.replace(usage, **{which: getattr(usage, which) + more})
    text = Media(images=media.images)  # which of them was sound depends on how many there are
    here = price(rates)
    assert cost_of(longer, here, NOW, media=text).nanos >= cost_of(usage, here, NOW, media=text).nanos


@given(st.builds(Usage, counts, counts, counts, counts, counts, counts), any_media, any_price())
def test_no_count_however_wrong_makes_a_cost_negative(usage, media, price):
    """A count of the prompt without its cached part, taken for the whole, made a peer's budget read less than zero."""
    cost = cost_of(usage, price, NOW, media=media)
    assert cost.nanos >= 0 and all(part.amount >= 0 for part in cost.parts)


@given(any_usage(), any_media, any_price(), services, counts, counts)
def test_no_request_within_its_bounds_costs_more_than_was_reserved(usage, media, price, service, more, longer):
    cost = cost_of(usage, price, NOW, media=media, service=service)
    bound = max_cost_nanos(
        usage.prompt_tokens + more,
        usage.completion_tokens + longer,
        price,
        NOW,
        images=media.images,
        service=service,
    )
    assert cost.nanos <= bound


@given(any_usage(), any_price(), st.sets(st.sampled_from([*INPUT, *OUTPUT])))
def test_less_is_reserved_for_classes_that_a_request_cannot_have_and_still_enough(usage, price, without):
    used = {name for name, amount in amounts(usage) if amount}
    media = Media(images=0)
    bound = max_cost_nanos(usage.prompt_tokens, usage.completion_tokens, price, NOW, without=without - used)
    assert cost_of(usage, price, NOW, media=media).nanos <= bound
    assert bound <= max_cost_nanos(usage.prompt_tokens, usage.completion_tokens, price, NOW)


def test_a_bound_is_reached_by_the_dearest_usage():
    written_for_an_hour = Usage(1_000, 500, cache_write_tokens=1_000, cache_write_1h_tokens=1_000, reasoning_tokens=500)
    assert cost_of(written_for_an_hour, SIX_CLASSES, NOW).nanos == 16_000_000
    assert max_cost_nanos(1_000, 500, SIX_CLASSES, NOW) == 16_000_000
    without = ("cache_write", "cache_write_1h", "reasoning")
    assert max_cost_nanos(1_000, 500, SIX_CLASSES, NOW, without=without) == 10_500_000


# --- exactness -------------------------------------------------------------------------------------------------------


def test_a_request_is_rounded_once_and_not_class_by_class():
    """0.4 nano-dollars of each of three classes are 1.2 together, and 0 when each is rounded."""
    cost = cost_of(Usage(2, 1, cached_tokens=1), price(Rates(input=400, cached_input=400, output=400)), NOW)
    assert cost.nanos == 1
    assert [part.picos for part in cost.parts] == [400, 400, 400]


def test_a_price_that_binary_fractions_cannot_hold_is_exact():
    """0.1 + 0.2, as prices of ten million million tokens each."""
    usage = Usage(10**13, 10**13)
    assert cost_of(usage, price(rates(input=0.1, output=0.2)), NOW).nanos == 3_000_000 * 10**9
    assert cost_of(usage, price(rates(input="0.000001", output="0.000001")), NOW).nanos == 20 * 10**9


# --- unknown is not free ---------------------------------------------------------------------------------------------


def test_what_has_no_price_is_not_priced_and_not_zero():
    cost = cost_of(Usage(1_000, 1_000), None, NOW)
    assert cost is UNPRICED
    assert (cost.nanos, cost.priced) == (None, False)
    assert max_cost_nanos(1_000, 1_000, None, NOW) is None


def test_an_answer_that_nobody_counted_is_not_priced():
    assert not cost_of(None, SIX_CLASSES, NOW).priced


def test_a_class_that_the_price_list_does_not_know_makes_the_request_unpriced():
    embedding = price(rates(input=0.02))
    assert cost_of(Usage(1_000, 0), embedding, NOW).nanos == 20_000
    assert not cost_of(Usage(1_000, 1), embedding, NOW).priced


def test_a_model_that_sells_pictures_is_not_priced_while_nobody_counts_them():
    pictures = price(Rates(image=40_000_000_000))
    assert not cost_of(Usage(), pictures, NOW).priced
    assert cost_of(Usage(), pictures, NOW, media=Media(images=2)).nanos == 80_000_000


def test_a_free_model_costs_nothing_in_every_service_and_is_priced():
    free = Price("openai", "omni-moderation-latest", (free_row("said so"),))
    for service in ("standard", "batch", "priority", "tomorrow's"):
        cost = cost_of(Usage(1_000, 10, 100, 100, 100, 5), free, NOW, service=service)
        assert (cost.nanos, cost.priced) == (0, True)
        assert max_cost_nanos(1_000, 10, free, NOW, service=service) == 0


def test_a_request_fee_is_paid_by_a_request_without_tokens():
    assert cost_of(Usage(), price(Rates(request=2_000_000_000)), NOW).nanos == 2_000_000


# --- services, lengths, days -----------------------------------------------------------------------------------------


def test_a_service_without_a_price_is_standard_when_it_is_a_discount_and_unknown_when_it_is_not():
    usage = Usage(1_000_000, 0)
    only_standard = price(rates(input=2, output=8))
    assert cost_of(usage, only_standard, NOW, service="flex").nanos == 2 * 10**9
    assert not cost_of(usage, only_standard, NOW, service="priority").priced
    assert not cost_of(usage, only_standard, NOW, service="scale").priced
    with_batches = price(rates(input=2, output=8), batch=rates(input=1, output=4))
    assert cost_of(usage, with_batches, NOW, service="batch").nanos == 10**9


def test_a_long_prompt_is_paid_for_at_the_longer_rate_as_a_whole():
    tiered = price(rates(input=1.25, cached_input=0.125, output=10), Tier(200_000, rates(input=2.5, output=15)))
    assert cost_of(Usage(200_000, 0), tiered, NOW).nanos == 250_000_000
    assert cost_of(Usage(200_001, 0), tiered, NOW).nanos == 500_002_500
    assert cost_of(Usage(200_001, 1_000), tiered, NOW).nanos == 515_002_500


def test_what_a_longer_rate_leaves_out_is_the_dearer_of_what_it_could_be():
    tiered = price(rates(input=1, cached_input=0.1, output=8, reasoning=12), Tier(1_000, rates(input=2, output=10)))
    long = tiered.rows[0].rates("standard", 1_001)
    assert (long.cached_input, long.reasoning) == (2_000_000, 12_000_000)
    assert long.cache_write == 2_000_000


def test_a_service_that_names_no_lengths_is_no_cheaper_for_a_long_prompt():
    tiered = price(
        rates(input=5, output=30), Tier(272_000, rates(input=10, output=45)), priority=rates(input=12.5, output=75)
    )
    fast = tiered.rows[0].rates("priority", 300_000)
    assert (fast.input, fast.output) == (12_500_000, 75_000_000)
    slow = (
        price(rates(input=5, output=30), Tier(272_000, rates(input=10, output=45)), flex=rates(input=2.5, output=15))
        .rows[0]
        .rates("flex", 300_000)
    )
    assert (slow.input, slow.output) == (10_000_000, 45_000_000)


def test_a_change_of_price_does_not_change_what_was():
    old, new = price(rates(input=10, output=40)), price(rates(input=2, output=8), valid_from=date(2026, 6, 10))
    both = Price("openai", "o3", old.rows + new.rows)
    midnight = datetime(2026, 6, 10, tzinfo=UTC).timestamp()
    usage = Usage(1_000_000, 0)
    assert cost_of(usage, both, midnight - 0.001).nanos == 10 * 10**9
    assert cost_of(usage, both, midnight).nanos == 2 * 10**9
    assert cost_of(usage, both, midnight).row.valid_from == date(2026, 6, 10)
    assert not cost_of(usage, new, midnight - 0.001).priced
