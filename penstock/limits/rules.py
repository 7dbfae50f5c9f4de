"""Which limits apply to a request, and what it costs on each of their counters."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, tzinfo
from enum import StrEnum
from math import inf
from typing import Final, Literal

import msgspec

from penstock.limits.charges import MOST, Charge, Kind
from penstock.limits.periods import Period, span

KEPT: Final = 20_000  # accounts whose counters' names are remembered

Who = Literal["org", "team", "key", "user", "model"]


class Meter(StrEnum):
    REQUESTS = "requests"
    INPUT_TOKENS = "input tokens"
    OUTPUT_TOKENS = "output tokens"
    TOKENS = "tokens"  # both
    CONCURRENT_REQUESTS = "concurrent requests"
    MONEY = "money"


class Account(msgspec.Struct, frozen=True, gc=False):
    """Whom a request is counted for; what is empty has no limits. A team or a user is one only within its organisation:
    a limit of each is `per=("org", "team")`.
    """

    org: str = ""
    team: str = ""
    key: str = ""
    user: str = ""
    model: str = ""


class Limit(msgspec.Struct, frozen=True):
    """At most `amount` of `meter`, counted apart for every value of `per`, of the requests for which `where` is true.

    For `MONEY`, `amount` is nano-dollars in each `period`; for `CONCURRENT_REQUESTS` it is how many at once; for all
    others it is units in a sliding window of `window` seconds. `name` is unique; people see it and counters live
    under it. `soft` is for money: allow, and tell.
    """

    name: str
    meter: Meter
    amount: int
    window: int = 0
    period: Period | None = None
    per: tuple[Who, ...] = ("key",)
    where: tuple[tuple[Who, str], ...] = ()
    soft: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be counted."""
        if (self.meter is Meter.MONEY) != (self.period is not None):
            raise ValueError(f"{self.name}: money, and only money, has a period")
        if (self.meter in _RATES) != (self.window > 0):
            raise ValueError(f"{self.name}: requests and tokens have a window of whole seconds, other meters have none")
        if self.soft and self.meter is not Meter.MONEY:
            raise ValueError(f"{self.name}: only budgets can be soft")
        most = MOST if self.meter in _RATES else 2**53 - 1
        if not 0 <= self.amount <= most:
            raise ValueError(f"{self.name}: between 0 and {most:,}, not {self.amount:,}")


class Amounts(msgspec.Struct, frozen=True, gc=False):
    """What a request is expected to use, and later what it did. `nanos` is None where nothing is ever charged: budgets
    do not apply to free models.
    """

    input_tokens: int
    output_tokens: int
    nanos: int | None
    requests: int = 1


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The charges of one request, the limit behind each, and the place of its meter in `_measured`."""

    charges: tuple[Charge, ...]
    limits: tuple[Limit, ...]
    meters: tuple[int, ...]

    def costs(self, actual: Amounts) -> list[int]:
        """For `Counters.settle`. A budget that was reserved is settled even where it turns out to be free."""
        measured = _measured(actual)
        return [measured[meter] for meter in self.meters]


class Rules:
    """All limits of a plane. Remembers the counters' names of recent accounts, nothing else."""

    __slots__ = ("_kept", "_limits", "_zone")

    def __init__(self, limits: Iterable[Limit], zone: tzinfo = UTC) -> None:
        self._limits = tuple(limits)
        names = [limit.name for limit in self._limits]
        assert len(set(names)) == len(names), "limits share counters when they share a name"
        self._zone = zone
        self._kept: dict[Account, tuple[float, tuple[_Place, ...]]] = {}

    def apply(self, account: Account, expected: Amounts, wall: float) -> Applied:
        """`wall` is Unix seconds: it decides which calendar window pays."""
        kept = self._kept.get(account)
        if kept is None or kept[0] <= wall:
            kept = self._place(account, wall)
        measured = _measured(expected)
        charges, limits, meters = [], [], []
        for limit, counter, kind, ends_at, meter in kept[1]:
            window = limit.window
            if kind is Kind.BUDGET:
                if expected.nanos is None:
                    continue
                window = int(ends_at - wall) + 1
            charges.append(Charge(counter, kind, limit.amount, measured[meter], window, limit.soft))
            limits.append(limit)
            meters.append(meter)
        return Applied(tuple(charges), tuple(limits), tuple(meters))

    def _place(self, account: Account, wall: float) -> tuple[float, tuple[_Place, ...]]:
        until, places = inf, []
        for limit in self._limits:
            values = [getattr(account, who) for who in limit.per]
            if not all(values) or any(getattr(account, who) != value for who, value in limit.where):
                continue
            counter = "|".join([_quoted(limit.name), *map(_quoted, values)])
            ends_at = inf
            if limit.period is not None:
                now = span(limit.period, wall, self._zone)
                counter, ends_at = f"{counter}|{now.label}", now.ends_at
                until = min(until, ends_at)
            elif limit.window:
                counter = f"{counter}|{limit.window}s"
            places.append((limit, counter, _KINDS[limit.meter], ends_at, _METERS.index(limit.meter)))
        if len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[account] = kept = until, tuple(places)
        return kept


_Place = tuple[Limit, str, Kind, float, int]

_RATES: Final = (Meter.REQUESTS, Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS, Meter.TOKENS)
_KINDS: Final = {
    **dict.fromkeys(_RATES, Kind.RATE),
    Meter.CONCURRENT_REQUESTS: Kind.GAUGE,
    Meter.MONEY: Kind.BUDGET,
}


_METERS: Final = tuple(Meter)


def _measured(amounts: Amounts) -> tuple[int, ...]:
    """In the order of `Meter`."""
    n, read, written = amounts.requests, amounts.input_tokens, amounts.output_tokens
    return n, read, written, read + written, n, amounts.nanos or 0


def _quoted(value: str) -> str:
    """So that no two callers' values, whatever they send, join to the same name."""
    return value.replace("%", "%25").replace("|", "%7C")
