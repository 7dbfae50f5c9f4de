"""The receipt of a request, written exactly once however it ended. Metrics, logs, cost and evals are folds over it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from penstock.core.plan import Attempt
from penstock.core.request import Usage


class UsageSource(StrEnum):
    PROVIDER = "provider"  # counted by whoever answered
    ESTIMATE = "estimate"  # ours, from bytes: the answer ended before the upstream had counted
    NONE = "none"  # nothing was generated


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """Times are Clock.now() seconds, `wall` is the Unix time of `received_at`."""

    request_id: str
    wall: float
    endpoint: str
    tenant: str
    key_id: str
    model: str
    stream: bool
    status: int  # as sent to the caller; 499 when they had left before any answer
    error: str | None  # stable code; None when the answer was whole
    attempts: tuple[Attempt, ...]
    usage: Usage
    usage_source: UsageSource
    finish_reason: str | None
    received_at: float
    first_token_at: float | None
    ended_at: float
    plane_version: int
