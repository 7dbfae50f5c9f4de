"""How sums of the ledger are shown: a table for people, JSON and CSV for programs. What callers wrote is only text."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from penstock.core.money import dollars
from penstock.stores.costs import Answer
from penstock.stores.ledger import Attribute, By, Tag, Total

ATTRIBUTES: Final = {
    "org": Attribute.ORG,
    "team": Attribute.TEAM,
    "key": Attribute.KEY,
    "user": Attribute.USER,
    "feature": Attribute.FEATURE,
    "session": Attribute.SESSION,
    "model": Attribute.MODEL,
    "deployment": Attribute.DEPLOYMENT,
    "replica": Attribute.REPLICA,
    "endpoint": Attribute.ENDPOINT,
    "cache": Attribute.CACHE,
    "status": Attribute.STATUS,
    "error": Attribute.ERROR,
    "usage": Attribute.USAGE_SOURCE,
    "price": Attribute.PRICE_VERSION,
    "day": Attribute.DAY,
    "hour": Attribute.HOUR,
}
COUNTS: Final = Total.__struct_fields__[1:]
NEVER_HIDDEN: Final = frozenset({"requests", "input_tokens", "output_tokens"})
_WIDEST: Final = 48  # characters of a group's name; the whole of it is in JSON and CSV
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


def word(by: By) -> str:
    if isinstance(by, Tag):
        return f"tag:{by.name}"
    return next(word for word, attribute in ATTRIBUTES.items() if attribute is by)


def plain(text: str) -> str:
    """Without anything that moves a cursor, rings or turns the direction of writing: that is shown by its code."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def cell(text: str) -> str:
    """The same text where no spreadsheet takes it for a formula (https://owasp.org/www-community/attacks/CSV_Injection):
    a quote comes before it. Numbers of ours are not cells of this kind."""
    return f"'{text}" if text.startswith(_FORMULAS) else text


def table(answer: Answer, by: Sequence[By], zone: tzinfo) -> list[str]:
    """Lines; the last one is the total. Classes of tokens that nobody used have no column."""
    rows = [*answer.groups, *([answer.others] if answer.n_others else []), answer.total]
    shown = [name for name in COUNTS if name in NEVER_HIDDEN or getattr(answer.total, name)]
    shown = [name for name in shown if name not in ("cost_nanos", "duration_micros")]
    places = max((_places(one.cost_nanos) for one in rows), default=2)
    names = [[_name(attribute, value, zone) for attribute, value in zip(by, one.group, strict=False)] for one in rows]
    names[-1] = ["total", *[""] * (len(by) - 1)]
    if answer.n_others:
        names[-2] = [f"{answer.n_others:,} others", *[""] * (len(by) - 1)]
    head = [*([word(one) for one in by] or [""]), *(name.removesuffix("_tokens") for name in shown), "cost"]
    lines = [
        [*name, *(f"{getattr(one, count):,}" for count in shown), money(one, places)]
        for name, one in zip(names, rows if by else [answer.total], strict=False)
    ]
    n_names = max(1, len(by))
    widths = [max(_width(line[n]) for line in [head, *lines]) for n in range(len(head))]
    return [
        "  ".join(
            line[n] + " " * (width - _width(line[n])) if n < n_names else " " * (width - _width(line[n])) + line[n]
            for n, width in enumerate(widths)
        ).rstrip()
        for line in [head, *lines]
    ]


def money(one: Total, places: int) -> str:
    """All groups with as many digits, so that they can be added up by eye. Never $0.00 for what has no price."""
    if not one.priced:
        return "no price"
    return f"{'-' if one.cost_nanos < 0 else ''}${abs(dollars(one.cost_nanos)):,.{places}f}"


def as_json(answer: Answer, by: Sequence[By], zone: tzinfo) -> dict[str, Any]:
    """Costs as text: none is rounded by whoever reads it. null where no request had a price."""

    def said(one: Total, **more: Any) -> dict[str, Any]:
        group = {
            word(attribute): value_of(attribute, value, zone) for attribute, value in zip(by, one.group, strict=False)
        }
        return group | more | {name: getattr(one, name) for name in COUNTS} | {"cost": cost_text(one)}

    return {
        "groups": [said(one) for one in answer.groups],
        "others": said(answer.others, groups=answer.n_others) if answer.n_others else None,
        "total": said(answer.total),
        "missing": [[_iso(since), _iso(until)] for since, until in answer.missing],
    }


def as_csv(answer: Answer, by: Sequence[By], zone: tzinfo) -> str:
    """A line for each group, one for the others when there are any, one for the total; the first column says which."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", *(cell(plain(word(one))) for one in by), *COUNTS, "cost"])
    blank = [""] * len(by)
    lines: list[tuple[str, list[str], Total]] = [
        (
            "group",
            [_cell(value_of(attribute, value, zone)) for attribute, value in zip(by, one.group, strict=True)],
            one,
        )
        for one in answer.groups
    ]
    if answer.n_others:
        lines.append(("others", blank, answer.others))
    lines.append(("total", blank, answer.total))
    for kind, names, one in lines:
        writer.writerow([kind, *names, *(getattr(one, name) for name in COUNTS), cost_text(one) or ""])
    return out.getvalue()


def cost_text(one: Total) -> str | None:
    return str(dollars(one.cost_nanos)) if one.priced else None


def value_of(by: By, value: str | int | None, zone: tzinfo) -> str | int | None:
    """As it is asked for: an hour is a time of the zone."""
    if by is Attribute.HOUR and value is not None:
        return datetime.fromtimestamp(int(value), zone).isoformat(timespec="minutes")
    return value


def _name(by: By, value: str | int | None, zone: tzinfo) -> str:
    text = plain(str(value_of(by, value, zone))) if value not in (None, "") else "-"
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _cell(value: str | int | None) -> str:
    return cell("" if value is None else str(value))


def _places(nanos: int) -> int:
    """Digits after the point that an amount needs, at least two."""
    return max(2, len(str(abs(nanos) % 10**9).rjust(9, "0").rstrip("0")))


def _width(text: str) -> int:
    """Columns of a terminal; marks that combine take none."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _iso(micros: int) -> str:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).isoformat()
