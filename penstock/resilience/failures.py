"""What follows from each kind of failure: one closed table, so that nothing about an error is decided twice.

A retry is worth it when another replica, or the same one later, may do better. A breaker counts what says something
about the replica's health; a caller's bad request does not. The texts are for callers: no host, key or routing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.core.errors import FailureKind, PenstockError, Rejected, UpstreamError, UpstreamFailed


class Consequence(msgspec.Struct, frozen=True, gc=False):
    retry: bool
    trips: bool  # counts against the replica's breaker
    status: int  # for the caller, when it was the last word
    code: str  # stable
    message: str


CONSEQUENCES: Final[Mapping[FailureKind, Consequence]] = {
    FailureKind.CONNECT: Consequence(True, True, 502, "upstream_unreachable", "The model server cannot be reached."),
    FailureKind.CONNECT_TIMEOUT: Consequence(
        True, True, 504, "upstream_timeout", "The model server did not accept a connection in time."
    ),
    FailureKind.FIRST_TOKEN_TIMEOUT: Consequence(
        True, True, 504, "first_token_timeout", "The model did not begin to answer in time."
    ),
    FailureKind.IDLE_TIMEOUT: Consequence(
        True, True, 504, "idle_timeout", "The model stopped in the middle of its answer; what came so far is not whole."
    ),
    FailureKind.TOTAL_TIMEOUT: Consequence(
        False, False, 504, "timeout", "The request took longer than it may; what came so far is not whole."
    ),
    FailureKind.RATE_LIMITED: Consequence(
        True, False, 429, "upstream_rate_limited", "The model server accepts no more requests at the moment."
    ),
    FailureKind.QUOTA: Consequence(
        True, True, 502, "upstream_quota", "The gateway's own account with the provider is exhausted; yours is fine."
    ),
    FailureKind.OVERLOADED: Consequence(True, True, 503, "upstream_overloaded", "The model server is overloaded."),
    FailureKind.SERVER_ERROR: Consequence(True, True, 502, "upstream_error", "The model server failed."),
    FailureKind.NETWORK: Consequence(
        True, True, 502, "upstream_broke", "The connection to the model server broke; what came so far is not whole."
    ),
    FailureKind.TRUNCATED: Consequence(
        True,
        True,
        502,
        "upstream_truncated",
        "The model server ended its answer without saying that it was complete; what came so far is not whole.",
    ),
    FailureKind.BAD_PAYLOAD: Consequence(
        True, True, 502, "upstream_bad_payload", "The model server sent something that is not an answer."
    ),
    FailureKind.AUTH: Consequence(
        True, True, 502, "upstream_auth", "The model server refused the gateway's own credential; yours is fine."
    ),
    FailureKind.MISCONFIGURED: Consequence(
        True, True, 502, "upstream_misconfigured", "The model server does not know what the gateway asked it for."
    ),
    FailureKind.REJECTED: Consequence(
        False, False, 400, "rejected_by_upstream", "The model server rejected the request."
    ),
    FailureKind.CONTEXT_LENGTH: Consequence(
        False, False, 400, "context_length_exceeded", "The request is longer than this model can read."
    ),
    FailureKind.CONTENT_POLICY: Consequence(
        False, False, 400, "content_policy_violation", "The provider will not answer this request."
    ),
    FailureKind.NO_REPLICA: Consequence(
        True, False, 503, "no_replica", "No replica of this model is available at the moment."
    ),
}


OF_THE_CALLER: Final = frozenset({FailureKind.REJECTED, FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_POLICY})
"""Kinds that speak of the request itself."""


def for_caller(failure: UpstreamError) -> PenstockError:
    """What the caller is told when `failure` was the last word."""
    means = CONSEQUENCES[failure.kind]
    if failure.kind in OF_THE_CALLER:
        return Rejected(failure.status or means.status, failure.said, code=means.code, message=means.message)
    return UpstreamFailed(failure.kind, means.status, means.code, means.message, retry_after=failure.retry_after)
