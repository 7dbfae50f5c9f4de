"""The price of a model over time, and the table of them. What is not in the table has no price, which is not the same
as costing nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Final

import msgspec

from penstock.pricing.rates import FREE, Rates, Service, Tier

CHEAPER: Final = frozenset({"batch", "flex"})
"""Services that are sold as a discount, so that without a price of their own the standard one is their upper bound."""
EPOCH: Final = date(1970, 1, 1)
SECONDS_PER_DAY: Final = 86_400


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs from a day on, and who says so. Rates are complete: every class that is sold has one."""

    valid_from: date | None = None  # midnight UTC; None: since ever
    source: str = ""
    free: bool = False  # it costs nothing because somebody says so, not because nobody knows
    derived: bool = False  # nobody asks for this price: it was worked out, from hours of GPUs
    schedules: dict[
        str, tuple[Tier, ...]
    ]  # by `Service`; the first tier is `above=0`, for all, then ever longer prompts

    def rates(self, service: str, prompt_tokens: int) -> Rates | None:
        """Those of a whole request with so long a prompt. None when this service has no price."""
        tiers = self.tiers(service)
        if tiers is None:
            return None
        found = tiers[0].rates
        for tier in tiers[1:]:
            if prompt_tokens > tier.above:
                found = tier.rates
        return found

    def tiers(self, service: str) -> tuple[Tier, ...] | None:
        tiers = self.schedules.get(service)
        return self.schedules["standard"] if tiers is None and (self.free or service in CHEAPER) else tiers


class Price(msgspec.Struct, frozen=True):
    """What one model of one provider costs, over time: the oldest row first."""

    provider: str
    model: str
    rows: tuple[Row, ...]

    def at(self, when: float) -> Row | None:
        """The row that held at `when` (Unix seconds). None before the first."""
        for row in reversed(self.rows):
            if row.valid_from is None or when >= starts_at(row.valid_from):
                return row
        return None


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where facts were taken from."""

    name: str
    release: str
    taken: date
    sha256: str  # of the file, so that the table can be made again
    url: str
    licence: str
    copyright: str


class Table:
    """All prices that are known, by provider and the provider's own name of the model. Immutable."""

    def __init__(self, prices: Iterable[Price], catalogues: tuple[Catalogue, ...] = ()) -> None:
        self.catalogues = catalogues
        self._prices = {(price.provider, price.model): price for price in prices}

    def find(self, provider: str, model: str) -> Price | None:
        """By the exact name. A name that is merely similar may cost ten times as much, so none is guessed."""
        return self._prices.get((provider, model))

    def of_model(self, model: str) -> list[Price]:
        """Whoever sells a model of this name; "provider/model" asks for one."""
        return [price for price in self if model in (price.model, f"{price.provider}/{price.model}")]

    def near(self, model: str, n: int = 3) -> list[str]:
        """Names ("provider/model") that a person may have meant, best first."""
        names = {f"{price.provider}/{price.model}": price.model for price in self}
        inside = [name for name in names if model.lower() in name.lower()]
        if inside:
            return sorted(inside, key=lambda name: (len(name), name))[:n]
        close = get_close_matches(model, [*names, *names.values()], n=n)
        return sorted(name for name, short in names.items() if name in close or short in close)[:n]

    def __iter__(self) -> Iterator[Price]:
        return iter(self._prices.values())

    def __len__(self) -> int:
        return len(self._prices)


def schedules(
    standard: Rates,
    tiers: Iterable[Tier] = (),
    services: Mapping[Service, tuple[Rates, tuple[Tier, ...]]] | None = None,
) -> dict[str, tuple[Tier, ...]]:
    """Complete rates from those that somebody named: the standard ones, those above a length, and for each service
    likewise. What is left out above a length or in a service is filled in by `Rates.complete`."""
    named = {0: standard}
    full = [Tier(0, standard.complete())]
    for tier in sorted(tiers, key=lambda one: one.above):
        outside = named[full[-1].above]
        named[tier.above] = tier.rates.over(outside)
        full.append(Tier(tier.above, tier.rates.complete(outside)))
    done: dict[str, tuple[Tier, ...]] = {"standard": tuple(full)}
    for service, (rates, own_tiers) in (services or {}).items():
        own = {tier.above: tier.rates for tier in own_tiers}
        base = rates.over(standard)
        here = [Tier(0, rates.complete(standard))]
        for above in sorted((own.keys() | named.keys()) - {0}):
            outside = named[max(length for length in named if length <= above)].dearer(base)
            here.append(Tier(above, own.get(above, Rates()).complete(outside)))
        done[service] = tuple(here)
    return done


def free_row(source: str, valid_from: date | None = None) -> Row:
    return Row(valid_from=valid_from, source=source, free=True, schedules={"standard": (Tier(0, FREE),)})


def starts_at(day: date) -> int:
    """Midnight UTC in Unix seconds."""
    return (day - EPOCH).days * SECONDS_PER_DAY
