"""The receipt of a request, written exactly once however it ended. Metrics, logs, cost and evals are folds over it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from penstock.core.plan import Attempt
from penstock.core.request import Priority, Usage


class UsageSource(StrEnum):
    PROVIDER = "provider"  # counted by whoever answered
    PROVIDER_PARTIAL = "provider_partial"  # likewise, but the answer ended before the last count
    TOKENIZER = "tokenizer"  # counted by us with the model's own tokenizer
    ESTIMATE = "estimate"  # ours, from bytes: the answer ended before the upstream had counted
    NONE = "none"  # nothing was generated


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`received_at` is Unix time, all other times are seconds since then. The access log writes it as it is.

    `cost_nanos` is in 1e-9 dollars; None: nobody knows, which is not nothing.
    """

    received_at: float
    request_id: str
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
    first_token_after: float | None
    duration: float
    plane_version: int
    deployment: str = ""  # who answered
    team: str = ""
    user_hash: str = ""
    feature: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()
    cost_nanos: int | None = None
    priority: Priority = Priority.NORMAL
    admitted_after: float = 0.0  # limits and budgets had been reserved, and where it may go was decided
    queued_for: float = 0.0  # until a replica had room for it
    predicted_ttft: float = 0.0  # when it was sent: from then to the first token; 0: nobody could say
    matched_tokens: int = 0  # of the prompt, that the replica was taken to have in its cache
    why: tuple[str, ...] = ()  # where it went, in words; nothing where there was nothing to decide
    arm: str = ""  # of the experiment or canary
    degraded: tuple[str, ...] = ()  # what was given up for it
    trace_id: str = ""  # 32 hex digits (W3C Trace Context)
    parent_id: str = ""  # 16, of the caller's span; "": it sent none
    sampled: bool = False  # its caller records this trace
    prompt_version: str = ""
    context: tuple[str, ...] = ()  # ids of what was retrieved for its prompt
    last_token_after: float | None = None  # of a stream: when something that means anything last came
    served: str = ""  # the version of the model: what whoever answered calls it; "": as its caller did
