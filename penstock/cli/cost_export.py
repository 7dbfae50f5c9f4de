"""What `penstock cost export` writes: the requests as the ledger has them, and hours as charges of FOCUS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from penstock.cli.config_file import load_file
from penstock.cli.cost_table import COUNTS
from penstock.cli.mistake import Failure
from penstock.core.money import dollars
from penstock.pricing.focus import Charge, row
from penstock.stores.costs import DAY_MICROS
from penstock.stores.entry import Entry
from penstock.stores.ledger import HOUR_MICROS, LEDGER, Attribute
from penstock.stores.sql import TEXT

if TYPE_CHECKING:
    from penstock.pricing.focus import Kind, Value
    from penstock.stores.costs import Costs, Question

GROUPS_AT_ONCE: Final = 1_000_000  # of one exported day
_AT: Final = "at_micros"
_ATTRIBUTION: Final = ("org", "team", "key_id", "feature", "model", "deployment", "endpoint", "cache")
_COUNTED: Final = tuple(name for name in COUNTS if name not in ("cost_nanos", "duration_micros"))


def _column(name: str, kind: str) -> tuple[str, Kind]:
    return ("at", "time") if name == _AT else (name, "text" if kind == TEXT else "number")


COLUMNS: Final = (*(_column(name, kind) for name, kind in LEDGER.columns), ("cost", "money"))
"""Of a request: as in the ledger, but that its time can be read, and its cost in dollars is there, too."""


def request_row(entry: Entry) -> tuple[Value, ...]:
    """The values of `COLUMNS`."""
    values: list[Any] = list(structs.astuple(entry))
    values[Entry.__struct_fields__.index(_AT)] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=entry.at_micros
    )
    return *values, None if entry.cost_nanos is None else dollars(entry.cost_nanos)


def sellers(file: Path) -> dict[str, str]:
    """Who is paid for each deployment, as the configuration file says; nobody when there is none."""
    if not file.exists():
        return {}
    return {name: one.provider or "" for name, one in load_file(file).deployments.items()}


async def charges(
    costs: Costs, asked: Question, account: str, paid: dict[str, str]
) -> AsyncIterator[list[tuple[Value, ...]]]:
    """The rows of FOCUS of whole hours, a page for each day that has any. Raises `Failure`, `StoreFailed`."""
    whole = structs.replace(
        asked,
        since_micros=asked.since_micros // HOUR_MICROS * HOUR_MICROS,
        until_micros=asked.until_micros // HOUR_MICROS * HOUR_MICROS,
        zone=UTC,
        most=GROUPS_AT_ONCE,
    )
    by = (Attribute.HOUR, *map(Attribute, _ATTRIBUTION))
    days = await costs.sums(structs.replace(whole, by=(Attribute.DAY,)))
    for (day,) in sorted(one.group for one in days.groups):
        begin = int(datetime.fromisoformat(f"{day}T00:00+00:00").timestamp()) * 1_000_000
        since, until = max(whole.since_micros, begin), min(whole.until_micros, begin + DAY_MICROS)
        answer = await costs.sums(structs.replace(whole, by=by, since_micros=since, until_micros=until))
        if answer.n_others:
            raise Failure(f"{day} has more than {GROUPS_AT_ONCE:,} rows; choose fewer with --where")
        page = []
        for one in sorted(answer.groups, key=lambda one: one.group):
            hour, *texts = one.group
            facts: dict[str, Any] = {name: getattr(one, name) for name in _COUNTED}
            facts |= zip(_ATTRIBUTION, texts, strict=True)
            facts["hour"] = datetime.fromtimestamp(int(hour or 0), UTC)
            facts["nanos"] = one.cost_nanos if one.priced else None
            page.append(row(Charge(**facts, provider=paid.get(facts["deployment"], ""), account=account)))
        yield page
