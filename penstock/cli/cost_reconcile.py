"""`penstock cost reconcile`: reads the invoice, asks the ledger for the same days, and tells the differences."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, tzinfo
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.cli.config_file import load_file
from penstock.cli.cost_files import read_file
from penstock.cli.cost_table import plain
from penstock.cli.cost_terms import read_where, read_zone
from penstock.cli.mistake import Mistake
from penstock.core.money import dollars, read_nanos, show
from penstock.pricing.invoice import Booked, Comparison, Format, Line, Tolerance, compare, read_invoice
from penstock.stores.costs import DAY_MICROS, Costs, Question
from penstock.stores.ledger import Attribute

MOST_LINES: Final = 100_000  # of the ledger, each a day of a deployment and a model
MOST_DAYS: Final = 400
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%")


class Terms(msgspec.Struct, frozen=True):
    """What the options say."""

    tolerance: Tolerance
    zone: str
    where: tuple[str, ...]
    same: dict[str, str]
    format: Format | None
    served: dict[str, str]  # what a deployment's upstream calls the model
    only: tuple[str, ...] | None  # deployments; None: all

    @classmethod
    def read(
        cls,
        *,
        tolerance: str,
        zone: str,
        file: Path,
        where: tuple[str, ...],
        same: tuple[str, ...],
        provider: str | None,
        day_column: str | None,
        amount_column: str | None,
        model_column: str,
        currency_column: str,
    ) -> Terms:
        """Raises `Mistake`."""
        if (day_column is None) is not (amount_column is None):
            raise Mistake("--day-column and --amount-column belong together")
        if day_column is None and (model_column or currency_column):
            raise Mistake("the columns of an invoice are told with --day-column and --amount-column")
        deployments = load_file(file).deployments if file.exists() else {}
        only = None
        if provider is not None:
            only = tuple(name for name, one in deployments.items() if one.provider == provider)
            if not only:
                raise Mistake(f"{file} has no deployment of the provider {provider!r}")
        pairs = [text.partition("=") for text in same]
        if not all(theirs and ours for theirs, _, ours in pairs):
            raise Mistake("--same is THEIRS=OURS, such as gpt-4o-2024-08-06=gpt-4o")
        return cls(
            _tolerance(tolerance),
            zone,
            where,
            {theirs: ours for theirs, _, ours in pairs},
            None if day_column is None else Format("", day_column, amount_column or "", model_column, currency_column),
            {name: one.served for name, one in deployments.items() if one.served is not None},
            only,
        )


async def reconcile_with(costs: Costs, path: Path, terms: Terms) -> Comparison:
    """Raises `Mistake` for the invoice, `StoreFailed`."""
    zone = read_zone(terms.zone)
    lines: list[Line] = read_file(path, lambda file: read_invoice(file, terms.format))
    first, last = lines[0].day, max(line.day for line in lines)
    if (last - first).days > MOST_DAYS:
        raise Mistake(f"{path} has lines from {first} to {last}: that are more than {MOST_DAYS} days")
    since, until = _midnight(first, zone), _midnight(last + timedelta(days=1), zone)
    if since < 0:
        raise Mistake(f"{path}: {first} is before there was a ledger")
    only = read_where(terms.where, zone)
    if terms.only is not None:
        only = (*only, (Attribute.DEPLOYMENT, terms.only))
    asked = Question((), since, until, only, zone, MOST_LINES)
    daily = await costs.sums(msgspec.structs.replace(asked, by=(Attribute.DAY, Attribute.DEPLOYMENT, Attribute.MODEL)))
    if daily.n_others:
        raise Mistake(f"the ledger has more than {MOST_LINES:,} lines for these days; choose fewer with --where")
    if daily.missing:
        raise Mistake("requests of these days were let go, and with this --where or --zone they would be needed")
    books: defaultdict[tuple[date, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for one in daily.groups:
        day, deployment, model = map(str, one.group)
        counted = books[date.fromisoformat(day), terms.served.get(deployment, model)]
        for n, more in enumerate((one.cost_nanos, one.requests, one.unpriced, one.estimated)):
            counted[n] += more
    hourly = await costs.sums(
        msgspec.structs.replace(
            asked, by=(Attribute.HOUR,), since_micros=max(0, since - DAY_MICROS), until_micros=until + DAY_MICROS
        )
    )
    return compare(
        lines,
        [Booked(day, model, *counted) for (day, model), counted in sorted(books.items())],
        terms.tolerance,
        {int(one.group[0] or 0): one.cost_nanos for one in hourly.groups},
        _ahead(zone, first),
        terms.same,
    )


def render(found: Comparison) -> Iterator[str]:
    """Lines that are not within the tolerance, with reasons, and a last one that is the sum."""
    for line in found.lines:
        if line.within and not line.reasons:
            continue
        more = line.invoiced - line.booked
        verdict = "agrees" if line.within else f"{'+' * (more > 0)}{show(more)}"
        yield (
            f"{line.day}  {plain(line.model) or 'all models'}: invoice {show(line.invoiced)}, ledger "
            f"{show(line.booked)} ({line.requests:,} requests), {verdict}"
        )
        yield from (f"    {reason}" for reason in line.reasons)
    yield from found.reasons
    beyond = sum(not line.within for line in found.lines)
    more = found.invoiced - found.booked
    and_so = "" if found.within or beyond else ", but the sum is"
    yield (
        f"Invoice {show(found.invoiced)}, ledger {show(found.booked)}, difference {'+' * (more > 0)}{show(more)}: "
        f"{beyond:,} of {len(found.lines):,} lines are beyond the tolerance{and_so}."
    )


def told_json(found: Comparison) -> bytes:
    def amounts(one: Any) -> dict[str, str]:
        return {
            "invoice": str(dollars(one.invoiced)),
            "ledger": str(dollars(one.booked)),
            "difference": str(dollars(one.invoiced - one.booked)),
        }

    lines = [
        {"day": line.day, "model": line.model, **amounts(line), "requests": line.requests, "within": line.within}
        | {"reasons": line.reasons}
        for line in found.lines
    ]
    said = {"within": found.within, **amounts(found), "reasons": found.reasons, "lines": lines}
    return msgspec.json.format(msgspec.json.encode(said), indent=2)


def _tolerance(text: str) -> Tolerance:
    percent = _PERCENT.fullmatch(text)
    if percent:
        return Tolerance(share=Fraction(percent[1]) / 100)
    try:
        return Tolerance(share=Fraction(0), nanos=read_nanos(text))
    except ValueError:
        raise Mistake("--tolerance is a percentage such as 1%, or dollars such as $0.50") from None


def _midnight(day: date, zone: tzinfo) -> int:
    return int(datetime.combine(day, time(), zone).timestamp()) * 1_000_000


def _ahead(zone: tzinfo, day: date) -> int:
    """Whole hours that the zone is ahead of UTC."""
    return round((zone.utcoffset(datetime.combine(day, time())) or timedelta()) / timedelta(hours=1))
