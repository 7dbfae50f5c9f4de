"""What Anthropic's errors mean to us. Source: https://platform.claude.com/docs/en/api/errors.

The type says more than the status, and in some cases only the words do: an empty account is a 400 like any other.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import FailureKind, Said, UpstreamError, kind_of_status
from penstock.wire.anthropic.answer_shapes import ErrorBody, Told
from penstock.wire.prompts import UNREADABLE

_body = msgspec.json.Decoder(ErrorBody).decode

_KINDS: Final = {
    "invalid_request_error": FailureKind.REJECTED,
    "request_too_large": FailureKind.REJECTED,
    "authentication_error": FailureKind.AUTH,
    "permission_error": FailureKind.AUTH,
    "billing_error": FailureKind.QUOTA,
    "not_found_error": FailureKind.MISCONFIGURED,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "timeout_error": FailureKind.SERVER_ERROR,
    "api_error": FailureKind.SERVER_ERROR,
    "overloaded_error": FailureKind.OVERLOADED,
}
_CONTEXT: Final = ("prompt is too long", "exceed context limit", "context window", "maximum context length")
_POLICY: Final = ("content filtering policy", "usage policy")
_QUOTA: Final = ("credit balance is too low", "usage limits", "spend limit", "spending limit")
_OF_THE_CALLER: Final = (FailureKind.REJECTED, FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_POLICY)


def failure_of(status: int, body: bytes) -> UpstreamError:
    """What an error answer means. Its words are kept only where they speak of the request."""
    try:
        told = _body(body).error
    except UNREADABLE:
        told = Told()
    return _failure(told, status, f"status {status} {told.type}".strip())


def failure_inside(told: Told, where: str) -> UpstreamError:
    """An error that came with status 200. The words of all but the caller's own mistakes stay in the detail."""
    return _failure(told, 0, f"{where}: {told.type}: {told.message[:300]}")


def _failure(told: Told, status: int, detail: str) -> UpstreamError:
    kind = _KINDS.get(told.type, kind_of_status(status) if status else FailureKind.SERVER_ERROR)
    said = Said(told.message, told.type) if told.message else None
    if kind in (FailureKind.REJECTED, FailureKind.RATE_LIMITED) and _any(_QUOTA, told.message):
        kind = FailureKind.QUOTA
    elif kind is FailureKind.REJECTED and _any(_CONTEXT, told.message):
        kind, said = FailureKind.CONTEXT_LENGTH, Said(told.message, told.type, None, "context_length_exceeded")
    elif kind is FailureKind.REJECTED and _any(_POLICY, told.message):
        kind = FailureKind.CONTENT_POLICY
    return UpstreamError(kind, detail, status=status, said=said if kind in _OF_THE_CALLER else None)


def _any(words: tuple[str, ...], message: str) -> bool:
    lower = message.lower()
    return any(word in lower for word in words)
