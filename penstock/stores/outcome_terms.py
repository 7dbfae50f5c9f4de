"""What kept requests are asked for: `model=chat error ttft>2 why~canary`, as conditions of SQL with bound values. Pure.

A term is a name, an operator and a value; a name alone means that there is one; any other word is searched for in the
whole receipt. All terms have to be true.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

import msgspec

from penstock.stores.sql import Value

TEXTS: Final = (
    "endpoint", "model", "org", "team", "key_id", "feature", "session", "priority", "deployment", "replica", "error",
    "finish_reason", "arm", "trace_id", "why", "request_id",
)  # fmt: skip
NUMBERS: Final = {
    "status": ("status", 1.0),
    "prompt_tokens": ("prompt_tokens", 1.0),
    "completion_tokens": ("completion_tokens", 1.0),
    "attempts": ("n_attempts", 1.0),
    "cost": ("cost_nanos", 1e9),
    "ttft": ("ttft_micros", 1e6),
    "duration": ("duration_micros", 1e6),
    "queued": ("queued_micros", 1e6),
    "slower": ("coalesce(ttft_micros, duration_micros)", 1e6),
}
"""By name: the column, and what a value is multiplied by. Spans are in seconds, costs in dollars."""
ALIASES: Final = {"key": "key_id", "id": "request_id", "trace": "trace_id", "finish": "finish_reason"}
MOST_TERMS: Final = 16
MAX_VALUE: Final = 256  # characters

_TERM: Final = re.compile(r"([a-z_]{1,32})(<=|>=|!=|=|<|>|~)(.*)", re.DOTALL)
_CLASS: Final = re.compile(r"[1-5]xx")
_NULLABLE: Final = frozenset({"error", "finish_reason"})
_STATUS: Final = {"ok": "error is null", "failed": "error is not null"}


class Term(msgspec.Struct, frozen=True):
    """`operator` is one of = != < <= > >= ~ (holds the text), or "" for a word of the receipt."""

    name: str
    operator: str
    value: str


def parse(text: str) -> tuple[Term, ...]:
    """Raises ValueError, which says what is wrong, for what is no expression. Values with spaces are quoted."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"a quotation is not closed: {error}") from None
    return checked(map(read, words))


def checked(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The same, when they mean something. Raises ValueError."""
    found = tuple(terms)
    if len(found) > MOST_TERMS:
        raise ValueError(f"there are more than {MOST_TERMS} terms")
    for one in found:
        condition(one)
    return found


def condition(term: Term) -> tuple[str, tuple[Value, ...]]:
    """SQL with `?` in the place of each value. Raises ValueError for what means nothing."""
    if len(term.value) > MAX_VALUE or "\0" in term.value:
        raise ValueError(f"a value has at most {MAX_VALUE} characters, and no NUL")
    name = ALIASES.get(term.name, term.name)
    if not term.operator:
        return "instr(body, cast(? as blob)) > 0", (term.value,)
    if name == "status" and term.operator == "=":
        if term.value in _STATUS:
            return _STATUS[term.value], ()
        if _CLASS.fullmatch(term.value):
            return "status / 100 = ?", (int(term.value[0]),)
    if name in NUMBERS:
        return _number(name, term)
    if name not in TEXTS:
        near = get_close_matches(name, [*TEXTS, *NUMBERS, *ALIASES], n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"`{name}` is nothing that requests are known by.{hint}")
    column = f"coalesce({name}, '')" if name in _NULLABLE and term.operator in ("!=", "~") else name
    match term.operator:
        case "=" if name in _NULLABLE and not term.value:
            return f"{name} is null", ()
        case "=" | "!=":
            return f"{column} {term.operator} ?", (term.value,)
        case "~":
            return f"instr({column}, ?) > 0", (term.value,)
    raise ValueError(f"`{name}` is a text: it takes =, != and ~")


def _number(name: str, term: Term) -> tuple[str, tuple[Value, ...]]:
    column, times = NUMBERS[name]
    if term.operator == "~":
        raise ValueError(f"`{name}` is a number: it takes =, !=, <, <=, > and >=")
    try:
        value = float(term.value.removesuffix("s") if times == 1e6 else term.value.lstrip("$"))
        scaled = round(value * times)
    except (ValueError, OverflowError):
        raise ValueError(f"`{name}` is a number, not {term.value[:40]!r}") from None
    if abs(scaled) >= 2**53:
        raise ValueError(f"`{name}` is never that large")
    return f"{column} {term.operator} ?", (scaled,)


def read(word: str) -> Term:
    """One term, which may mean nothing."""
    matched = _TERM.fullmatch(word)
    if matched is not None:
        return Term(matched[1], matched[2], matched[3])
    if word in _NULLABLE:
        return Term(word, "!=", "")
    return Term("", "", word)
