"""`penstock cost correct`: reads what a provider says of each request, and makes the ledger agree with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Final

import msgspec

from penstock.cli.config_file import load_file
from penstock.cli.cost_files import read_file
from penstock.cli.cost_table import plain
from penstock.cli.cost_terms import moment, read_where
from penstock.cli.mistake import Mistake
from penstock.config.compile import compile_plane
from penstock.config.prices import bundled, price_for
from penstock.core.money import dollars, show
from penstock.pricing.prices import Price
from penstock.pricing.usage_report import NAMES, Reported, read_report
from penstock.stores.corrections import Corrected, PriceOf
from penstock.stores.entry import Entry
from penstock.stores.ledger import Attribute, Span

NAMED: Final = 5  # of the requests that the ledger does not have
_TOLD: Final = (Attribute.DAY, Attribute.ERROR)  # by the span, and by what a crash is


def read(path: Path, columns: tuple[str, ...]) -> list[Reported]:
    """Raises `Mistake`."""
    pairs = [text.partition("=") for text in columns]
    for ours, _, theirs in pairs:
        if ours not in NAMES or not theirs:
            raise Mistake(f"--column is OURS=THEIRS; ours are {', '.join(NAMES)}")
    return read_file(path, lambda file: read_report(file, {ours: theirs for ours, _, theirs in pairs}))


def complete_span(complete: str | None, where: tuple[str, ...], now: float) -> Span | None:
    """Raises `Mistake`."""
    if complete is None:
        if where:
            raise Mistake("--where says of which requests the report knows all: it belongs to --complete")
        return None
    first, dots, last = complete.partition("..")
    if not dots:
        raise Mistake("--complete is FROM..TO, such as 2027-01-01..2027-01-02")
    since, until = moment(first, UTC, "--complete"), moment(last, UTC, "--complete")
    if not 0 <= since < until:
        raise Mistake("--complete ends before it begins")
    if until > now * 1e6:
        raise Mistake("--complete ends in the future, of which no report knows all")
    return Span(tuple(_only(where)), since, until)


def prices_of(file: Path) -> PriceOf:
    """By the deployment that a request was sent to, as the configuration file says; none when there is no file."""
    if not file.exists():
        return lambda row: None
    deployments = {one.name: one for one in compile_plane(load_file(file), 1, {}).deployments}

    def price_of(row: Entry) -> Price | None:
        deployment = deployments.get(row.deployment)
        return None if deployment is None else price_for(deployment, row.model, bundled())

    return price_of


def render(done: Corrected, dry_run: bool) -> Iterator[str]:
    verb = "Would correct" if dry_run else "Corrected"
    difference = f"{'+' * (done.nanos > 0)}{show(done.nanos)}"
    yield f"{verb} {_requests(done.corrected)} by {difference}; of {done.agreed:,} the ledger said the same."
    if done.never_got:
        it = "it" if done.never_got == 1 else "them"
        yield f"Of those, {_requests(done.never_got)} crashed before the provider got {it}, and cost nothing."


def doubts(done: Corrected) -> Iterator[str]:
    if done.unknown:
        some = ", ".join(map(plain, done.some_unknown[:NAMED]))
        more = ", ..." if done.unknown > NAMED else ""
        yield f"The ledger does not have {_requests(done.unknown)} of the report: {some}{more}."
    if done.unpriced:
        left = "it cost; it was left as it is" if done.unpriced == 1 else "they cost; they were left as they are"
        yield f"Of {_requests(done.unpriced)} nobody says what {left}."


def told_json(done: Corrected, dry_run: bool) -> bytes:
    """The difference as text too: it is rounded by nobody who reads it."""
    counts = msgspec.structs.asdict(done)
    nanos = counts.pop("nanos")
    said = {"dry_run": dry_run, **counts, "difference_nanos": nanos, "difference": str(dollars(nanos))}
    return msgspec.json.format(msgspec.json.encode(said), indent=2)


def _only(where: tuple[str, ...]) -> Iterator[tuple[Attribute, str]]:
    for what, values in read_where(where, UTC):
        is_text = isinstance(what, Attribute) and what not in _TOLD and isinstance(values[0], str)
        if not is_text or len(values) > 1:
            raise Mistake("--where of a complete report is one text for each word, such as deployment=openai")
        yield what, values[0]


def _requests(n: int) -> str:
    return f"{n:,} request{'' if n == 1 else 's'}"
