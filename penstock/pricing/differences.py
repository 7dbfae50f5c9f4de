"""What is different between two tables of prices, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.pricing.prices import Price, Row, Table
from penstock.pricing.rates import CLASSES, Class, show_rate


def differences(old: Table, new: Table) -> Iterator[str]:
    """Lines that begin with "+", "-" or "~", by provider and model. A rate that a row does not name, and that follows
    from another, is told too: it is what would be paid."""
    was = {(price.provider, price.model): price for price in old}
    now = {(price.provider, price.model): price for price in new}
    for key in sorted(was.keys() | now.keys()):
        name = "/".join(key)
        if key not in now:
            yield f"- {name}"
        elif key not in was:
            yield f"+ {name}: {summary(now[key].rows[-1])}"
        else:
            yield from _changes(name, was[key], now[key])


def summary(row: Row) -> str:
    """ "input $2.50/M, output $10.00/M" """
    if row.free:
        return "free"
    rates = row.schedules["standard"][0].rates
    names: tuple[Class, ...] = ("input", "output", "image", "request")
    return ", ".join(f"{name} {show_rate(name, rates.of(name))}" for name in names if rates.of(name) is not None)


def _changes(name: str, old: Price, new: Price) -> Iterator[str]:
    was = {row.valid_from: row for row in old.rows}
    now = {row.valid_from: row for row in new.rows}
    for day in sorted(was.keys() | now.keys(), key=lambda day: str(day or "")):
        named = name if day is None else f"{name} from {day}"
        if day not in now:
            yield f"- {named}"
        elif day not in was:
            yield f"+ {named}: {summary(now[day])}"
        else:
            yield from _changed(named, was[day], now[day])


def _changed(name: str, old: Row, new: Row) -> Iterator[str]:
    if old.free != new.free:
        yield f"~ {name}: {summary(old)} -> {summary(new)}"
        return
    was, now = _every(old), _every(new)
    for where, class_ in sorted(was.keys() | now.keys(), key=lambda one: (one[0], CLASSES.index(one[1]))):
        before, after = was.get((where, class_)), now.get((where, class_))
        if before != after:
            yield f"~ {name} {where}{class_}: {show_rate(class_, before)} -> {show_rate(class_, after)}"


def _every(row: Row) -> dict[tuple[str, Class], int]:
    """Each rate of each service and length, by ("batch above 200000 ", class); the standard service has no word."""
    found: dict[tuple[str, Class], int] = {}
    for service, tiers in row.schedules.items():
        for tier in tiers:
            where = ("" if service == "standard" else f"{service} ") + (f"above {tier.above} " if tier.above else "")
            for name in CLASSES:
                rate = tier.rates.of(name)
                if rate is not None:
                    found[where, name] = rate
    return found
