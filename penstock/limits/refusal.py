"""What a refused caller reads: which limit, how much of it is used, and when to come again."""

from __future__ import annotations

from math import isfinite
from typing import Final

import msgspec

from penstock.core.money import show
from penstock.limits.charges import Refused
from penstock.limits.headers import spoken
from penstock.limits.limit import Meter
from penstock.limits.rules import Applied

_CODES: Final = {
    Meter.REQUESTS: "request_rate_limit",
    Meter.CONCURRENT_REQUESTS: "concurrency_limit",
    Meter.MONEY: "budget_exceeded",
}


class Refusal(msgspec.Struct, frozen=True):
    code: str
    message: str
    retry_after: float | None  # seconds; None when waiting does not help


def refusal(applied: Applied, refused: Refused) -> Refusal:
    """`refused` is the answer to `applied.charges`."""
    limit, charge = applied.limits[refused.which], applied.charges[refused.which]
    money = limit.meter is Meter.MONEY
    used, most, cost = (
        show(amount) if money else f"{amount:,}" for amount in (refused.used[refused.which], charge.limit, charge.cost)
    )
    code = _CODES.get(limit.meter, "token_rate_limit")
    if not isfinite(refused.wait):
        needs = f"This request may need {cost}, more than {limit.name} ever allows: {most} {spoken(limit)}."
        return Refusal(code, needs + " A smaller `max_tokens` may help." * (limit.meter in _SHRINKS), None)
    return Refusal(
        code,
        f"{limit.name}: {used} of {most} {spoken(limit)} are used or reserved, and this request may need {cost}. "
        f"Retry after {refused.wait:.1f} s.",
        refused.wait,
    )


_SHRINKS: Final = (Meter.OUTPUT_TOKENS, Meter.TOKENS, Meter.MONEY)
