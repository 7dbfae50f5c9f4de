"""Costs that other gateways got wrong, with the numbers of their reports. Where the mistake was in reading the usage,
our readers read it here.
"""

import msgspec
import pytest

from penstock.core.request import Usage
from penstock.pricing.bill import Media
from penstock.pricing.cost import cost_of
from penstock.wire.anthropic.answer_shapes import Tokens
from penstock.wire.anthropic.usage import usage_of as usage_of_claude
from penstock.wire.openai_shapes import TokenCounts
from penstock.wire.openai_values import usage_of as usage_of_openai
from tests.pricing.worlds import NOW, price, rates


def of_openai(body):
    return usage_of_openai(msgspec.json.decode(body, type=TokenCounts))


def of_claude(body):
    return usage_of_claude(msgspec.json.decode(body, type=Tokens))


def test_litellm_6215_cached_tokens_of_openai_are_part_of_the_prompt():
    usage = of_openai(
        b'{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,"prompt_tokens_details":'
        b'{"cached_tokens":1920},"completion_tokens_details":{"reasoning_tokens":0}}'
    )
    gpt_4o = price(rates(input=2.5, cached_input=1.25, output=10))
    assert cost_of(usage, gpt_4o, NOW).nanos == 86 * 2_500 + 1_920 * 1_250 + 300 * 10_000


def test_litellm_14849_cache_hits_of_gemini_are_not_paid_for_twice():
    """They said $0.7642; right, at the rates of the report, is $0.184918."""
    usage = Usage(prompt_tokens=262_960, completion_tokens=1_744, cached_tokens=257_955)
    gemini = price(rates(input=1.25, cached_input=0.625, output=10))
    assert cost_of(usage, gemini, NOW).nanos == 184_918_125


def test_litellm_9812_cache_writes_of_claude_are_not_paid_for_twice():
    """They said $0.091311, Anthropic's bill $0.05439."""
    usage = of_claude(
        b'{"input_tokens":3,"cache_creation_input_tokens":12304,"cache_read_input_tokens":0,"output_tokens":550}'
    )
    sonnet = price(rates(input=3, cached_input=0.3, cache_write=3.75, cache_write_1h=6, output=15))
    assert cost_of(usage, sonnet, NOW).nanos == 54_399_000


def test_litellm_11364_ten_tokens_are_left_of_a_prompt_that_is_nearly_all_cached():
    usage = of_claude(
        b'{"input_tokens":10,"cache_creation_input_tokens":32435,"cache_read_input_tokens":66360,"output_tokens":5120,'
        b'"output_tokens_details":{"thinking_tokens":1710}}'
    )
    assert usage.prompt_tokens == 98_805
    opus_in_europe = price(rates(input=5.5, cached_input=0.55, cache_write=6.875, output=27.5))
    cost = cost_of(usage, opus_in_europe, NOW)
    assert cost.nanos == 10 * 5_500 + 66_360 * 550 + 32_435 * 6_875 + 5_120 * 27_500
    assert [part.amount for part in cost.parts] == [10, 66_360, 32_435, 3_410, 1_710]


def test_litellm_40006_an_own_price_does_not_add_the_cached_tokens_again():
    usage = Usage(prompt_tokens=1_000, cached_tokens=200, cache_write_tokens=700)
    own = price(rates(input=3, cached_input=0.3, cache_write=3.75, output=15))
    assert cost_of(usage, own, NOW).nanos == 100 * 3_000 + 200 * 300 + 700 * 3_750


def test_litellm_33772_cache_writes_of_openai_have_their_own_rate():
    usage = of_openai(
        b'{"prompt_tokens":3541,"completion_tokens":5,"prompt_tokens_details":{"cache_write_tokens":3541}}'
    )
    luna = price(rates(input=1, cached_input=0.1, cache_write=1.25, output=6))
    assert cost_of(usage, luna, NOW).nanos == 3_541 * 1_250 + 5 * 6_000


def test_litellm_31714_cached_tokens_of_fireworks_have_their_own_rate():
    usage = Usage(prompt_tokens=27_147, completion_tokens=351, cached_tokens=27_146)
    assert cost_of(usage, price(rates(input=1.4, cached_input=0.26, output=4.4)), NOW).nanos == 8_603_760


def test_litellm_29432_what_is_cached_for_an_hour_is_paid_for_as_such():
    usage = of_claude(
        b'{"input_tokens":0,"cache_creation_input_tokens":9634,"cache_creation":'
        b'{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":9634}}'
    )
    opus = price(rates(input=5, cached_input=0.5, cache_write=6.25, cache_write_1h=10, output=25))
    assert cost_of(usage, opus, NOW).nanos == 96_340_000


def test_litellm_42663_cache_writes_that_no_breakdown_mentions_are_not_free():
    """Its streams priced only the 31,490 tokens of the first breakdown."""
    usage = Usage(prompt_tokens=734_311, cached_tokens=426_653, cache_write_tokens=184_457, cache_write_1h_tokens=0)
    opus = price(rates(input=5, cached_input=0.5, cache_write=6.25, cache_write_1h=10, output=25))
    written = [part.amount for part in cost_of(usage, opus, NOW).parts if part.name == "cache_write"]
    assert written == [184_457]


def test_litellm_37407_a_cached_picture_is_not_paid_for_as_cached_and_as_picture():
    """xAI counts both; the bill was 72 % too high."""
    usage = Usage(prompt_tokens=1_000, completion_tokens=10, cached_tokens=900)
    grok = price(rates(input=2, cached_input=0.5, image_input=2, output=6))
    cost = cost_of(usage, grok, NOW, media=Media(image_input_tokens=800))
    assert cost.nanos == 900 * 500 + 100 * 2_000 + 10 * 6_000
    assert sum(part.amount for part in cost.parts) == 1_010


@pytest.mark.parametrize("missing", ["cached_input", "cache_write"])
def test_litellm_29145_a_cache_rate_that_is_missing_is_never_zero(missing):
    named = {"input": 3, "cached_input": 0.3, "cache_write": 3.75, "output": 15}
    del named[missing]
    usage = Usage(prompt_tokens=1_000, cached_tokens=500, cache_write_tokens=500)
    assert all(part.rate > 0 for part in cost_of(usage, price(rates(**named)), NOW).parts)
