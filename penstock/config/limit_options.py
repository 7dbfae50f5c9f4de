"""Limits and budgets as they are written: `600/m`, `2M per day`, `$50/month`. What follows from them is in `limits`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from penstock.config.options import Options, Text, says
from penstock.core.money import NUMBER
from penstock.limits.charges import MOST
from penstock.pricing.options import Money

DAY: Final = 86_400
LONGEST: Final = 31 * DAY  # seconds of a sliding window
_SECONDS: Final = {
    **{"s": 1, "m": 60, "h": 3600, "d": DAY},
    **{"second": 1, "minute": 60, "hour": 3600, "day": DAY, "week": 7 * DAY, "month": 30 * DAY},
}
_TIMES: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6}
RATE_PATTERN: Final = (
    r"^([1-9][0-9]{0,9})([kKM]?) ?(?:/ ?|per )"
    r"(?:([1-9][0-9]{0,3}) ?)?(s|m|h|d|week|month|(?:second|minute|hour|day|week|month)s?)$"
)
BUDGET_PATTERN: Final = rf"^((?:\$|USD )?{NUMBER}(?: ?USD)?)(?:(?: ?/ ?| (?:per|a) )(day|week|month)| in (total))$"
_RATE: Final = re.compile(RATE_PATTERN)
_BUDGET: Final = re.compile(BUDGET_PATTERN)

Rate = Annotated[
    str,
    Meta(
        pattern=RATE_PATTERN,
        examples=["600/m", "10/s", "2M/d", "5k per hour", "100M/30d"],
        extra={"expected": "a whole number for a time, such as 600/m, 10/s, 2M/d or 5k per hour"},
    ),
]
AtOnce = Annotated[int, Meta(ge=1, le=1_000_000)]
Share = Annotated[
    str,
    Meta(
        pattern=r"^[1-9][0-9]{0,2}%$",
        examples=["80%"],
        extra={"expected": "a whole number of percent from 1% to 999%, such as 80%"},
    ),
]
Every = Literal["day", "week", "month", "total"]
Webhook = Annotated[
    str,
    Meta(
        pattern=r"^(https?://[^\s/@]+(/[^\s]*)?|env:[A-Za-z_][A-Za-z0-9_]*|file:.*[^\s])$",
        examples=["https://alerts.example.com/penstock", "env:BUDGET_WEBHOOK"],
        extra={
            "secret": True,  # whoever knows such an address may write there
            "wrong": "must be an https:// or http:// address, or where it is: env:NAME or file:/path",
        },
    ),
]
BudgetText = Annotated[
    str,
    Meta(
        pattern=BUDGET_PATTERN,
        examples=["$50/month", "$5 per day", "$1,000 in total"],
        extra={"expected": "an amount for a time, such as $50/month, $5 per day or $1,000 in total"},
    ),
]
Whose = Literal["key", "team", "org", "user", "model"]
Per = Annotated[
    Literal["key", "team", "org", "user", "model", "all"]
    | Annotated[tuple[Whose, ...], Meta(min_length=1, max_length=5)],
    says(
        "Who has a count of their own: `key`, `team`, `org`, `user` (the caller's end users), `model`, several of them "
        "as a list, or `all`, who share one."
    ),
]


class Where(Options, frozen=True):
    """Only requests of which all of this is true."""

    org: Annotated[Text | None, says("Of keys of this organisation.")] = None
    team: Annotated[Text | None, says("Of keys of this team of it.")] = None
    key: Annotated[Text | None, says("With the key that has this id.")] = None
    model: Annotated[Text | None, says("For this model.")] = None


class OwnLimits(Options, frozen=True, gc=False):
    """How much may be asked for. Each of these is a limit of its own."""

    requests: Annotated[Rate | None, says("Requests: 600/m, 10/s, 50k/d.")] = None
    input_tokens: Annotated[Rate | None, says("Tokens of prompts.")] = None
    output_tokens: Annotated[Rate | None, says("Tokens of answers.")] = None
    tokens: Annotated[Rate | None, says("Tokens of both.")] = None
    concurrent_requests: Annotated[AtOnce | None, says("Requests at the same time.")] = None
    strict: Annotated[
        bool,
        says(
            "With counters that hosts share (`store.counters`): asked for every request, so that it is never exceeded, "
            "instead of leased in blocks."
        ),
    ] = False


class LimitOptions(OwnLimits, frozen=True):
    """Exactly one of `requests`, `input_tokens`, `output_tokens`, `tokens` and `concurrent_requests`."""

    per: Per = "key"
    where: Annotated[Where, says("For whom. Without it, for all.")] = msgspec.field(default_factory=Where)


class OwnBudget(Options, frozen=True, gc=False):
    """How much may be spent."""

    amount: Annotated[Money, says("Dollars.")]
    every: Annotated[Every, says("Of the calendar in `timezone`; weeks begin on Monday.")]
    mode: Annotated[
        Literal["hard", "soft"],
        says("`hard`: a request that might not fit is refused. `soft`: it is allowed, and somebody is told."),
    ] = "hard"
    notify: Annotated[
        Annotated[tuple[Share, ...], Meta(max_length=8)],
        says("Shares of it at which somebody is told, in the log, in metrics and at `webhook`."),
    ] = ("80%", "100%")
    webhook: Annotated[
        Webhook | None, says("Where they are told by a POST of JSON: an address, or env:NAME or file:/path.")
    ] = None


class BudgetOptions(OwnBudget, frozen=True):
    """A budget for whomever it names."""

    per: Per = "key"
    where: Annotated[Where, says("For whom. Without it, for all.")] = msgspec.field(default_factory=Where)


METERS: Final = ("requests", "input_tokens", "output_tokens", "tokens", "concurrent_requests")


class Written(msgspec.Struct, frozen=True):
    amount: int
    window: int  # seconds


@lru_cache(1_000)
def read_rate(text: str) -> Written:
    """Raises `ValueError` for what is no `Rate`, and for one that is too large or too long to be counted."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"not a whole number for a time, such as 600/m: {text!r}")
    number, times, n, unit = found.groups()
    amount = int(number) * _TIMES[times]
    window = int(n or 1) * _SECONDS[unit if len(unit) == 1 else unit.removesuffix("s")]
    if window > LONGEST:
        raise ValueError("is for longer than 31 days; what is longer is a budget's affair")
    if amount > MOST:
        raise ValueError(f"is more than {MOST:,}, which is not counted exactly")
    return Written(amount, window)


@lru_cache(1_000)
def read_budget(text: str) -> OwnBudget:
    """`$50/month`, with everything that it leaves open. Raises `ValueError` when it is no `BudgetText`."""
    found = _BUDGET.fullmatch(text)
    if found is None:
        raise ValueError(f"not an amount for a time, such as $50/month: {text!r}")
    amount, every, total = found.groups()
    return OwnBudget(amount=amount, every=msgspec.convert(every or total, Every))
