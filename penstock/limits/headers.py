"""What callers are told of their limits, in headers: the same numbers that decided.

`RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-10, one item for each limit; the
`x-ratelimit-*` ones are OpenAI's, for the requests and the tokens that are scarcest. Budgets are nobody's business but
those whose they are, and are not in headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final

from penstock.limits.charges import Charge, Kind
from penstock.limits.limit import METERS, MONEY, Limit, Meter
from penstock.limits.rules import Applied

_TOKENS: Final = ';qu="tokens"'  # not in the draft's registry of units, which has none for them
_REQUESTS: Final = METERS.index(Meter.REQUESTS)
_CONCURRENT: Final = METERS.index(Meter.CONCURRENT_REQUESTS)


def rate_headers(applied: Applied, used: Sequence[int]) -> bytes:
    """Header lines, each with its CRLF. `used` is a `Granted`'s or a `Refused`'s."""
    placed, charges = applied.placed, applied.charges
    meters = placed.meters
    numbers: list[object] = []
    requests = tokens = -1  # the scarcest of each
    least_requests = least_tokens = 2.0
    for which, charge in enumerate(charges):
        meter = meters[which]
        if meter == MONEY:
            continue
        limit, so_far = charge.limit, used[which]
        left = limit - so_far if so_far < limit else 0
        numbers.append(left)
        if meter == _CONCURRENT:
            continue
        numbers.append(-(-so_far * charge.window // limit) if limit else 0)
        share = left / limit if limit else 0.0
        if meter == _REQUESTS:
            if share < least_requests:
                requests, least_requests = which, share
        elif share < least_tokens:
            tokens, least_tokens = which, share
    if not numbers:
        return b""
    if requests >= 0:
        numbers += _left_of(charges[requests], used[requests])
    if tokens >= 0:
        numbers += _left_of(charges[tokens], used[tokens])
    template = placed.templates.get((requests, tokens)) or _template(applied, requests, tokens)
    return (template % tuple(numbers)).encode("ascii")


def _left_of(charge: Charge, used: int) -> tuple[int, str]:
    """And in what time all of it is there again."""
    limit = charge.limit
    if not limit:
        return 0, "0s"
    return (limit - used if used < limit else 0), duration(used * charge.window / limit)


def _template(applied: Applied, requests: int, tokens: int) -> str:
    """All that is the same for every request, with a place for each number. Kept for the next one."""
    policies, states, lines = [], [], []
    for limit, charge in zip(applied.limits, applied.charges, strict=True):
        if charge.kind is Kind.BUDGET:
            continue
        name, most = f'"{_text(limit.name)}"'.replace("%", "%%"), charge.limit
        if charge.kind is Kind.GAUGE:
            policies.append(f'{name};q={most};qu="concurrent-requests"')
            states.append(f"{name};r=%d")
        else:
            unit = "" if limit.meter is Meter.REQUESTS else _TOKENS
            policies.append(f"{name};q={most}{unit};w={charge.window}")
            states.append(f"{name};r=%d;t=%d")
    for what, which in (("requests", requests), ("tokens", tokens)):
        if which >= 0:
            lines.append(f"x-ratelimit-limit-{what}: {applied.charges[which].limit}\r\n")
            lines.append(f"x-ratelimit-remaining-{what}: %d\r\nx-ratelimit-reset-{what}: %s\r\n")
    head = f"ratelimit-policy: {', '.join(policies)}\r\nratelimit: {', '.join(states)}\r\n"
    applied.placed.templates[requests, tokens] = template = head + "".join(lines)
    return template


def duration(seconds: float) -> str:
    """As OpenAI writes it: 0s, 12ms, 6m0s, 1h0m3s."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms" if seconds > 0 else "0s"
    whole = ceil(seconds)
    if whole < 60:
        return f"{whole}s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h{minutes}m{whole % 60}s" if hours else f"{minutes}m{whole % 60}s"


def _text(name: str) -> str:
    """The inside of a structured field's string (RFC 9651, 3.3.3)."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in name)
    return printable.replace("\\", "\\\\").replace('"', '\\"')


def spoken(limit: Limit) -> str:
    """For people: "tokens per minute", "requests in 30 days", "concurrent requests", "spent this month"."""
    if limit.period is not None:
        return "spent in all" if limit.period == "total" else f"spent this {limit.period}"
    if not limit.window:
        return limit.meter.value
    for name, seconds in _SPANS.items():
        if limit.window % seconds == 0:
            n = limit.window // seconds
            return f"{limit.meter} per {name}" if n == 1 else f"{limit.meter} in {n} {name}s"
    raise AssertionError("every window has whole seconds")


_SPANS: Final = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
