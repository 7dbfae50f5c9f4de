"""The cost of one request: tokens of disjoint classes times their rates, added up exactly, rounded once.

Who counts how (OpenAI's prompt tokens include those read from a cache, Anthropic's do not) was settled where the usage
was read; here a token has one class, so it cannot be paid for twice. What has no price is `UNPRICED`, never zero.
"""

from __future__ import annotations

from collections.abc import Collection

from penstock.core.money import round_to_nanos
from penstock.core.request import Usage
from penstock.pricing.bill import TEXT, UNPRICED, Cost, Media, Part
from penstock.pricing.prices import Price
from penstock.pricing.rates import Class


def amounts(usage: Usage, media: Media = TEXT) -> tuple[tuple[Class, int], ...]:
    """How many of each class. Together they are the tokens of the prompt and of the answer, each once: what is left of
    the whole is plain text, never less than none.

    Sound and pictures are counted whether or not they were read from a cache (xAI, Gemini); a cache comes first, so
    only what it did not cover is sound or picture here.
    """
    write_1h = usage.cache_write_1h_tokens
    plain = usage.input_tokens
    heard = min(media.audio_input_tokens, plain)
    seen = min(media.image_input_tokens, plain - heard)
    thought = usage.reasoning_tokens
    answered = max(0, usage.completion_tokens - thought)
    spoken = min(media.audio_output_tokens, answered)
    drawn = min(media.image_output_tokens, answered - spoken)
    return (
        ("input", plain - heard - seen),
        ("cached_input", usage.cached_tokens),
        ("cache_write", max(0, usage.cache_write_tokens - write_1h)),
        ("cache_write_1h", write_1h),
        ("audio_input", heard),
        ("image_input", seen),
        ("output", answered - spoken - drawn),
        ("reasoning", thought),
        ("audio_output", spoken),
        ("image_output", drawn),
    )


def cost_of(
    usage: Usage | None, price: Price | None, at: float, *, media: Media = TEXT, service: str = "standard"
) -> Cost:
    """What one request cost that was answered `at` (Unix seconds).

    `UNPRICED` when nobody counted (`usage` is None), when there is no price for the model, the day or the service, or
    when something was used that the price list does not name.
    """
    row = price.at(at) if price is not None else None
    if row is None or usage is None:
        return UNPRICED
    rates = row.rates(service, usage.prompt_tokens)
    if rates is None:
        return UNPRICED
    parts: list[Part] = []
    picos = 0
    for name, amount in amounts(usage, media):
        if not amount:
            continue
        rate: int | None = getattr(rates, name)
        if rate is None:
            return UNPRICED
        parts.append(Part(name, amount, rate))
        picos += amount * rate
    if rates.image is not None:
        if media.images is None:
            return UNPRICED
        parts.append(Part("image", media.images, rates.image))
        picos += media.images * rates.image
    if rates.request is not None:
        parts.append(Part("request", 1, rates.request))
        picos += rates.request
    return Cost(round_to_nanos(picos), tuple(parts), row)


def max_cost_nanos(
    prompt_tokens: int,
    max_tokens: int,
    price: Price | None,
    at: float,
    *,
    images: int = 0,
    service: str = "standard",
    without: Collection[Class] = (),
) -> int | None:
    """No usage of at most so many tokens (`max_tokens` of all choices together) and pictures costs more: what to
    reserve. None when there is no price. `without` names classes that this request cannot have, such as
    `cache_write_1h` where it does not ask for that, so that less is reserved.
    """
    row = price.at(at) if price is not None else None
    tiers = row.tiers(service) if row is not None else None
    if tiers is None:
        return None
    return round_to_nanos(
        max(
            prompt_tokens * tier.rates.highest_input(without)
            + max_tokens * tier.rates.highest_output(without)
            + images * (tier.rates.image or 0)
            + (tier.rates.request or 0)
            for tier in tiers
            if tier.above == 0 or prompt_tokens > tier.above
        )
    )
