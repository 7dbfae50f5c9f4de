"""A price as the configuration says it, and what follows from that. It takes the place of the whole row in the table: a
price that was agreed on for input does not bring somebody else's price for what is cached.
"""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from penstock.core.money import MONEY_PATTERN, NUMBER, PICOS_PER_DOLLAR, read_picos, units
from penstock.pricing.gpu_hours import rates_from_gpu_hours
from penstock.pricing.prices import Price, Row, Table, free_row, schedules
from penstock.pricing.rates import CLASSES, ITEMS, TOKENS, Class, Rates, Tier

TOKENS_OF: Final = {"m": 1_000_000, "million": 1_000_000, "k": 1_000, "thousand": 1_000, "token": 1}
TOKEN_PRICE_PATTERN: Final = (
    rf"^\$?({NUMBER})(?: ?USD)? ?(?:/|per) ?(?:1 ?)?(M|m|million|K|k|thousand|token)(?: ?tokens?)?$"
)
PERCENT_PATTERN: Final = r"^([0-9]{1,2})(?:\.([0-9]{1,2}))?%$"
SOURCE: Final = "configuration"

_TOKEN_PRICE: Final = re.compile(TOKEN_PRICE_PATTERN)
_PERCENT: Final = re.compile(PERCENT_PATTERN)

TokenPrice = Annotated[
    str,
    Meta(
        pattern=TOKEN_PRICE_PATTERN,
        examples=["$0.15/M", "0.15 USD per million tokens"],
        extra={"expected": "a price with its unit, such as $0.15/M or 0.15 USD per million tokens"},
    ),
]
Money = Annotated[
    str,
    Meta(
        pattern=MONEY_PATTERN,
        examples=["$2.49", "50 USD"],
        extra={"expected": "an amount of dollars, such as $2.49 or 50 USD"},
    ),
]
Percent = Annotated[
    str,
    Meta(
        pattern=PERCENT_PATTERN,
        examples=["50%", "12.5%"],
        extra={"expected": "a percentage below 100%, such as 50%"},
    ),
]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]


def says(meaning: str) -> Meta:
    return Meta(description=meaning)


class RateOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rates of each class. One that is not named costs what the class does that it is part of."""

    input: Annotated[TokenPrice | None, says("Of a token of the prompt.")] = None
    cached_input: Annotated[TokenPrice | None, says("Of one that was read from the provider's cache.")] = None
    cache_write: Annotated[TokenPrice | None, says("Of one that was written to it, for some minutes.")] = None
    cache_write_1h: Annotated[TokenPrice | None, says("Likewise, for an hour.")] = None
    audio_input: Annotated[TokenPrice | None, says("Of one that was sound.")] = None
    image_input: Annotated[TokenPrice | None, says("Of one that was a picture.")] = None
    output: Annotated[TokenPrice | None, says("Of a token of the answer.")] = None
    reasoning: Annotated[TokenPrice | None, says("Of one that was thought and not shown.")] = None
    audio_output: Annotated[TokenPrice | None, says("Of one that was sound.")] = None
    image_output: Annotated[TokenPrice | None, says("Of one that was a picture.")] = None
    image: Annotated[Money | None, says("Of a picture that was made, where not its tokens are what is sold.")] = None
    request: Annotated[Money | None, says("Of a request, beside its tokens.")] = None


class TierOptions(RateOptions, frozen=True, kw_only=True):
    """Rates for the whole of a request with a long prompt."""

    above: Annotated[Count, says("Tokens of the prompt, beyond which these hold.")]


class PriceOptions(RateOptions, frozen=True, kw_only=True):
    """What a deployment costs. One of: rates; `like`; `gpu_hour`; `free`."""

    tiers: Annotated[
        Annotated[tuple[TierOptions, ...], Meta(max_length=8)], says("Other rates for requests with long prompts.")
    ] = ()
    like: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256)] | None,
        says("The price of another model in the table, `provider/model`: for Azure's own names of deployments."),
    ] = None
    discount: Annotated[Percent | None, says("With `like`: taken off every rate, as agreed on with the provider.")] = (
        None
    )
    batch_discount: Annotated[Percent | None, says("Taken off every rate for requests in batches.")] = None
    gpu_hour: Annotated[
        Money | None, says("What one GPU costs in an hour: the price per token is derived from the two speeds.")
    ] = None
    gpus: Annotated[Count, says("With `gpu_hour`: of one replica.")] = 1
    input_tokens_per_second: Annotated[
        Count | None, says("With `gpu_hour`: how fast one replica reads prompts, and does nothing else, as measured.")
    ] = None
    output_tokens_per_second: Annotated[
        Count | None, says("With `gpu_hour`: how fast one replica writes, at its usual load, as measured.")
    ] = None
    free: Annotated[bool, says("It costs nothing. Without this, a model that has no price is not `priced`.")] = False
    valid_from: Annotated[date | None, says("The day from which it holds, UTC. Without it, always.")] = None


def price_of(provider: str, model: str, options: tuple[PriceOptions, ...], table: Table) -> Price:
    """What the configuration says that `model` costs, over time. Raises `ValueError`, which names the option."""
    assert options, "no price at all is not an overlay"
    rows = [row for one in options for row in _rows(one, table)]
    rows.sort(key=lambda row: row.valid_from or date.min)
    for one, other in pairwise(rows):
        if one.valid_from == other.valid_from:
            raise ValueError(f"`valid_from`: two prices hold from {one.valid_from or 'ever'} on")
    return Price(provider, model, tuple(rows))


def read_token_price(text: str) -> int:
    """Pico-dollars per token of a `TokenPrice`, exactly. Raises `ValueError`."""
    found = _TOKEN_PRICE.fullmatch(text)
    if found is None:
        raise ValueError(f"not a price with its unit, such as $0.15/M or 0.15 USD per million tokens: {text!r}")
    number, unit = found.groups()
    try:
        return units(number, PICOS_PER_DOLLAR // TOKENS_OF[unit.lower()])
    except ValueError:
        raise ValueError(f"finer than $0.000001 per million tokens: {text!r}") from None


def read_percent(text: str) -> int:
    """Hundredths of a percent, 0..9,999, of a `Percent`. Raises `ValueError`."""
    found = _PERCENT.fullmatch(text)
    if found is None:
        raise ValueError(f"not a percentage below 100%, such as 50%: {text!r}")
    whole, hundredths = found.groups(default="")
    return int(whole + hundredths.ljust(2, "0"))


def _rows(options: PriceOptions, table: Table) -> list[Row]:
    named = _rates(options)
    kinds = {
        "rates": any(named.of(name) is not None for name in CLASSES if name != "cached_input" or not options.gpu_hour),
        "`like`": options.like is not None,
        "`gpu_hour`": options.gpu_hour is not None,
        "`free`": options.free,
    }
    said = [kind for kind, is_said in kinds.items() if is_said]
    if len(said) != 1:
        found = " and ".join(said) if said else "nothing"
        raise ValueError(f"a price is one of rates, `like`, `gpu_hour` and `free`; this says {found}")
    if options.discount is not None and options.like is None:
        raise ValueError("`discount` belongs to `like`; say the rates as they are")
    if options.tiers and not kinds["rates"]:
        raise ValueError(f"`tiers` belong to rates, not to {said[0]}")
    if options.free:
        return [free_row(SOURCE, options.valid_from)]
    if options.like is not None:
        return _like(options, options.like, table)
    if options.gpu_hour is not None:
        return [_derived(options, options.gpu_hour, named)]
    return [_row(options, named)]


def _row(options: PriceOptions, named: Rates) -> Row:
    if not any(named.of(name) for name in CLASSES):
        raise ValueError("all rates are zero: say `free: true` if it costs nothing")
    tiers = tuple(Tier(tier.above, _rates(tier)) for tier in options.tiers)
    if len({tier.above for tier in tiers}) != len(tiers):
        raise ValueError("`tiers`: two begin at the same `above`")
    return _with_batches(options, Row(valid_from=options.valid_from, source=SOURCE, schedules=schedules(named, tiers)))


def _derived(options: PriceOptions, gpu_hour: str, named: Rates) -> Row:
    if options.input_tokens_per_second is None or options.output_tokens_per_second is None:
        raise ValueError(
            "`gpu_hour` needs `input_tokens_per_second` and `output_tokens_per_second`, as measured on one replica"
        )
    hour = read_picos(gpu_hour)
    if not hour:
        raise ValueError("`gpu_hour` is zero: say `free: true` if it costs nothing")
    rates = rates_from_gpu_hours(
        hour,
        options.gpus,
        input_tokens_per_second=options.input_tokens_per_second,
        output_tokens_per_second=options.output_tokens_per_second,
        cached_input=named.cached_input,
    )
    return _with_batches(
        options, Row(valid_from=options.valid_from, source=SOURCE, derived=True, schedules=schedules(rates))
    )


def _like(options: PriceOptions, name: str, table: Table) -> list[Row]:
    """All the rows of another model, so that its price goes on changing when that one's does."""
    provider, _, model = name.partition("/")
    price = table.find(provider, model)
    if price is None:
        near = table.near(model or provider)
        hint = f" There is {', '.join(near)}." if near else ""
        raise ValueError(f"`like`: there is no price of {name!r} in the table; write it as provider/model.{hint}")
    off = read_percent(options.discount) if options.discount is not None else 0
    first = options.valid_from
    rows = []
    for row in price.rows:
        later = [other for other in price.rows if (other.valid_from or date.min) > (row.valid_from or date.min)]
        if first is not None and any((other.valid_from or date.min) <= first for other in later):
            continue  # it no longer held when this begins
        begins = first if first is not None and (row.valid_from or date.min) < first else row.valid_from
        cut = {
            service: tuple(Tier(tier.above, tier.rates.less(off)) for tier in tiers)
            for service, tiers in row.schedules.items()
        }
        rows.append(
            _with_batches(
                options, msgspec.structs.replace(row, valid_from=begins, source=f"{SOURCE}: like {name}", schedules=cut)
            )
        )
    return rows


def _with_batches(options: PriceOptions, row: Row) -> Row:
    if options.batch_discount is None:
        return row
    off = read_percent(options.batch_discount)
    batch = tuple(Tier(tier.above, tier.rates.less(off)) for tier in row.schedules["standard"])
    return msgspec.structs.replace(row, schedules={**row.schedules, "batch": batch})


def _rates(options: RateOptions) -> Rates:
    """Only what is named."""
    found: dict[Class, int | None] = {}
    for names, read in ((TOKENS, read_token_price), (ITEMS, read_picos)):
        for name in names:
            text = getattr(options, name)
            try:
                found[name] = read(text) if text is not None else None
            except ValueError as error:
                raise ValueError(f"`{name}`: {error}") from None
    return Rates(**found)
