"""Real outcomes for the tests of this room."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.errors import FailureKind
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import OK, Attempt
from penstock.core.request import Endpoint, Usage

STREAMED = Outcome(
    received_at=1_800_000_000.25,
    request_id="req_0199aa",
    endpoint=Endpoint.CHAT,
    tenant="acme",
    key_id="web",
    model="chat",
    stream=True,
    status=200,
    error=None,
    attempts=(Attempt(0, "local/0", OK, 0.001, 0.2, 2.0),),
    usage=Usage(210, 61, 128),
    usage_source=UsageSource.PROVIDER,
    finish_reason="stop",
    first_token_after=0.2,
    duration=2.0005,
    plane_version=7,
)
RETRIED = msgspec.structs.replace(
    STREAMED,
    attempts=(
        Attempt(0, "local/0", FailureKind.SERVER_ERROR, 0.001, None, 0.1),
        Attempt(1, "local/1", OK, 0.15, 0.2, 2.0),
    ),
)
REFUSED = msgspec.structs.replace(
    STREAMED,
    status=404,
    error="model_not_found",
    model="no-such",
    attempts=(),
    usage=Usage(),
    usage_source=UsageSource.NONE,
    finish_reason=None,
    first_token_after=None,
    duration=0.0001,
)


def like(outcome: Outcome, **changes: Any) -> Outcome:
    return msgspec.structs.replace(outcome, **changes)
