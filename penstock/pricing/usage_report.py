"""What a provider says of each request of ours, by the id that we sent with it: tokens, or money, or both.

Several lines about one request, such as of attempts that were repeated, are added up, exactly.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

import msgspec

from penstock.core.money import NANOS_PER_DOLLAR
from penstock.core.request import Usage

REQUEST_ID: Final = "request_id"
COST: Final = "cost"  # dollars
COST_NANOS: Final = "cost_nanos"
TOKENS: Final = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
)  # disjoint classes, in the order of the ledger's columns
NAMES: Final = (REQUEST_ID, *TOKENS, COST_NANOS, COST)
_DOLLARS: Final = re.compile(r"\$?[0-9]{1,6}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?")
MOST: Final = 10**12  # tokens of a request, nano-dollars likewise: a thousand dollars


class ReportError(ValueError):
    """The text says what is wrong with the report, and in which line."""


class Reported(msgspec.Struct, frozen=True):
    """One request, all its attempts together. At least one of the two is known."""

    request_id: str
    tokens: tuple[int, ...] | None  # by the classes of `TOKENS`
    nanos: int | None  # what the provider asks for

    @property
    def usage(self) -> Usage | None:
        if self.tokens is None:
            return None
        plain, cached, write, write_1h, output, reasoning = self.tokens
        prompt = plain + cached + write + write_1h
        return Usage(prompt, output + reasoning, cached, write + write_1h, write_1h, reasoning)


def read_report(lines: Iterable[str], columns: Mapping[str, str] | None = None) -> list[Reported]:
    """CSV, or a JSON object in each line. `columns` is what the report calls our `NAMES`. Raises `ReportError`."""
    theirs = {name: (columns or {}).get(name, name) for name in NAMES}
    tokens: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(TOKENS))
    dollars: defaultdict[str, Fraction] = defaultdict(Fraction)
    seen: dict[str, tuple[bool, bool]] = {}
    for number, row in _rows(lines):
        try:
            id, counts, amount = _read(row, theirs)
        except ValueError as error:
            raise ReportError(f"line {number}: {error}") from None
        says = (counts is not None, amount is not None)
        if seen.setdefault(id, says) != says:
            raise ReportError(f"line {number}: other lines about {id!r} say something else than this one")
        if counts is not None:
            tokens[id] = [one + more for one, more in zip(tokens[id], counts, strict=True)]
        if amount is not None:
            dollars[id] += amount
    reported = []
    for id, (has_tokens, has_cost) in seen.items():
        nanos = round(dollars[id] * NANOS_PER_DOLLAR) if has_cost else None
        if max(nanos or 0, *tokens[id]) > MOST:
            raise ReportError(f"what it says of {id!r} is too much for one request")
        reported.append(Reported(id, tuple(tokens[id]) if has_tokens else None, nanos))
    return reported


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """By the number of the line."""
    rest = iter(lines)
    for number, first in enumerate(rest, 1):
        if not first.strip():
            continue
        if first.lstrip("\ufeff").startswith("{"):
            yield number, _json(number, first.lstrip("\ufeff"))
            for following, line in enumerate(rest, number + 1):
                if line.strip():
                    yield following, _json(following, line)
            return
        reader = csv.DictReader(rest, [name.strip().lstrip("\ufeff") for name in next(csv.reader([first]))], restval="")
        try:
            for row in reader:
                yield number + reader.line_num, row
        except csv.Error as error:
            raise ReportError(f"line {number + reader.line_num}: {error}") from None


def _json(number: int, line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ReportError(f"line {number}: {error}") from None


def _read(row: Mapping[str, Any], theirs: Mapping[str, str]) -> tuple[str, list[int] | None, Fraction | None]:
    """Of one line: the request, tokens by class, dollars. Raises ValueError."""
    said = {name: text for name in NAMES if (text := _text(row.get(theirs[name]))) != ""}
    if REQUEST_ID not in said:
        raise ValueError(f"it has no {theirs[REQUEST_ID]!r}")
    counts = None
    if any(name in said for name in TOKENS):
        counts = [_count(said.get(name, "0"), theirs[name]) for name in TOKENS]
    amount = None
    if COST_NANOS in said:
        amount = Fraction(_count(said[COST_NANOS], theirs[COST_NANOS]), NANOS_PER_DOLLAR)
    elif COST in said:
        amount = _dollars(said[COST], theirs[COST])
    if counts is None and amount is None:
        raise ValueError(f"it says neither what {said[REQUEST_ID]!r} used nor what it cost")
    return said[REQUEST_ID], counts, amount


def _dollars(text: str, name: str) -> Fraction:
    """Exactly, also of "1.2e-05", as some programs write small amounts."""
    if _DOLLARS.fullmatch(text) is None:
        raise ValueError(f"{name} is an amount of dollars, not {text!r}")
    return Fraction(text.removeprefix("$"))


def _text(value: Any) -> str:
    """A number in JSON is written as people write it."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else str("" if value is None else value)


def _count(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise ValueError(f"{name} is a whole number, not {text!r}")
    return int(text)
