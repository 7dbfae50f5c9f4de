"""Prices as the configuration says them."""

from datetime import UTC, date, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.request import Usage
from penstock.pricing.cost import cost_of
from penstock.pricing.gpu_hours import rates_from_gpu_hours
from penstock.pricing.options import PriceOptions, price_of, read_percent, read_token_price
from penstock.pricing.prices import Price, Table
from penstock.pricing.rates import Rates, Tier
from tests.pricing.worlds import NOW, price, rates

LIST = price(rates(input=2, cached_input=0.2, output=8), Tier(1_000, rates(input=4, cached_input=0.4, output=16)))
TABLE = Table([Price("openai", "gpt-9", LIST.rows)])


def said(**options) -> Price:
    return price_of("azure", "mine", (msgspec.convert(options, PriceOptions),), TABLE)


def nanos(price: Price, usage: Usage, **how) -> int | None:
    return cost_of(usage, price, NOW, **how).nanos


@pytest.mark.parametrize(
    "text",
    [
        "$0.15/M",
        "0.15/M",
        "0.15 USD/M",
        "0.15 USD per million tokens",
        "$0.15 per 1M tokens",
        "$0.15 / million",
        "$0.00015/K",
        "$0.00015 per thousand tokens",
        "$0.00000015/token",
        "0.00000015 USD per token",
    ],
)
def test_a_price_per_token_is_read_as_people_write_it(text):
    assert read_token_price(text) == 150_000
    assert msgspec.convert({"input": text}, PriceOptions).input == text


@pytest.mark.parametrize(
    "text", ["$0.15", "0.15", "$0.15/G", "-$1/M", "$1e-6/token", "0,15/M", "0.15 EUR/M", "$1/M\n", ""]
)
def test_a_price_without_its_unit_or_in_another_money_is_refused(text):
    with pytest.raises(ValueError, match="a price with its unit"):
        read_token_price(text)


def test_a_price_finer_than_we_count_is_refused_and_not_rounded():
    with pytest.raises(ValueError, match="finer than"):
        read_token_price("$0.0000001/M")


@given(st.integers(0, 9_999))
def test_a_percentage_is_read_exactly(basis_points):
    assert read_percent(f"{basis_points // 100}.{basis_points % 100:02}%") == basis_points


@pytest.mark.parametrize("text", ["100%", "50", "-5%", "5.123%", "%"])
def test_what_is_not_a_percentage_below_a_hundred_is_refused(text):
    with pytest.raises(ValueError, match="not a percentage"):
        read_percent(text)


def test_an_own_price_takes_the_place_of_the_whole_row():
    own = price_of("openai", "gpt-9", (PriceOptions(input="$1/M", output="$4/M"),), TABLE)
    assert nanos(own, Usage(1_000_000, 0, cached_tokens=1_000_000)) == 10**9  # and not 0.2, which is of another row
    assert nanos(own, Usage(2_000_000, 0)) == 2 * 10**9


def test_a_deployment_of_another_name_costs_what_the_model_does_less_what_was_agreed():
    own = said(like="openai/gpt-9", discount="15%")
    assert nanos(own, Usage(1_000, 0)) == 1_700_000
    assert nanos(own, Usage(1_001, 0)) == 1_001 * 3_400


def test_a_discount_is_rounded_up_so_that_nothing_becomes_free_by_it():
    assert (Rates(input=1).less(9_999).input, Rates(input=3).less(5_000).input) == (1, 2)


def test_a_like_price_follows_its_model_through_time():
    old, new = rates(input=10, output=40), rates(input=2, output=8)
    rows = price(old).rows + price(new, valid_from=date(2026, 6, 10)).rows
    table = Table([Price("openai", "o3", rows)])
    later = price_of("azure", "mine", (PriceOptions(like="openai/o3"),), table)
    before = datetime(2026, 6, 9, tzinfo=UTC).timestamp()
    assert cost_of(Usage(1_000, 0), later, before).nanos == 10_000_000
    assert cost_of(Usage(1_000, 0), later, NOW).nanos == 2_000_000
    begun = price_of("azure", "mine", (PriceOptions(like="openai/o3", valid_from=date(2026, 8, 1)),), table)
    assert [row.valid_from for row in begun.rows] == [date(2026, 8, 1)]
    assert not cost_of(Usage(1_000, 0), begun, before).priced


def test_a_batch_discount_is_taken_off_every_rate_and_length():
    own = said(
        input="$2/M", output="$8/M", batch_discount="50%", tiers=[{"above": 1_000, "input": "$4/M", "output": "$16/M"}]
    )
    assert nanos(own, Usage(1_000, 1_000), service="batch") == 5_000_000
    assert nanos(own, Usage(2_000, 1_000), service="batch") == 12_000_000
    assert nanos(own, Usage(1_000, 1_000)) == 10_000_000


def test_hours_of_gpus_become_a_price_per_token_that_is_marked_derived():
    own = said(
        gpu_hour="$2.50", gpus=2, input_tokens_per_second=20_000, output_tokens_per_second=2_000, cached_input="$0/M"
    )
    (row,) = own.rows
    assert row.derived
    assert not LIST.rows[0].derived
    # an hour of reading nothing but new prompts costs what the GPUs do in that hour, to a pico-dollar per token
    hour = 20_000 * 3_600
    assert 5 * 10**9 <= nanos(own, Usage(hour, 0)) < 5 * 10**9 + hour // 1_000
    assert nanos(own, Usage(1_000, 0, cached_tokens=1_000)) == 0


@given(st.integers(1, 10**14), st.integers(1, 64), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_derived_price_is_never_zero_and_less_than_a_pico_dollar_too_high(hour, gpus, reads, writes):
    derived = rates_from_gpu_hours(hour, gpus, input_tokens_per_second=reads, output_tokens_per_second=writes)
    for rate, speed in ((derived.input, reads), (derived.output, writes)):
        assert rate > 0
        assert 0 <= rate * speed * 3_600 - hour * gpus < speed * 3_600


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({}, "this says nothing"),
        ({"input": "$1/M", "free": True}, "this says rates and `free`"),
        ({"like": "openai/gpt-9", "gpu_hour": "$2"}, "this says `like` and `gpu_hour`"),
        ({"like": "openai/gpt9"}, "no price of 'openai/gpt9'.* There is openai/gpt-9"),
        ({"input": "$1/M", "discount": "5%"}, "`discount` belongs to `like`"),
        ({"free": True, "tiers": [{"above": 5, "input": "$1/M"}]}, "`tiers` belong to rates"),
        ({"gpu_hour": "$2"}, "`gpu_hour` needs `input_tokens_per_second`"),
        ({"gpu_hour": "$0", "input_tokens_per_second": 1, "output_tokens_per_second": 1}, "`gpu_hour` is zero"),
        ({"input": "$0/M", "output": "$0/M"}, "say `free: true`"),
        ({"input": "$0.0000001/M"}, "`input`: finer than"),
        (
            {"input": "$1/M", "tiers": [{"above": 5, "input": "$1/M"}, {"above": 5, "input": "$2/M"}]},
            "two begin at the same `above`",
        ),
    ],
)
def test_a_price_that_makes_no_sense_is_refused_by_the_name_of_its_option(options, wrong):
    with pytest.raises(ValueError, match=wrong):
        said(**options)


def test_two_prices_of_the_same_day_are_refused():
    with pytest.raises(ValueError, match="two prices hold from ever on"):
        price_of("p", "m", (PriceOptions(free=True), PriceOptions(input="$1/M")), TABLE)


def test_an_option_that_does_not_exist_is_refused_in_a_price_and_in_its_tiers():
    for options in ({"inputs": "$1/M"}, {"tiers": [{"above": 5, "inputs": "$1/M"}]}):
        with pytest.raises(msgspec.ValidationError, match="unknown field `inputs`"):
            msgspec.convert(options, PriceOptions)
