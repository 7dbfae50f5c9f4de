"""Prices and usages for tests, by hand and by Hypothesis."""

from datetime import date

from hypothesis import strategies as st

from penstock.core.request import Usage
from penstock.pricing.bill import Media
from penstock.pricing.prices import Price, Row, schedules
from penstock.pricing.rates import CLASSES, ITEMS, PICOS_PER_TOKEN, Rates, Tier, dollars_per_million

NOW = 1_800_000_000.0


def rates(**numbers: float | str) -> Rates:
    """Of dollars per million tokens; exact, because they are turned to text first."""
    return Rates(**{name: dollars_per_million(str(number)) for name, number in numbers.items()})


def price(standard: Rates, *tiers: Tier, valid_from: date | None = None, **services: Rates) -> Price:
    row = Row(
        valid_from=valid_from,
        schedules=schedules(standard, tiers, {name: (named, ()) for name, named in services.items()}),
    )
    return Price("somebody", "model", (row,))


counts = st.integers(0, 3_000_000)
some_rates = st.one_of(st.none(), st.integers(0, 1_000 * PICOS_PER_TOKEN))


@st.composite
def any_rates(draw) -> Rates:
    """Every class that has tokens costs something, or follows from one that does."""
    named = {name: draw(some_rates) for name in CLASSES}
    for name in ("input", "output"):
        named[name] = draw(st.integers(1, 1_000 * PICOS_PER_TOKEN))
    for name in ITEMS:
        named[name] = draw(st.one_of(st.none(), st.integers(0, 10**12)))
    return Rates(**named)


@st.composite
def any_price(draw) -> Price:
    lengths = draw(st.lists(st.integers(1, 2_000_000), max_size=3, unique=True))
    tiers = [Tier(above, draw(any_rates())) for above in lengths]
    services = {
        service: (draw(any_rates()), tuple(Tier(above, draw(any_rates())) for above in lengths[:1]))
        for service in draw(st.sets(st.sampled_from(["batch", "flex", "priority"])))
    }
    row = Row(schedules=schedules(draw(any_rates()), tiers, services))
    return Price("somebody", "model", (row,))


@st.composite
def any_usage(draw) -> Usage:
    """Parts that are no more than their whole."""
    prompt, completion = draw(counts), draw(counts)
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=draw(st.integers(0, written)),
        reasoning_tokens=draw(st.integers(0, completion)),
    )


any_media = st.builds(
    Media,
    audio_input_tokens=counts,
    image_input_tokens=counts,
    audio_output_tokens=counts,
    image_output_tokens=counts,
    images=st.integers(0, 16),
)
services = st.sampled_from(["standard", "batch", "flex"])
