"""What callers are told of their limits, in headers: the same numbers that decided.

`RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-10, one item for each limit; the
`x-ratelimit-*` ones are OpenAI's, for the requests and the tokens that are scarcest. Budgets are nobody's business but
those whose they are, and are not in headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from penstock.limits.charges import Charge, Kind
from penstock.limits.rules import Applied, Limit, Meter

_CONCURRENT: Final = ';qu="concurrent-requests"'
_TOKENS: Final = ';qu="tokens"'  # not in the draft's registry of units, which has none for them


def rate_headers(applied: Applied, used: Sequence[int]) -> bytes:
    """Header lines, each with its CRLF. `used` is a `Granted`'s or a `Refused`'s."""
    policies, states = [], []
    scarcest: dict[str, tuple[float, Charge, int]] = {}
    for limit, charge, so_far in zip(applied.limits, applied.charges, used, strict=True):
        if charge.kind is Kind.BUDGET:
            continue
        left = max(0, charge.limit - so_far)
        name = f'"{_text(limit.name)}"'
        if charge.kind is Kind.GAUGE:
            policies.append(f"{name};q={charge.limit}{_CONCURRENT}")
            states.append(f"{name};r={left}")
            continue
        unit = "" if limit.meter is Meter.REQUESTS else _TOKENS
        policies.append(f"{name};q={charge.limit}{unit};w={charge.window}")
        states.append(f"{name};r={left};t={-int(-_full_again(charge, so_far) // 1)}")
        what = "requests" if limit.meter is Meter.REQUESTS else "tokens"
        share = left / max(1, charge.limit)
        if what not in scarcest or share < scarcest[what][0]:
            scarcest[what] = share, charge, so_far
    if not policies:
        return b""
    lines = [f"ratelimit-policy: {', '.join(policies)}\r\n", f"ratelimit: {', '.join(states)}\r\n"]
    for what, (_, charge, so_far) in scarcest.items():
        lines.append(f"x-ratelimit-limit-{what}: {charge.limit}\r\n")
        lines.append(f"x-ratelimit-remaining-{what}: {max(0, charge.limit - so_far)}\r\n")
        lines.append(f"x-ratelimit-reset-{what}: {duration(_full_again(charge, so_far))}\r\n")
    return "".join(lines).encode("ascii")


def duration(seconds: float) -> str:
    """As OpenAI writes it: 0s, 12ms, 6m0s, 1h0m3s."""
    if seconds < 1:
        return f"{-int(-seconds * 1000 // 1)}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(-int(-seconds // 1), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _full_again(charge: Charge, used: int) -> float:
    """Seconds until all of the limit may be used at once."""
    return used * charge.window / charge.limit if charge.limit else 0.0


@lru_cache(10_000)
def _text(name: str) -> str:
    """The inside of a structured field's string (RFC 9651, 3.3.3)."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in name)
    return printable.replace("\\", "\\\\").replace('"', '\\"')


def spoken(limit: Limit) -> str:
    """For people: "tokens in 60 s", "concurrent requests", "spent this month"."""
    if limit.period is not None:
        return "spent in all" if limit.period == "total" else f"spent this {limit.period}"
    if not limit.window:
        return limit.meter.value
    named = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}.get(limit.window)
    return f"{limit.meter} per {named}" if named else f"{limit.meter} in {limit.window} s"
