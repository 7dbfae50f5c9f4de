"""What follows from each kind of failure: one closed table, so that nothing about an error is decided twice.

A retry is worth it when another replica, or the same one later, may do better. A breaker counts what says something
about the replica's health; a caller's bad request does not. The texts are for callers: no host, key or routing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
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


class Lasting(StrEnum):
    """Whether the same request, a little later, may fare better."""

    TRANSIENT = "transient"
    SYSTEMATIC = "systematic"  # not before somebody changes something


class Blame(StrEnum):
    """Who could change it."""

    CALLER = "caller"  # their request
    SYSTEM = "system"  # the gateway, its configuration, its accounts and the fleet that it has
    PROVIDER = "provider"  # whoever runs the model server


class Nature(msgspec.Struct, frozen=True, gc=False):
    lasting: Lasting
    blame: Blame


_PASSING: Final = Nature(Lasting.TRANSIENT, Blame.PROVIDER)
_OURS: Final = Nature(Lasting.SYSTEMATIC, Blame.SYSTEM)
_THEIRS: Final = Nature(Lasting.SYSTEMATIC, Blame.CALLER)

NATURES: Final[Mapping[FailureKind, Nature]] = {
    FailureKind.CONNECT: _PASSING,
    FailureKind.CONNECT_TIMEOUT: _PASSING,
    FailureKind.FIRST_TOKEN_TIMEOUT: _PASSING,
    FailureKind.IDLE_TIMEOUT: _PASSING,
    FailureKind.TOTAL_TIMEOUT: Nature(Lasting.TRANSIENT, Blame.SYSTEM),  # all attempts together, and our own waits
    FailureKind.RATE_LIMITED: _PASSING,
    FailureKind.QUOTA: _OURS,
    FailureKind.OVERLOADED: _PASSING,
    FailureKind.SERVER_ERROR: _PASSING,
    FailureKind.NETWORK: _PASSING,
    FailureKind.TRUNCATED: _PASSING,
    FailureKind.BAD_PAYLOAD: Nature(Lasting.SYSTEMATIC, Blame.PROVIDER),  # they speak another dialect than they say
    FailureKind.AUTH: _OURS,
    FailureKind.MISCONFIGURED: _OURS,
    FailureKind.REJECTED: _THEIRS,
    FailureKind.CONTEXT_LENGTH: _THEIRS,
    FailureKind.CONTENT_POLICY: _THEIRS,
    FailureKind.NO_REPLICA: Nature(Lasting.TRANSIENT, Blame.SYSTEM),
}
"""For reports and alerts: a systematic failure of ours wakes somebody, a transient one of a provider's does not."""

OF_THE_CALLER: Final = frozenset(kind for kind, nature in NATURES.items() if nature.blame is Blame.CALLER)
"""Kinds that speak of the request itself."""


def for_caller(failure: UpstreamError) -> PenstockError:
    """What the caller is told when `failure` was the last word."""
    means = CONSEQUENCES[failure.kind]
    if failure.kind in OF_THE_CALLER:
        return Rejected(failure.status or means.status, failure.said, code=means.code, message=means.message)
    return UpstreamFailed(failure.kind, means.status, means.code, means.message, retry_after=failure.retry_after)
