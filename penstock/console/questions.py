"""Reads what the console's pages ask for out of their queries: which requests, and which costs. Raises `Invalid`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.config.units import unix_seconds, zone
from penstock.control.tenants import Fault, Invalid
from penstock.stores import outcomes
from penstock.stores.costs import MOST_GROUPS
from penstock.stores.costs import Question as CostQuestion
from penstock.stores.ledger import Attribute, By, Tag
from penstock.stores.outcome_terms import Term, checked

TAG: Final = "tag:"
REQUESTS: Final = {
    "model": "", "org": "", "team": "", "key_id": "", "deployment": "", "replica": "", "feature": "", "session": "",
    "status": "ok, failed, 4xx or a number.", "error": "A stable code.", "slower": "Seconds, at least.",
}  # fmt: skip
"""By name, what requests are filtered by."""
PAGE: Final = {"since": "Unix seconds.", "until": "Likewise.", "before": "`next` of a page.", "most": "From 1 to 200."}
COSTS: Final = {
    "by": "Attributes, with commas.", "since": "", "until": "", "most": "", "zone": "", "tag:*": "",
    "whole": "1: all of the time, however many requests have to be read one by one.",
    **{str(one): "" for one in Attribute if one not in (Attribute.HOUR, Attribute.DAY)},
}  # fmt: skip
MOST_REQUESTS: Final = 200
MOST_COSTS: Final = 1_000
_MONTH: Final = 30 * 86_400.0
_STATUS: Final = re.compile(r"[0-9]{1,3}")


def terms(query: Mapping[str, str]) -> tuple[Term, ...]:
    given = [(name, query[name]) for name in REQUESTS if query.get(name)]
    try:
        return checked(Term(name, ">=" if name == "slower" else "=", value) for name, value in given)
    except ValueError as error:
        raise Invalid(Fault("", str(error))) from None


def wanted(query: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    """The same filters, of a line that is there already."""
    terms(query)
    texts = {name: query[name] for name in REQUESTS if query.get(name) and name not in ("status", "slower")}
    status, slower = query.get("status", ""), float(query.get("slower") or 0.0)

    def fits(line: Mapping[str, Any]) -> bool:
        if any(line[name] != value for name, value in texts.items()):
            return False
        if slower and (line["ttft"] if line["ttft"] is not None else line["duration"]) < slower:
            return False
        match status:
            case "":
                return True
            case "ok" | "failed":
                return (line["error"] is None) == (status == "ok")
        code = str(line["status"])
        return code == status or (status.endswith("xx") and code[0] == status[0])

    return fits


def requests(query: Mapping[str, str]) -> outcomes.Question:
    return outcomes.Question(
        terms(query),
        since=_seconds(query, "since") or 0.0,
        until=_seconds(query, "until"),
        before=query.get("before", ""),
        most=_whole(query, "most", 50, MOST_REQUESTS),
    )


def costs(query: Mapping[str, str], now: float, org: str) -> CostQuestion:
    """`org` is the one that may be seen; "": all."""
    by = tuple(_attribute(name) for name in query.get("by", "").split(",") if name)
    only: dict[By, tuple[str | int | None, ...]] = {}
    for name, value in query.items():
        if name.startswith(TAG):
            only[Tag(name.removeprefix(TAG))] = (value,) if value else (None, "")
        elif name in COSTS and name not in ("by", "since", "until", "most", "zone", "whole"):
            attribute = Attribute(name)
            if attribute is Attribute.STATUS and not _STATUS.fullmatch(value):
                raise Invalid(Fault(name, "is a number such as 200"))
            only[attribute] = (value,) if value or attribute is not Attribute.ERROR else (None, "")
    if org:
        only[Attribute.ORG] = (org,)
    since, until = _moment(query, "since", now - _MONTH), _moment(query, "until", now)
    try:
        return CostQuestion(
            by,
            int(since * 1e6),
            int(until * 1e6),
            tuple(only.items()),
            zone(query.get("zone") or "UTC"),
            most=min(MOST_GROUPS, _whole(query, "most", 100, MOST_COSTS)),
        )
    except ValueError as error:
        raise Invalid(Fault("", str(error)[:200])) from None


def window(query: Mapping[str, str], there_are: Mapping[int, object], usual: int) -> int:
    text = query.get("window", str(usual))
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or int(text) not in there_are:
        raise Invalid(Fault("window", f"is one of {', '.join(map(str, there_are))}"))
    return int(text)


def _attribute(name: str) -> By:
    if name.startswith(TAG) and len(name) > len(TAG):
        return Tag(name.removeprefix(TAG))
    try:
        return Attribute(name)
    except ValueError:
        known = ", ".join(map(str, Attribute))
        raise Invalid(Fault("by", f"names something that costs are not told by; there are {known}")) from None


def _seconds(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1e11:
        raise Invalid(Fault(name, "is Unix seconds"))
    return value


def _moment(query: Mapping[str, str], name: str, usual: float) -> float:
    text = query.get(name)
    if not text:
        return usual
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        return _seconds(query, name) or 0.0
    try:
        return unix_seconds(text)
    except (ValueError, OverflowError):
        raise Invalid(Fault(name, "is Unix seconds, or a day such as 2027-01-31, or a time with its zone")) from None


def _whole(query: Mapping[str, str], name: str, usual: int, most: int) -> int:
    text = query.get(name)
    if not text:
        return usual
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or not 1 <= int(text) <= most:
        raise Invalid(Fault(name, f"is a whole number from 1 to {most}"))
    return int(text)
