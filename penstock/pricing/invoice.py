"""A provider's invoice beside our own books: what each model cost on each day, and why the two may not agree.

Invoices are read as exact decimals and compared in nano-dollars. An explanation is only given where the numbers say so.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final

import msgspec

from penstock.core.money import NANOS_PER_DOLLAR

MAX_DOLLARS: Final = 10**9  # of one line; beyond it the column is no amount
STEADY: Final = Fraction(1, 200)  # ratios of days that differ by no more than this are the same
STEADY_DAYS: Final = 3
_DATE_SUFFIX: Final = re.compile(r"-(20[0-9]{2}-?[01][0-9]-?[0-3][0-9])$")


class InvoiceError(ValueError):
    """The text says what is wrong with the file, and in which line."""


class Format(msgspec.Struct, frozen=True):
    """Which columns of a CSV file say what. Without `model` days are compared as a whole."""

    name: str
    day: str
    amount: str
    model: str = ""
    currency: str = ""


# Costs as exported by hand from the two consoles; the columns of OpenAI's are those of its costs API
# (https://platform.openai.com/docs/api-reference/usage/costs), where a line item is "model, class of tokens".
FORMATS: Final = (
    Format("openai", "start_time_iso", "amount_value", "line_item", "amount_currency"),
    Format("openai", "start_time", "amount_value", "line_item", "amount_currency"),
    Format("anthropic", "usage_date_utc", "cost_usd", "model"),
)


class Line(msgspec.Struct, frozen=True):
    """What a provider asks for one model on one day. An empty model: it does not say for which."""

    day: date
    model: str
    nanos: int


class Booked(msgspec.Struct, frozen=True):
    """What our books say of one model on one day; `nanos` leaves out the unpriced requests."""

    day: date
    model: str
    nanos: int
    requests: int
    unpriced: int = 0
    estimated: int = 0


class Tolerance(msgspec.Struct, frozen=True):
    """A difference is no matter when it is within either."""

    share: Fraction = Fraction(1, 100)  # of what was invoiced
    nanos: int = NANOS_PER_DOLLAR // 100

    def allows(self, invoiced: int, booked: int) -> bool:
        more = abs(invoiced - booked)
        return more <= self.nanos or more <= self.share * abs(invoiced)


class Difference(msgspec.Struct, frozen=True):
    """`invoiced - booked` is what the provider asks for more than our books say."""

    day: date
    model: str
    invoiced: int
    booked: int
    requests: int
    within: bool
    reasons: tuple[str, ...]


class Comparison(msgspec.Struct, frozen=True):
    lines: tuple[Difference, ...]
    invoiced: int
    booked: int
    within: bool  # all lines and the sum of them
    reasons: tuple[str, ...]  # that concern more than one line


def read_invoice(rows: Iterable[str], format: Format | None = None) -> list[Line]:
    """The lines of a CSV file, one for each model and day that it names. Raises `InvoiceError`.

    Without a format it is one of `FORMATS`, by its columns.
    """
    reader = csv.DictReader(rows, restval="")
    sums: defaultdict[tuple[date, str], Fraction] = defaultdict(Fraction)
    try:
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        chosen = _format(columns, format)
        for row in reader:
            if not any(row.values()):
                continue
            try:
                said = {key: (row[columns[key]] or "").strip() for key in (chosen.day, chosen.amount)}
                if chosen.currency and (currency := row[columns[chosen.currency]].strip()).lower() not in ("usd", ""):
                    raise ValueError(f"the currency is {currency!r}; the ledger is in US dollars")
                model = row[columns[chosen.model]].strip() if chosen.model in columns else ""
                sums[_day(said[chosen.day]), _model(chosen, model)] += _amount(said[chosen.amount])
            except ValueError as error:
                raise InvoiceError(f"line {reader.line_num}: {error}") from None
    except csv.Error as error:
        raise InvoiceError(f"line {reader.line_num}: {error}") from None
    if not sums:
        raise InvoiceError("there is no line in it but the names of the columns")
    return [Line(day, model, round(dollars * NANOS_PER_DOLLAR)) for (day, model), dollars in sorted(sums.items())]


def same_models(invoiced: Iterable[str], booked: Iterable[str], told: Mapping[str, str]) -> dict[str, str]:
    """Which of our names an invoice's names mean: as told; alike but for case and punctuation ("Claude Haiku 4.5");
    or likewise without the date that ends them, when that leaves just one. The others are left out."""
    exact: defaultdict[str, set[str]] = defaultdict(set)
    undated: defaultdict[str, set[str]] = defaultdict(set)
    for name in booked:
        exact[word(name)].add(name)
        undated[_DATE_SUFFIX.sub("", word(name))].add(name)
    found = {}
    for name in invoiced:
        near = exact.get(word(name)) or undated.get(_DATE_SUFFIX.sub("", word(name))) or set()
        if name in told:
            found[name] = told[name]
        elif len(near) == 1:
            found[name] = next(iter(near))
    return found


def word(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def compare(
    invoice: Sequence[Line],
    books: Sequence[Booked],
    tolerance: Tolerance,
    hours: Mapping[int, int],
    here: int,
    told: Mapping[str, str],
) -> Comparison:
    """Day by day and model by model. `hours` are the nano-dollars of our books by the Unix second that an hour begins
    with, from a day before the invoice to a day after it; `here` is how many hours ahead of UTC the books' days are."""
    by_model = any(line.model for line in invoice)
    names = same_models({line.model for line in invoice}, {one.model for one in books}, told) if by_model else {}
    asked: defaultdict[tuple[date, str], int] = defaultdict(int)
    for line in invoice:
        asked[line.day, names.get(line.model, line.model)] += line.nanos
    ours: defaultdict[tuple[date, str], list[Booked]] = defaultdict(list)
    for one in books:
        ours[one.day, one.model if by_model else ""].append(one)
    known = {model for _, model in ours}
    ratios = _ratios(asked, ours, tolerance)
    lines = []
    for day, model in sorted({*asked, *ours}):
        some = ours.get((day, model), [])
        invoiced, booked = asked.get((day, model), 0), sum(one.nanos for one in some)
        within = tolerance.allows(invoiced, booked)
        reasons = list(_reasons(some))
        if not within and not some:
            what = "on this day" if model in known else "under this name (tell it with --same)"
            reasons.append(f"the ledger has no request {what}")
        elif not within and (day, model) not in asked:
            reasons.append("the invoice has no such line")
        if not within and model in ratios:
            reasons.append(f"the invoice is {float(ratios[model]):.3g} x the ledger every day: another price")
        lines.append(
            Difference(day, model, invoiced, booked, sum(one.requests for one in some), within, tuple(reasons))
        )
    total = sum(asked.values()), sum(one.nanos for one in books)
    within = all(line.within for line in lines) and tolerance.allows(*total)
    return Comparison(tuple(lines), *total, within, () if within else tuple(_shift(asked, hours, here, tolerance)))


def _reasons(some: Sequence[Booked]) -> Iterator[str]:
    requests = sum(one.requests for one in some)
    if unpriced := sum(one.unpriced for one in some):
        yield f"{unpriced:,} of {requests:,} requests have no price in the ledger"
    if estimated := sum(one.estimated for one in some):
        yield f"the tokens of {estimated:,} of {requests:,} requests were estimated"


def _ratios(
    asked: Mapping[tuple[date, str], int], ours: Mapping[tuple[date, str], list[Booked]], tolerance: Tolerance
) -> dict[str, Fraction]:
    """Of models that were invoiced at the same multiple of our books on each of some days."""
    found: defaultdict[str, list[Fraction]] = defaultdict(list)
    for (day, model), invoiced in asked.items():
        booked = sum(one.nanos for one in ours.get((day, model), ()))
        if invoiced > tolerance.nanos and booked > 0:
            found[model].append(Fraction(invoiced, booked))
    steady = {}
    for model, ratios in found.items():
        middle = sorted(ratios)[len(ratios) // 2]
        if len(ratios) >= STEADY_DAYS and all(abs(ratio - middle) <= STEADY * middle for ratio in ratios):
            steady[model] = middle
    return steady


def _shift(
    asked: Mapping[tuple[date, str], int], hours: Mapping[int, int], here: int, tolerance: Tolerance
) -> Iterator[str]:
    """Whether the days would agree if they began at another hour."""
    invoiced: defaultdict[date, int] = defaultdict(int)
    for (day, _), nanos in asked.items():
        invoiced[day] += nanos

    def agrees(ahead: int) -> bool:
        days: defaultdict[date, int] = defaultdict(int)
        for second, nanos in hours.items():
            days[datetime.fromtimestamp(second + ahead * 3600, UTC).date()] += nanos
        return all(tolerance.allows(nanos, days[day]) for day, nanos in invoiced.items())

    if agrees(here):
        return
    others = [ahead for ahead in range(-12, 15) if agrees(ahead)]
    if others:
        ahead = min(others, key=lambda ahead: abs(ahead - here))
        zone = f"Etc/GMT{-ahead:+d}" if ahead else "UTC"
        yield f"the days agree when they begin at midnight of UTC{ahead:+d}: try --zone {zone}"


def _format(columns: Mapping[str, str], told: Format | None) -> Format:
    if told is None:
        for known in FORMATS:
            if known.day in columns and known.amount in columns:
                return known if known.currency in columns else msgspec.structs.replace(known, currency="")
        raise InvoiceError(
            "its columns are of no invoice that is known here; say which they are with --day-column, "
            f"--amount-column and --model-column. There are: {', '.join(list(columns.values())[:30])[:500]}"
        )
    chosen = msgspec.structs.replace(
        told, day=told.day.lower(), amount=told.amount.lower(), model=told.model.lower(), currency=told.currency.lower()
    )
    for name in (chosen.day, chosen.amount, chosen.model, chosen.currency):
        if name and name not in columns:
            raise InvoiceError(f"there is no column {name!r}; there are: {', '.join(columns.values())[:500]}")
    return chosen


def _day(text: str) -> date:
    try:
        if text.isascii() and text.isdecimal() and len(text) > 8:
            return datetime.fromtimestamp(int(text), UTC).date()
        return datetime.fromisoformat(text).date()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"not a day such as 2027-01-31: {text[:40]!r}") from None


def _amount(text: str) -> Fraction:
    try:
        dollars = Decimal(text.removeprefix("$").replace(",", ""))
    except InvalidOperation:
        raise ValueError(f"not an amount of dollars: {text[:40]!r}") from None
    if not dollars.is_finite() or (dollars and not -30 < dollars.adjusted() < 10) or abs(dollars) > MAX_DOLLARS:
        raise ValueError(f"not an amount of dollars: {text[:40]!r}")
    return Fraction(dollars)


def _model(format: Format, text: str) -> str:
    return text.partition(", ")[0] if format.model == "line_item" else text
