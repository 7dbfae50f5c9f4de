"""What a limit says, whom it is said of, and how much a request uses: values. `limits.rules` decides with them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from penstock.limits.charges import MOST
from penstock.limits.periods import Period

Who = Literal["org", "team", "key", "user", "model"]


class Meter(StrEnum):
    REQUESTS = "requests"
    INPUT_TOKENS = "input tokens"
    OUTPUT_TOKENS = "output tokens"
    TOKENS = "tokens"  # both
    CONCURRENT_REQUESTS = "concurrent requests"
    MONEY = "money"


METERS: Final = tuple(Meter)
MONEY: Final = METERS.index(Meter.MONEY)
RATES: Final = (Meter.REQUESTS, Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS, Meter.TOKENS)


class Account(msgspec.Struct, frozen=True, gc=False):
    """Whom a request is counted for; what is empty has no limits. A team or a user is one only within its organisation:
    a limit of each is `per=("org", "team")`. Users of keys that belong to no organisation are counted together.
    """

    org: str = ""
    team: str = ""
    key: str = ""
    user: str = ""
    model: str = ""


class Limit(msgspec.Struct, frozen=True, gc=False):
    """At most `amount` of `meter`, counted apart for every value of `per`, of the requests for which `where` is true.

    For `MONEY`, `amount` is nano-dollars in each `period`; for `CONCURRENT_REQUESTS` it is how many at once; for all
    others it is units in a sliding window of `window` seconds. `name` is unique; people see it and counters live
    under it. `soft` is for money: allow, and tell. `strict` is for counters that hosts share: ask them for every
    request, instead of leasing blocks of units.
    """

    name: str
    meter: Meter
    amount: int
    window: int = 0
    period: Period | None = None
    per: tuple[Who, ...] = ("key",)
    where: tuple[tuple[Who, str], ...] = ()
    soft: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be counted."""
        if (self.meter is Meter.MONEY) != (self.period is not None):
            raise ValueError(f"{self.name}: money, and only money, has a period")
        if (self.meter in RATES) != (self.window > 0):
            raise ValueError(f"{self.name}: requests and tokens have a window of whole seconds, other meters have none")
        if self.soft and self.meter is not Meter.MONEY:
            raise ValueError(f"{self.name}: only budgets can be soft")
        most = MOST if self.meter in RATES else 2**53 - 1
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


class Counted(msgspec.Struct, frozen=True):
    """What a counter counts: of which limit, for whom (what is empty is not told apart), in which calendar window."""

    limit: Limit
    account: Account
    window: str  # `Span.label`; "" for what is no budget
