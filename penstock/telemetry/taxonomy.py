"""What kind of failure each error code is: whether it passes by itself, and who could do something about it.

Failures of attempts have their natures in `resilience.failures`; here are those of all codes that callers see, which
are these and the gateway's own. A code that is in no table counts as ours, since somebody has to look at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.resilience.failures import CONSEQUENCES, NATURES, Blame, Lasting, Nature

_CALLER_LATER: Final = Nature(Lasting.TRANSIENT, Blame.CALLER)
_CALLER: Final = Nature(Lasting.SYSTEMATIC, Blame.CALLER)
_SYSTEM_LATER: Final = Nature(Lasting.TRANSIENT, Blame.SYSTEM)
UNKNOWN_NATURE: Final = Nature(Lasting.SYSTEMATIC, Blame.SYSTEM)

LIMITS: Final = frozenset({"request_rate_limit", "token_rate_limit", "concurrency_limit", "budget_exceeded"})
FULL: Final = frozenset({"overloaded", "queue_full", "queue_timeout", "deadline_unreachable", "no_replica", "shed"})

REFUSALS: Final = LIMITS | FULL | {"request_cost_limit", "model_not_priced"}
"""Codes of requests that were turned away although nothing is wrong with them."""

OF_CODES: Final[Mapping[str, Nature]] = {
    **{means.code: NATURES[kind] for kind, means in CONSEQUENCES.items()},
    **dict.fromkeys(LIMITS, _CALLER_LATER),
    **dict.fromkeys(FULL, _SYSTEM_LATER),
    **dict.fromkeys(
        (
            "invalid_request",
            "unsupported_across_dialects",
            "unsupported_endpoint",
            "unknown_parameter",
            "unsupported_parameter",
            "invalid_media_url",
            "invalid_api_key",
            "revoked_api_key",
            "expired_api_key",
            "api_key_not_yet_valid",
            "model_not_allowed",
            "network_not_allowed",
            "scope_not_allowed",
            "route_not_allowed",
            "not_found",
            "model_not_found",
            "method_not_allowed",
            "request_cost_limit",
            "remote_media_refused",
            "previous_response_not_found",
            "response_not_found",
            "rejected_by_upstream",
        ),
        _CALLER,
    ),
    "client_left": _CALLER_LATER,
    "cancelled_by_operator": _SYSTEM_LATER,
    "store_unavailable": _SYSTEM_LATER,
    "model_not_priced": UNKNOWN_NATURE,
    "internal_error": UNKNOWN_NATURE,
}

FINISH_REASONS: Final[Mapping[str, str]] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "incomplete": "length",
    "model_context_window_exceeded": "length",
    "context": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
    "pause_turn": "pause",
    "pause": "pause",
}
"""The same endings, as the dialects call them. The second ones are the values of labels."""

_REFUSED_BY_MODEL: Final = ("content_filter", "refusal")


def nature_of(code: str) -> Nature:
    return OF_CODES.get(code, UNKNOWN_NATURE)


def refusal_signal(finish_reason: str | None, error: str | None) -> str:
    """How it can be told that a model would not answer, from the receipt alone; "" where nothing says so."""
    if error == "content_policy_violation":
        return error
    ending = FINISH_REASONS.get(finish_reason or "", "")
    return ending if ending in _REFUSED_BY_MODEL else ""
