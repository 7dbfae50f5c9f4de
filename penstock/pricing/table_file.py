"""`prices.json`: what it may hold, and how it is written. One row is one line, so that a change of price is one line of
a diff.

Numbers are text: dollars per million tokens, and dollars for each picture or request.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Final, get_args

import msgspec

from penstock.core.money import read_picos
from penstock.pricing.prices import Catalogue, Price, Row, Table, free_row, schedules
from penstock.pricing.rates import CLASSES, ITEMS, Rates, Service, Tier, dollars_per_million

BUNDLED: Final = Path(__file__).with_name("prices.json")
FORMAT: Final = 1
SERVICES: Final[tuple[Service, ...]] = tuple(name for name in get_args(Service) if name != "standard")


class PriceFileError(ValueError):
    """What is wrong in a file of prices, with the row that it is in."""


class WrittenRates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    input: str | None = None
    cached_input: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    audio_input: str | None = None
    image_input: str | None = None
    output: str | None = None
    reasoning: str | None = None
    audio_output: str | None = None
    image_output: str | None = None
    image: str | None = None
    request: str | None = None

    def rates(self) -> Rates:
        """Only what is named. Raises `ValueError`."""
        numbers = {name: getattr(self, name) for name in CLASSES}
        return Rates(
            **{
                name: read_picos(number) if name in ITEMS else dollars_per_million(number)
                for name, number in numbers.items()
                if number is not None
            }
        )


class WrittenTier(WrittenRates, frozen=True, kw_only=True, omit_defaults=True):
    above: int


class WrittenService(WrittenRates, frozen=True, kw_only=True, omit_defaults=True):
    tiers: tuple[WrittenTier, ...] = ()


class WrittenRow(WrittenService, frozen=True, kw_only=True, omit_defaults=True):
    provider: str
    model: str
    valid_from: date | None = None
    free: bool = False
    batch: WrittenService | None = None
    flex: WrittenService | None = None
    priority: WrittenService | None = None
    source: str = ""


class WrittenTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    unit: str
    catalogues: tuple[Catalogue, ...]
    rows: tuple[WrittenRow, ...]


UNIT: Final = "USD per million tokens; USD for each `image` and `request`"


def read_table(text: bytes) -> Table:
    """Raises `PriceFileError`."""
    written = read_written(text)
    by_model: defaultdict[tuple[str, str], list[WrittenRow]] = defaultdict(list)
    for row in written.rows:
        by_model[row.provider, row.model].append(row)
    prices = (
        Price(provider, model, tuple(_row(row) for row in sorted(rows, key=_age)))
        for (provider, model), rows in by_model.items()
    )
    return Table(prices, written.catalogues)


def read_written(text: bytes) -> WrittenTable:
    """Raises `PriceFileError`."""
    try:
        written = msgspec.json.decode(text, type=WrittenTable)
    except msgspec.DecodeError as error:
        raise PriceFileError(f"not a file of prices: {error}") from None
    if written.format != FORMAT:
        raise PriceFileError(f"written in format {written.format}; this version of Penstock reads format {FORMAT}")
    for one, other in pairwise(sorted(written.rows, key=_order)):
        if _order(one) == _order(other):
            raise PriceFileError(f"{one.provider}/{one.model} has two rows from the same day on")
    return written


def write_table(catalogues: tuple[Catalogue, ...], rows: tuple[WrittenRow, ...]) -> bytes:
    """The same rows are the same bytes, in whatever order they come."""
    head = [
        b'"format": %d' % FORMAT,
        b'"unit": ' + msgspec.json.encode(UNIT),
        b'"catalogues": [\n' + b",\n".join(b"  " + msgspec.json.encode(one) for one in catalogues) + b"\n]",
        b'"rows": [\n' + b",\n".join(b"  " + _line(row) for row in sorted(rows, key=_order)) + b"\n]",
    ]
    return b"{\n" + b",\n".join(head) + b"\n}\n"


def _line(row: WrittenRow) -> bytes:
    """Whose price it is comes first, for those who read the file."""
    fields = msgspec.to_builtins(row)
    first = {name: fields.pop(name) for name in ("provider", "model", "valid_from") if name in fields}
    return msgspec.json.encode({**first, **fields})


def _row(row: WrittenRow) -> Row:
    try:
        if row.free:
            if row.rates() != Rates() or row.tiers or any(getattr(row, name) for name in SERVICES):
                raise ValueError("it is free and has a price")
            return free_row(row.source, row.valid_from)
        named = row.rates()
        if not any(named.of(name) for name in CLASSES):
            raise ValueError("it costs nothing, and does not say that it is `free`")
        services = {
            name: (written.rates(), _tiers(written.tiers))
            for name in SERVICES
            if (written := getattr(row, name)) is not None
        }
        return Row(
            valid_from=row.valid_from,
            source=row.source,
            schedules=schedules(named, _tiers(row.tiers), services),
        )
    except ValueError as error:
        raise PriceFileError(f"{row.provider}/{row.model}: {error}") from None


def _tiers(written: tuple[WrittenTier, ...]) -> tuple[Tier, ...]:
    tiers = tuple(Tier(tier.above, tier.rates()) for tier in written)
    if any(tier.above < 1 for tier in tiers) or len({tier.above for tier in tiers}) != len(tiers):
        raise ValueError("`above` must be different numbers of tokens, from 1 on")
    return tiers


def _age(row: WrittenRow) -> date:
    return row.valid_from or date.min


def _order(row: WrittenRow) -> tuple[str, str, date]:
    return row.provider, row.model, _age(row)
